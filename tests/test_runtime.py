"""The ONNX Runtime session: what it accepts, and that providers are as asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from service.errors import DeviceMissing, ModelUnusable, NotReady, RuntimeMissing
from service.model import cuda, runtime
from service.model.devices import CPU, CUDA, TENSORRT, GpuOptions
from service.model.runtime import Session
from service.settings import bundled_models
from tests.answering import not_text
from tests.pretended_gpu import PretendedGpu

RELEASED = (bundled_models() / "digits/1/model.onnx").read_bytes()


def session(model: bytes = RELEASED, device: str = "cpu", **others: Any) -> Session:
    return Session(model, device=device, threads=1, max_run_images=8, **others)


def model_of(
    input_type: int = TensorProto.UINT8, input_shape: Sequence[str | int] = ("N", 1, 28, 28), score: str = "digit_score"
) -> bytes:
    """A model that answers 0.1 for everything, with a signature to be varied."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [784, 10], [0.0] * 7840)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["pixels", "one"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
            helper.make_node("ReduceMax", ["logits"], [score], axes=[1], keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("image", input_type, input_shape)],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10]),
            helper.make_tensor_value_info(score, TensorProto.FLOAT, ["N"]),
        ],
        [one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("images", [1, 7, 32])
def test_the_released_model_answers_any_number_of_images(images: int) -> None:
    probabilities, scores = session().run(np.zeros((images, 1, 28, 28), np.uint8))
    assert probabilities.shape == (images, 10) and probabilities.dtype == np.float32
    assert scores.shape == (images,) and scores.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_a_gpu_the_cpu_is_asked_for_and_got(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    made = session(device=device)
    assert made.providers_asked == made.providers_got == [CPU]
    assert made.runs_at_once == 1


@pytest.mark.parametrize(("device", "first"), [("cuda", CUDA), ("cuda:1", CUDA), ("tensorrt", TENSORRT)])
def test_asking_for_a_gpu_that_is_not_offered_is_refused_or_falls_back_visibly(
    device: str, first: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    text = f"--device {device} does not work: it needs {first}, ONNX Runtime offers only {CPU}"
    with pytest.raises(DeviceMissing, match=text):
        session(device=device)
    made = session(device=device, on_missing="fallback")
    assert (made.providers_asked[0], made.providers_got) == (first, [CPU])
    assert [(record.levelname, text in record.message) for record in caplog.records] == [("WARNING", True)]


def test_without_a_driver_no_provider_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an image for GPUs runs on a machine without one."""
    gpu = PretendedGpu(monkeypatch)
    monkeypatch.setattr(cuda, "DRIVER", "libno_such_driver.so.1")
    with pytest.raises(DeviceMissing, match=r"no driver of NVIDIA's here \(libno_such_driver.so.1: cannot open"):
        session(device="cuda")
    assert not gpu.sessions
    assert session(device="auto").providers_got == [CPU]


def test_a_gpu_that_is_offered_but_not_taken_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the driver is missing or broken: ONNX Runtime quietly takes the CPU, we do not."""
    PretendedGpu(monkeypatch).works = False
    with pytest.raises(DeviceMissing, match=r"--device cuda does not work: it asks for CUDA.*took CPUExec"):
        session(device="cuda")
    for device, on_missing in (("cuda", "fallback"), ("auto", "fail")):
        caplog.clear()
        made = session(device=device, on_missing=on_missing)
        assert (made.providers_asked, made.providers_got, made.runs_at_once) == ([CUDA], [CPU], 1)
        assert "the model runs on the CPU instead" in caplog.text
        assert made.run(np.zeros((3, 1, 28, 28), np.uint8))[0].shape == (3, 10)


def test_what_cuda_says_is_told_without_what_onnx_runtime_puts_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime 1.31 says it where the driver is too old."""
    PretendedGpu(monkeypatch)
    cause = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
    around = (
        "Exception during initialization: /onnxruntime_src/cuda_call.cc:154 std::conditional_t<THRW, void, Status> "
    )
    on_cpu = onnxruntime.InferenceSession

    def too_old(model: bytes, options: Any, providers: Any, **others: Any) -> Any:
        if providers[0][0] == CUDA:
            raise RuntimeError(
                f"{around * 4}{cause} ; GPU=-1 ; hostname=vm ; file=x.cc ; line=355 ; expr=cudaSetDevice();"
            )
        return on_cpu(model, options, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", too_old)
    with pytest.raises(DeviceMissing) as error:
        session(device="cuda")
    assert f"ONNX Runtime cannot load the model: {cause}; --device cpu" in str(error.value)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_on_a_gpu_two_sessions_take_no_cpu_and_answer_alike(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = session()
    gpu = PretendedGpu(monkeypatch)
    made = session(device=device)
    assert (made.providers_asked, made.providers_got, made.runs_at_once) == ([CUDA], [CUDA, CPU], 2)
    assert len(gpu.sessions) == 2
    for providers, options in gpu.sessions:
        assert [name for name, _ in providers] == [CUDA]
        assert providers[0][1]["use_tf32"] == "0"
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert gpu.pages  # its buffers are page-locked
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), np.uint8)  # more than one run holds
    for got, expected in zip(made.run(images), on_cpu.run(images), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(("precision", "override"), [("fp32", "0"), ("tf32", "")])
def test_tensorrt_is_told_of_tf32_by_the_environment(
    precision: str, override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = PretendedGpu(monkeypatch)
    made = session(device="tensorrt", gpu=GpuOptions(precision=precision))
    assert made.providers_got == [*made.providers_asked, CPU] == [TENSORRT, CUDA, CPU]
    assert gpu.sessions[0][0][1][1]["use_tf32"] == str(int(precision == "tf32"))
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == override


def test_a_gpu_that_fails_when_it_is_warmed_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its memory is too small for the largest run."""
    PretendedGpu(monkeypatch).fails = True
    with pytest.raises(DeviceMissing, match="the GPU fails on runs of up to 8 images: CUDA failure 999"):
        session(device="cuda")
    assert session(device="cuda", on_missing="fallback").providers_got == [CPU]


def test_a_bad_model_is_the_models_fault_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedGpu(monkeypatch)
    with pytest.raises(ModelUnusable, match="ONNX Runtime cannot load the model"):
        session(b"not a model", device="cuda", on_missing="fallback")


def test_a_gpu_that_fails_later_is_told_once_and_callers_may_try_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = PretendedGpu(monkeypatch)
    told: list[str] = []
    made = session(device="cuda", on_lost=lambda: told.append("lost"))
    gpu.fails = True
    for _ in range(2):
        with pytest.raises(NotReady) as error:
            made.run(np.zeros((1, 1, 28, 28), np.uint8))
        assert str(error.value) == "the server has lost its GPU; it or another one may answer in a moment"
    assert told == ["lost"]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (b"", "ONNX Runtime cannot load the model"),
        (b"not a model", "ONNX Runtime cannot load the model"),
        (RELEASED[:1000], "ONNX Runtime cannot load the model"),
        (model_of(input_type=TensorProto.FLOAT), "tensor(float)"),
        (model_of(input_shape=("N", 28, 28)), "['N', 28, 28]"),
        (model_of(input_shape=(4, 1, 28, 28)), "[4, 1, 28, 28]"),
        (model_of(score="certainty"), "certainty"),
        (not_text(), "the model's names or metadata are no text in UTF-8"),
    ],
)
def test_another_file_or_another_signature_is_refused(model: bytes, text: str) -> None:
    with pytest.raises(ModelUnusable) as error:
        session(model)
    assert text in str(error.value)


@pytest.mark.parametrize("location", ["weights", "./weights", "../weights", "hard link", "symbolic link", "absolute"])
def test_e4_weights_in_another_file_are_refused(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it lies: ONNX Runtime would take it from the working directory."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for weights in (here / "weights", tmp_path / "weights"):
        weights.write_bytes(bytes(4 * 7840))
    (here / "hard link").hardlink_to("weights")
    (here / "symbolic link").symlink_to("weights")
    model = onnx.ModelProto.FromString(model_of())
    (one,) = model.graph.initializer
    one.ClearField("float_data")
    one.data_location = TensorProto.EXTERNAL
    one.external_data.add(key="location", value=str(here / "weights") if location == "absolute" else location)
    with pytest.raises(ModelUnusable, match=r"ONNX Runtime cannot load the model: .*[Ee]xternal data"):
        session(model.SerializeToString())


def test_e7_the_memory_of_a_large_run_is_given_back() -> None:
    """In a process of its own: what it holds after small runs is less than what it held at most. An arena keeps it."""
    code = """if True:
        import os
        import numpy as np
        from tests.robustness.processes import peak_bytes, resident_bytes
        from tests.test_runtime import RELEASED, Session
        session = Session(RELEASED, device="cpu", threads=1, max_run_images=1024)
        for images in (1024, 1, 1, 1):
            session.run(np.zeros((images, 1, 28, 28), np.uint8))
        print(resident_bytes(os.getpid()) / peak_bytes(os.getpid()))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert float(ran.stdout) < 0.85


def test_a_model_that_fails_or_answers_nonsense_is_found_when_it_is_warmed() -> None:
    model = onnx.load_model_from_string(model_of())
    model.graph.initializer[0].CopyFrom(helper.make_tensor("one", TensorProto.FLOAT, [900, 10], [0.0] * 9000))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 900]))
    model.graph.node.insert(1, helper.make_node("Reshape", ["flat", "shape"], ["reshaped"]))
    model.graph.node[2].input[0] = "reshaped"
    with pytest.raises(ModelUnusable, match="the model fails on 1 blank images"):
        session(model.SerializeToString())
    model = onnx.load_model_from_string(model_of())
    model.graph.node[1].attribute[0].i = TensorProto.FLOAT
    model.graph.node.insert(1, helper.make_node("Concat", ["flat", "flat"], ["twice"], axis=0))
    model.graph.node[2].input[0] = "twice"
    with pytest.raises(ModelUnusable, match=r"answers 1 images with shapes \(2, 10\) and \(2,\); expected \(1, 10\)"):
        session(model.SerializeToString())
    model = onnx.load_model_from_string(model_of())
    model.graph.initializer[0].CopyFrom(helper.make_tensor("one", TensorProto.FLOAT, [784, 10], [float("nan")] * 7840))
    with pytest.raises(ModelUnusable, match="not finite"):
        session(model.SerializeToString())


def test_a_model_with_the_right_signature_is_accepted() -> None:
    probabilities, _ = session(model_of()).run(np.zeros((2, 1, 28, 28), np.uint8))
    np.testing.assert_allclose(probabilities, 0.1)


def test_the_metadata_are_read() -> None:
    model = onnx.load_model_from_string(model_of())
    helper.set_model_props(model, {"network": "none"})
    assert session(model.SerializeToString()).metadata == {"network": "none"}


def test_a_missing_onnxruntime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissing, match=r"pip install 'digitserve\[cpu\]'"):
        runtime._import_onnxruntime()
