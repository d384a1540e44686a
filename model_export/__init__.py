"""Makes the model that `service` serves: trains it, exports it to one ONNX file, proves the file and publishes it.

The way through: `data` (MNIST as arrays) -> `augment`, `scribbles` -> `learner`, `lessons` and `network` in `train` ->
`checkpoint` -> `export` -> `verify` -> `publish`. `judging` measures what the service makes of it, `report` writes its
card. This package and `service` never import each other; the published model is all that passes between them.
"""
