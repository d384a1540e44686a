"""The network's shapes and sizes, pinned; and folding, which must change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_export.network import build_network, build_teacher, describe, fold_batch_norm, to_input


def test_the_shapes_layer_by_layer() -> None:
    value, shapes = torch.zeros(2, 1, 28, 28), []
    for layer in build_network().eval():
        value = layer(value)
        shapes.append((type(layer).__name__, tuple(value.shape[1:])))
    assert shapes == [
        ("Conv2d", (16, 24, 24)),
        ("BatchNorm2d", (16, 24, 24)),
        ("ReLU", (16, 24, 24)),
        ("MaxPool2d", (16, 12, 12)),
        ("Conv2d", (64, 10, 10)),
        ("BatchNorm2d", (64, 10, 10)),
        ("ReLU", (64, 10, 10)),
        ("Conv2d", (64, 8, 8)),
        ("BatchNorm2d", (64, 8, 8)),
        ("ReLU", (64, 8, 8)),
        ("MaxPool2d", (64, 4, 4)),
        ("Flatten", (1024,)),
        ("Linear", (128,)),
        ("ReLU", (128,)),
        ("Dropout", (128,)),
        ("Linear", (11,)),
    ]


def test_a_teacher_gives_ten_logits() -> None:
    assert build_teacher().eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_parameters_of_the_folded_network_layer_by_layer() -> None:
    counts = [sum(p.numel() for p in layer.parameters()) for layer in fold_batch_norm(build_network())]
    convolutions = [5 * 5 * 1 * 16 + 16, 3 * 3 * 16 * 64 + 64, 3 * 3 * 64 * 64 + 64]
    connected = [1024 * 128 + 128, 128 * 11 + 11]
    assert [count for count in counts if count] == convolutions + connected
    assert sum(counts) == 416 + 9_280 + 36_928 + 131_200 + 1_419 == 179_243


def test_it_is_described_in_words() -> None:
    words = "conv5x5(16)-pool-conv3x3(64)-conv3x3(64)-pool-fc128-fc11, 179 k parameters"
    assert describe(build_network()) == words


def trained_a_little() -> nn.Sequential:
    """A network whose batch normalisations have seen something."""
    torch.manual_seed(0)
    network = build_network()
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    network(torch.rand(16, 1, 28, 28))
    return network.eval()


@torch.no_grad()
def test_folding_changes_no_answer() -> None:
    network = trained_a_little()
    images = torch.rand(8, 1, 28, 28)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), network(images), atol=1e-5, rtol=1e-5)
    assert not [layer for layer in folded if isinstance(layer, nn.BatchNorm2d | nn.Dropout)]


def test_a_convolution_with_a_bias_keeps_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    image = torch.rand(1, 1, 5, 5)
    torch.testing.assert_close(fold_batch_norm(network)(image), network(image))


def test_a_normalisation_behind_anything_else_cannot_be_folded() -> None:
    with pytest.raises(TypeError, match="can be folded into a convolution only"):
        fold_batch_norm(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(1)))


def test_pixels_become_0_to_1() -> None:
    pixels = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    torch.testing.assert_close(to_input(pixels), torch.tensor([[[[0, 0.2], [0.4, 1]]]]))
