"""What operators see: metrics, the log, traces."""
