"""The network, and nothing else: what the layers are, never how they are trained, exported or served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_SIZE = 28
CLASSES = 10


def build_network() -> nn.Sequential:
    """Build the untrained network: two rounds of convolution and pooling, then two fully connected layers.

    Input: float32 [N, 1, 28, 28], 0 for paper to 1 for ink. Output: float32 [N, 11], the logits of the digits 0 to 9
    and last that of "no digit".

    A convolution has no bias because the batch normalisation after it brings one; `export` folds the two into one
    convolution with a bias. Dropout acts in training only.
    """
    return nn.Sequential(
        *_convolution(1, 16, kernel_size=5),  # [N,  1, 28, 28] -> [N, 16, 24, 24]
        nn.MaxPool2d(2),  # -> [N, 16, 12, 12]
        *_convolution(16, 64, kernel_size=3),  # -> [N, 64, 10, 10]
        *_convolution(64, 64, kernel_size=3),  # -> [N, 64, 8, 8]
        nn.MaxPool2d(2),  # -> [N, 64, 4, 4]
        nn.Flatten(),  # -> [N, 1024]
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, CLASSES + 1),  # -> [N, 11]
    )


def build_teacher() -> nn.Sequential:
    """Build an untrained teacher: of the same kind, wider, too slow to serve.

    Input: float32 [N, 1, 28, 28], 0 for paper to 1 for ink. Output: float32 [N, 10], the logits of the digits 0 to 9.
    """
    return nn.Sequential(
        *_convolution(1, 32, kernel_size=5),
        nn.MaxPool2d(2),
        *_convolution(32, 96, kernel_size=3),
        *_convolution(96, 96, kernel_size=3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(96 * 4 * 4, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, CLASSES),
    )


def _convolution(inputs: int, outputs: int, kernel_size: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel_size, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def to_input(pixels: torch.Tensor) -> torch.Tensor:
    """Turn uint8 pixels [N, 28, 28], 0 paper to 255 ink, into the network's input, float32 [N, 1, 28, 28], 0 to 1."""
    return pixels.unsqueeze(1).float() / 255


def fold_batch_norm(network: nn.Sequential) -> nn.Sequential:
    """Return a copy of the network in which each convolution has absorbed the batch normalisation behind it.

    With the running mean m and variance v, and gamma, beta, epsilon of the normalisation, the kernel w becomes
    w * gamma / sqrt(v + epsilon) and the bias beta - m * gamma / sqrt(v + epsilon). Computed in float64, so that the
    only rounding is that of the result to float32. Dropout, which does nothing outside training, is left out.
    """
    folded: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            folded[-1] = _absorb(folded[-1], layer)
        elif not isinstance(layer, nn.Dropout):
            folded.append(layer)
    return nn.Sequential(*folded).eval()


def _absorb(convolution: nn.Module, norm: nn.BatchNorm2d) -> nn.Conv2d:
    if not isinstance(convolution, nn.Conv2d) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"a batch normalisation can be folded into a convolution only, not into {convolution}")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    before = 0.0 if convolution.bias is None else convolution.bias.double()
    folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, convolution.kernel_size)  # type: ignore[arg-type]
    with torch.no_grad():
        folded.weight.copy_(convolution.weight.double() * scale[:, None, None, None])
        assert folded.bias is not None
        folded.bias.copy_((before - norm.running_mean.double()) * scale + norm.bias.double())
    return folded


def describe(network: nn.Sequential) -> str:
    """Name the layers that hold numbers or pool, and count the parameters of the folded network, for a human reader."""
    folded = fold_batch_norm(network)
    count = sum(parameter.numel() for parameter in folded.parameters())
    return f"{'-'.join(_layer_words(folded))}, {count / 1000:.0f} k parameters"


def _layer_words(network: nn.Sequential) -> Iterator[str]:
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            yield f"conv{height}x{width}({layer.out_channels})"
        elif isinstance(layer, nn.MaxPool2d):
            yield "pool"
        elif isinstance(layer, nn.Linear):
            yield f"fc{layer.out_features}"
