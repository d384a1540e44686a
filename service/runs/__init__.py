"""Many callers, one model run: who waits, what runs together, and what the numbers mean."""
