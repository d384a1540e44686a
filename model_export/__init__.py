"""Makes the model that `service` serves: trains it, exports it to one ONNX file, proves the file and publishes it.

The way through: `data` (MNIST as arrays) -> `augment` + `network` -> `train` -> `checkpoint` -> `export` -> `verify`
-> `report`.
This package and `service` never import each other; the .onnx file is all that passes between them.
"""
