"""The textbook's arithmetic, through the PyTorch layers the network is made of and through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import nn

Floats = npt.NDArray[np.float32]

PATCH = [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
FILTER = [[0.3, 1.1, -0.6], [0.4, -0.6, -0.3], [0.7, 0.1, 0.5]]

FACE = np.zeros((7, 7), np.float32)
for _row, _column in ((1, 1), (1, 5), (3, 3), (4, 1), (4, 5), (5, 2), (5, 3), (5, 4)):
    FACE[_row, _column] = 1
DETECTOR = [[0, 0, 1], [1, 0, 0], [0, 1, 1]]

# The 9x9 picture of an X, ink 1 and paper -1, and the filter for a falling diagonal.
LETTER_X = np.full((9, 9), -1, np.float32)
for _i in range(1, 8):
    LETTER_X[_i, _i] = LETTER_X[_i, 8 - _i] = 1
DIAGONAL = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]


def array(values: Any) -> Floats:
    return np.asarray(values, np.float32)


def onnx_run(kind: str, *inputs: Floats, **attributes: Any) -> Floats:
    """The output of a single ONNX node for these inputs."""
    names = [f"input{n}" for n in range(len(inputs))]
    node = helper.make_node(kind, names, ["output"], **attributes)
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in zip(names, inputs, strict=True)
    ]
    graph = helper.make_graph([node], kind, given, [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: Floats = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    return output


def convolve(image: Any, kernel: Any, bias: float = 0.0, stride: int = 1, padding: int = 0) -> Floats:
    """One channel, one filter, through nn.Conv2d and ONNX's Conv, which have to agree."""
    picture, weights = array(image)[None, None], array(kernel)[None, None]
    size = weights.shape[-1]
    layer = nn.Conv2d(1, 1, size, stride=stride, padding=padding)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.fill_(bias)  # type: ignore[union-attr]
        by_torch: Floats = layer(torch.tensor(picture)).numpy()
    by_onnx = onnx_run("Conv", picture, weights, array([bias]), strides=[stride] * 2, pads=[padding] * 4)
    np.testing.assert_allclose(by_torch, by_onnx, atol=1e-6)
    return array(by_torch[0, 0])


def relu(values: Any) -> Floats:
    by_torch: Floats = nn.ReLU()(torch.tensor(array(values))).numpy()
    np.testing.assert_array_equal(by_torch, onnx_run("Relu", array(values)))
    return by_torch


