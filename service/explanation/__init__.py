"""How an image became an answer."""
