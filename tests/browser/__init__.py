"""A real browser on the page: what it is asked to do is in the scripts beside this file, for Node."""
