"""The Open Inference Protocol, in whatever it travels."""
