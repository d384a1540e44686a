"""The digitserve server and client: a gRPC service that reads handwritten digits."""
