"""The contracts, and the Python code generated from them."""
