"""The ONNX file: its contract, its facts, its bytes; and each layer's node against PyTorch's layer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from model_export.checkpoint import load_checkpoint, save_checkpoint
from model_export.export import Graph, add_layer, export
from tests.conftest import REPOSITORY
from tests.training import small_set, tiny_checkpoint

RELEASED = REPOSITORY / "models" / "digits" / "1"


def props(model: bytes) -> dict[str, str]:
    return {prop.key: prop.value for prop in onnx.load_from_string(model).metadata_props}


def test_the_contract_of_inputs_and_outputs() -> None:
    session = onnxruntime.InferenceSession(export(tiny_checkpoint()), providers=["CPUExecutionProvider"])
    values = [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    assert values == [
        ("image", "tensor(uint8)", ["N", 1, 28, 28]),
        ("probabilities", "tensor(float)", ["N", 10]),
        ("digit_score", "tensor(float)", ["N"]),
    ]


def test_it_computes_what_pytorch_computes() -> None:
    checkpoint, images = tiny_checkpoint(), small_set("t10k", 50).images
    session = onnxruntime.InferenceSession(export(checkpoint), providers=["CPUExecutionProvider"])
    probabilities, score = session.run(None, {"image": images[:, None]})
    with torch.no_grad():
        logits = checkpoint.network()(torch.tensor(images)[:, None].float() / 255)
    expected = torch.softmax(logits[:, :10] / checkpoint.facts.temperature, dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    exact = logits.numpy().astype(np.float64)
    np.testing.assert_allclose(score, np.log(np.exp(exact[:, :10]).sum(axis=1)) - exact[:, 10], rtol=1e-4, atol=1e-4)


def test_the_metadata_says_what_the_checkpoint_knows() -> None:
    facts, found = tiny_checkpoint().facts, props(export(tiny_checkpoint()))
    assert found["name"] == "digits" and found["version"] == "1"
    assert json.loads(found["labels"]) == list("0123456789")
    assert found["network"].startswith("conv5x5(16)-pool-conv3x3(64)-conv3x3(64)-pool-fc128-fc11, ")
    assert float(found["reject_threshold"]) == facts.reject_threshold
    assert float(found["temperature"]) == facts.temperature
    assert float(found["validation_accuracy"]) == facts.validation_accuracy
    assert (found["trained_on"], found["training_data_sha256"]) == (facts.trained_on, facts.training_data_sha256)
    assert (found["seed"], found["commit"], found["torch"]) == ("3", facts.commit, facts.torch)


def test_the_accuracy_is_there_once_it_was_measured() -> None:
    assert "accuracy" not in props(export(tiny_checkpoint()))
    found = props(export(tiny_checkpoint().tested(0.9962, 0.003, "a few images")))
    assert (found["accuracy"], found["calibration_error"], found["tested_on"]) == ("0.9962", "0.003", "a few images")


def test_the_shapes_between_the_layers_are_those_of_the_network() -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(export(tiny_checkpoint())), strict_mode=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in model.graph.value_info}
    assert [shapes[name] for name in ("conv1", "pool1", "conv2", "conv3", "pool2", "flatten1", "fc1", "fc2")] == [
        *([16, 24, 24], [16, 12, 12], [64, 10, 10], [64, 8, 8], [64, 4, 4]),
        *([1024], [128], [11]),
    ]
    assert sum(
        onnx.numpy_helper.to_array(t).size for t in model.graph.initializer if t.name[-4:] in ("ight", "bias")
    ) == (179_243)


def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "checkpoint.pt")
    paths = ("--checkpoint", tmp_path / "checkpoint.pt", "--out", tmp_path / "model.onnx")
    subprocess.run([sys.executable, "-m", "model_export", "export", *paths], cwd=REPOSITORY, check=True, timeout=60)
    assert (tmp_path / "model.onnx").read_bytes() == export(tiny_checkpoint())


def test_the_file_is_self_contained_and_tells_nothing_of_this_machine() -> None:
    content = export(tiny_checkpoint())
    model = onnx.load_from_string(content)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not model.doc_string and not model.graph.doc_string
    assert str(REPOSITORY).encode() not in content and str(Path.home()).encode() + b"/" not in content
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds and "Dropout" not in kinds
    assert len(content) < 1_500_000


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, (3, 5), stride=2, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(9, 4),
        nn.Linear(9, 4, bias=False),
    ],
    ids=str,
)
def test_a_layer_of_each_kind(layer: nn.Module) -> None:
    shape = (2, 9) if isinstance(layer, nn.Linear) else (2, 2, 9, 9)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    graph = Graph()
    output = add_layer(graph, layer, "image")
    parts = graph.proto()
    parts.ClearField("input")
    parts.ClearField("output")
    parts.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    parts.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    model = helper.make_model(parts, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"image": values.numpy()})[0], layer(values).numpy(), atol=1e-5)


def test_layers_that_have_no_node_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot export a layer of kind Sigmoid"):
        add_layer(Graph(), nn.Sigmoid(), "image")
    with pytest.raises(TypeError, match="cannot export the size 'same'"):
        add_layer(Graph(), nn.Conv2d(1, 1, 3, padding="same"), "image")


def test_exporting_the_released_checkpoint_gives_the_released_model() -> None:
    checkpoint = load_checkpoint(RELEASED / "checkpoint.pt")
    if checkpoint.facts.torch.split("+")[0] != torch.__version__.split("+")[0]:
        pytest.skip(f"the model was made with torch {checkpoint.facts.torch}, here is {torch.__version__}")
    assert export(checkpoint) == (RELEASED / "model.onnx").read_bytes()


def test_the_released_files_are_small() -> None:
    assert all((RELEASED / name).stat().st_size < 1_500_000 for name in ("model.onnx", "checkpoint.pt"))
