"""What is spoken over gRPC, and what stands around every call."""
