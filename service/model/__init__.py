"""Model files, the versions that are loaded, what runs them, and what they did."""
