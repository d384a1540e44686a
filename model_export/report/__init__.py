"""Writes the card of a published model: what it is, what it can and what it cannot.

The way through: `figures` (the model on MNIST's test set, and what `evaluate` stored) and `baselines` (what else one
could do with the same data) -> `card` (the words) and `plots`.
"""
