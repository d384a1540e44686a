"""What is spoken over HTTP: pictures, the protocol, the page, and the port for operators."""
