"""What the commands do that ask a server."""
