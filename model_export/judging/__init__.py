"""Judges the model that a service answers with, by digits as people have them and by what is no digit.

The way through: `digit_sets` (MNIST's test set, load_digits, a folder, `pictures` drawn from validation digits) and
`non_digits` -> `asking` (the real service, over gRPC) -> `evaluate` -> `judged` (figures) -> table, JSON and
`contact_sheet`.
It only judges: nothing that shapes a model may import it, and a test follows the imports to prove it.
"""
