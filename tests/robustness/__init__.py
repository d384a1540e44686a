"""What the service is held to under load, faults and hostile input; docs/robustness.md is the list."""