def pool(values: Any) -> Floats:
    """2x2 max-pool with stride 2 that keeps partial windows."""
    picture = array(values)[None, None]
    by_torch: Floats = nn.MaxPool2d(2, ceil_mode=True)(torch.tensor(picture)).numpy()
    by_onnx = onnx_run("MaxPool", picture, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    np.testing.assert_array_equal(by_torch, by_onnx)
    return array(by_torch[0, 0])


def test_one_patch_and_one_filter() -> None:
    products = [
        *(1 * 0.3, 0 * 1.1, 0 * -0.6),
        *(1 * 0.4, 1 * -0.6, 0 * -0.3),
        *(0 * 0.7, 1 * 0.1, 1 * 0.5),
    ]
    assert sum(products) == pytest.approx(0.7)
    assert convolve(PATCH, FILTER).item() == pytest.approx(0.7)


def test_relu_keeps_what_is_positive() -> None:
    np.testing.assert_allclose(relu([0.7, -0.7]), [0.7, 0])


def test_the_face_and_its_detector() -> None:
    found = convolve(FACE, DETECTOR)
    assert found.shape == (5, 5)
    np.testing.assert_allclose(found[0], [0, 1, 0, 0, 0], atol=1e-6)


def test_max_pooling_with_partial_windows_and_flattening() -> None:
    before = [[0, 1, 0, 0, 0], [0, 1, 1, 1, 0], [1, 0, 1, 2, 1], [1, 4, 2, 1, 0], [0, 0, 1, 2, 1]]
    after = pool(before)
    np.testing.assert_array_equal(after, [[1, 1, 0], [4, 2, 1], [0, 2, 1]])
    flat = nn.Flatten()(torch.tensor(after)[None]).numpy()
    np.testing.assert_array_equal(flat, onnx_run("Flatten", after[None]))
    assert flat.ravel().tolist() == [1, 1, 0, 4, 2, 1, 0, 2, 1]


def test_the_x_and_the_diagonal_filter() -> None:
    """Where the arms cross, the ends of the other arm are the only two of nine products that are -1: (7 - 2) / 9."""
    mean_of_products = convolve(LETTER_X, array(DIAGONAL) / 9)
    assert mean_of_products.shape == (7, 7)
    np.testing.assert_allclose(np.diag(mean_of_products), [7 / 9, 1, 1, 5 / 9, 1, 1, 7 / 9], atol=1e-6)


@pytest.mark.parametrize(("stride", "padding", "side"), [(1, 0, 7), (2, 0, 4), (3, 0, 3), (1, 1, 9)])
def test_stride_and_padding_decide_the_size(stride: int, padding: int, side: int) -> None:
    assert convolve(LETTER_X, DIAGONAL, stride=stride, padding=padding).shape == (side, side)


def test_same_padding_is_one_pixel_for_a_3x3_filter() -> None:
    picture = torch.tensor(LETTER_X)[None, None]
    same = F.conv2d(picture, torch.tensor(array(DIAGONAL))[None, None], padding="same")
    np.testing.assert_allclose(same[0, 0].numpy(), convolve(LETTER_X, DIAGONAL, padding=1), atol=1e-6)


def test_a_7x7_map_pools_to_4x4() -> None:
    assert pool(convolve(LETTER_X, DIAGONAL)).shape == (4, 4)


@pytest.mark.parametrize(("padding", "side"), [(0, 254), (1, 256)])
def test_64_filters_on_a_colour_image(padding: int, side: int) -> None:
    layer = nn.Conv2d(3, 64, 3, padding=padding)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 3 * 3 * 3 * 64 + 64 == 1792
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = layer(image)
        assert maps.shape == (1, 64, side, side)
        assert nn.MaxPool2d(2)(maps).shape == (1, 64, side // 2, side // 2)
    assert layer.weight is not None and layer.bias is not None
    by_onnx = onnx_run(
        *("Conv", image.numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy()), pads=[padding] * 4
    )
    np.testing.assert_allclose(maps.numpy(), by_onnx, atol=1e-5)
    assert onnx_run("MaxPool", by_onnx, kernel_shape=[2, 2], strides=[2, 2]).shape[2:] == (side // 2, side // 2)


def test_a_padded_map_of_256_pools_to_128() -> None:
    assert nn.MaxPool2d(2)(torch.zeros(1, 64, 256, 256)).shape == (1, 64, 128, 128)


def test_5_maps_of_7x7_flatten_to_245() -> None:
    maps = array(np.arange(245)).reshape(1, 5, 7, 7)
    assert nn.Flatten()(torch.tensor(maps)).shape == onnx_run("Flatten", maps).shape == (1, 245)


@pytest.mark.parametrize(("products", "before", "after"), [(3, 1, 1), (1, -1, 0)])
def test_the_bias_shifts_and_relu_cuts(products: int, before: int, after: int) -> None:
    """As many ones as there are products, under a filter of ones, and a bias of -2."""
    patch = array([1] * products + [0] * (9 - products)).reshape(3, 3)
    shifted = convolve(patch, np.ones((3, 3)), bias=-2)
    assert shifted.item() == before
    assert relu(shifted).item() == after


def test_the_gradient_of_the_input_is_a_full_convolution_with_the_turned_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 6, 6, generator=generator, requires_grad=True)
    kernel = torch.rand(1, 1, 3, 3, generator=generator)
    output = F.conv2d(image, kernel)
    gradient = torch.rand(output.shape, generator=generator)
    output.backward(gradient)  # type: ignore[no-untyped-call]
    turned = kernel.flip(2, 3)  # by 180 degrees
    full = convolve(gradient[0, 0].numpy(), turned[0, 0].numpy(), padding=2)
    assert image.grad is not None
    np.testing.assert_allclose(image.grad[0, 0].numpy(), full, atol=1e-6)


# A step edge: dark on the left, light from the fifth column on.
STEP = np.repeat(array([[0, 0, 0, 0, 1, 1, 1, 1]]), 8, axis=0)


def step_row(kernel: Sequence[Sequence[float]]) -> list[float]:
    """What a kernel makes of a row of the step edge; all rows are alike."""
    answer = convolve(STEP, kernel)
    np.testing.assert_allclose(answer, np.repeat(answer[:1], len(answer), axis=0), atol=1e-6)
    return [round(float(value), 4) for value in answer[0]]


def test_an_edge_kernel_answers_at_the_edge_only() -> None:
    assert step_row([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]) == [0, 0, -3, 3, 0, 0]


def test_a_sharpening_kernel_overshoots_on_both_sides_and_keeps_flat_areas() -> None:
    assert step_row([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]) == [0, 0, -1, 2, 1, 1]


def test_a_blurring_kernel_makes_the_step_a_ramp() -> None:
    ninth = [[1 / 9] * 3] * 3
    assert step_row(ninth) == [0, 0, pytest.approx(1 / 3, abs=1e-3), pytest.approx(2 / 3, abs=1e-3), 1, 1]


def test_an_embossing_kernel_lights_one_flank_and_keeps_flat_areas() -> None:
    kernel = [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]
    assert step_row(kernel) == [0, 0, 3, 4, 1, 1]
    falling = convolve(1 - STEP, kernel)[0]
    assert falling.tolist() == [1, 1, -2, -3, 0, 0]  # the other flank lies in the shade


def test_sobel_kernels_see_the_edge_across_their_direction_only() -> None:
    across = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    down = [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]
    assert step_row(across) == [0, 0, 4, 4, 0, 0]
    assert step_row(down) == [0] * 6
    assert convolve(STEP.T, down)[:, 0].tolist() == [0, 0, 4, 4, 0, 0]
