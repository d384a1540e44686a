"""Programs that ask the server with other people's clients; each runs in the environment of those clients."""
