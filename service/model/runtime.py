"""A model in ONNX Runtime: the providers asked for are the providers got.

The only file that knows onnxruntime, which is loaded when a session is made.
It runs whatever number of images it is given; batches are not its business.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import DeviceMissing, ModelUnusable, NotReady, RuntimeMissing
from service.model import cuda
from service.model.bound_runs import BoundRuns
from service.model.devices import CUDA, ON_CPU, TENSORRT, GpuOptions, Plan, plan

log = logging.getLogger(__name__)

Tensor = tuple[str, str, list[int]]
INPUT: Tensor = ("image", "tensor(uint8)", [1, 28, 28])
OUTPUTS: tuple[Tensor, ...] = (("probabilities", "tensor(float)", [10]), ("digit_score", "tensor(float)", []))
OUTPUT_NAMES = tuple(name for name, _, _ in OUTPUTS)
# What CUDA, cuDNN and cuBLAS say, in the midst of ONNX Runtime's own names and paths.
FAILURE = re.compile(r"\w+ failure -?\d+: [^;\n]*")
# What runs of so many take, 7 MB, is kept: to give it back costs page faults.
MOST_KEPT_IMAGES = 128
# On a GPU the next images are copied while the last ones are computed.
GPU_RUNS_AT_ONCE = 2

Run = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


def is_offered(provider: str) -> bool:
    """Whether the ONNX Runtime that is installed was built with an execution provider."""
    return provider in _import_onnxruntime().get_available_providers()


class Session:
    """A model ready to run.

    Attributes:
        providers_asked: Execution providers wanted, first choice first.
        providers_got: Execution providers in use, first choice first.
        gpu: The number of the GPU in use, if one is.
        runs_at_once: How many threads may call `run` with profit.
        metadata: The facts written in the model file.
    """

    def __init__(
        self,
        model: bytes,
        *,
        device: str,
        threads: int,
        max_run_images: int,
        on_missing: str = "fail",
        gpu: GpuOptions | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ):
        """Load a model from memory, check its inputs and outputs, and warm it.

        Args:
            model: The ONNX file. Read from memory, it can refer to no other file.
            device: As for `devices.plan`.
            threads: Threads inside one run on the CPU.
            max_run_images: Size of the largest run to warm up for.
            on_missing: What to do where the device does not work: "fail", or "fallback" to the CPU, as "auto" does.
            gpu: How to use one.
            on_lost: Called once, in the thread of a run, when a GPU fails after it has worked.

        Raises:
            RuntimeMissing: onnxruntime is not installed.
            DeviceMissing: The device is not offered, or not taken, by onnxruntime, or fails; the CPU does not.
            ModelUnusable: The bytes are no ONNX model, or one of another shape.
        """
        onnxruntime = _import_onnxruntime()
        offered = onnxruntime.get_available_providers()
        wanted = plan(device, offered, gpu or GpuOptions(), max_run_images=max_run_images)
        self.providers_asked = wanted.names
        self._on_lost, self._is_lost, self._losing = on_lost, False, threading.Lock()
        try:
            self._open(onnxruntime, model, wanted, threads, max_run_images)
        except (DeviceMissing, ModelUnusable) as error:
            if wanted is ON_CPU:
                raise
            # Is it the device, or the model? The CPU tells, and raises in the second case.
            self._open(onnxruntime, model, ON_CPU, threads, max_run_images)
            text = f"--device {device} does not work"
            if device != "auto" and on_missing != "fallback":
                raise DeviceMissing(
                    text, f"{error}; --device cpu, or --on-device-missing fallback, runs the model on the CPU"
                ) from error
            log.warning("%s: %s; the model runs on the CPU instead", text, error)

    def _open(self, onnxruntime: Any, model: bytes, wanted: Plan, threads: int, max_run_images: int) -> None:
        """Make what runs the model as it is wanted, and check it."""
        self._options = onnxruntime.RunOptions()
        keeps = wanted.gpu is None and max_run_images <= MOST_KEPT_IMAGES
        sessions = [_open_session(onnxruntime, model, wanted, threads, keeps_memory=keeps)]
        try:
            _check_signature(sessions[0].get_inputs(), (INPUT,), "input")
            _check_signature(sessions[0].get_outputs(), OUTPUTS, "output")
            self.metadata: Mapping[str, str] = sessions[0].get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise ModelUnusable("the model's names or metadata are no text in UTF-8") from None
        if wanted.gpu is None:
            self._run: Run = lambda images: sessions[0].run(OUTPUT_NAMES, {"image": images}, self._options)
        else:
            sessions += [_open_session(onnxruntime, model, wanted, threads) for _ in range(GPU_RUNS_AT_ONCE - 1)]
            self._run = _bind(onnxruntime, sessions, wanted, max_run_images).run
        self.gpu, self.runs_at_once = wanted.gpu, len(sessions)
        self.providers_got: list[str] = sessions[0].get_providers()
        self._warm_up(max_run_images)
        if wanted.gpu is not None:
            self._run = self._watched(self._run)

    def _warm_up(self, max_run_images: int) -> None:
        """Run the smallest and the largest batch, so that no caller waits for what is done once; check the answers."""
        for images in (1, max_run_images):
            try:
                probabilities, scores = self.run(np.zeros((images, 1, 28, 28), np.uint8))
            # Of the same many types as a failed load.
            except Exception as error:
                raise ModelUnusable(f"the model fails on {images} blank images", _reason(error)) from error
            if probabilities.shape != (images, 10) or scores.shape != (images,):
                raise ModelUnusable(
                    f"the model answers {images} images with shapes {probabilities.shape} and {scores.shape}; "
                    f"expected {(images, 10)} and {(images,)}"
                )
            if not (np.isfinite(probabilities).all() and np.isfinite(scores).all()):
                raise ModelUnusable(f"the model answers {images} blank images with numbers that are not finite")

    def run(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Run the model.

        Args:
            images: uint8 of shape (N, 1, 28, 28), 0 paper to 255 ink.

        Returns:
            Probabilities, float32 of shape (N, 10), and digit scores, float32 of shape (N,).
        """
        probabilities, scores = self._run(images)
        return probabilities, scores

    def stop_runs(self) -> None:
        """Have the runs in progress end with an error, between two nodes of the model; on a GPU they do not."""
        ending, self._options = self._options, type(self._options)()
        ending.terminate = True

    def _watched(self, run: Run) -> Run:
        """A run whose failure means that the device has failed: nothing else about it changes from run to run."""

        def watched(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            try:
                return run(images)
            except Exception as error:
                with self._losing:
                    first, self._is_lost = not self._is_lost, True
                if first:
                    log.error("the GPU fails: %s", _reason(error))
                    self._on_lost()
                raise NotReady("the server has lost its GPU; it or another one may answer in a moment") from error

        return watched


class LayerSession:
    """A model with more outputs than the usual, run now and then, on the CPU, in the thread of the caller."""

    def __init__(self, model: bytes):
        """Load a model from memory.

        Args:
            model: The ONNX file.

        Raises:
            StartError: As for `Session`.
        """
        self._session = _open_session(_import_onnxruntime(), model, ON_CPU, threads=1)

    def run(self, outputs: Sequence[str], images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Run the model.

        Args:
            outputs: Names of the outputs that are wanted.
            images: uint8 of shape (N, 1, 28, 28), 0 paper to 255 ink.

        Returns:
            Each of them, float32 of shape (N, ...).
        """
        values: list[npt.NDArray[np.float32]] = self._session.run(outputs, {"image": images})
        return values


def _reason(error: Exception) -> str:
    """What CUDA, cuDNN or cuBLAS say, out of what ONNX Runtime puts around it; else the first line."""
    failure = FAILURE.search(str(error))
    return failure[0].strip() if failure else str(error).partition("\n")[0][:300] or type(error).__name__


def _import_onnxruntime() -> Any:
    # From 1.29 on, official builds report models and machine to their maker unless this is set before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeMissing(
            "ONNX Runtime is not installed; run: pip install 'digitserve[cpu]' (or 'digitserve[gpu]', never both)"
        ) from None
    return onnxruntime


def _open_session(onnxruntime: Any, model: bytes, wanted: Plan, threads: int, *, keeps_memory: bool = False) -> Any:
    """An InferenceSession on the providers that are wanted, and on no others."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the core the server needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = keeps_memory
    # Weights in other files are looked for here and not, as of a model read from bytes, in the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
    options.log_severity_level = 3
    if wanted.gpu is not None:
        offered = onnxruntime.get_available_providers()
        if missing := [name for name in wanted.names if name not in offered]:
            raise DeviceMissing(
                f"it needs {missing[0]}, ONNX Runtime offers only {', '.join(offered)} (install 'digitserve[gpu]' "
                "instead of 'digitserve[cpu]')"
            )
        # A node that the GPU does not take would run on the CPU without a word.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if wanted.names[0] == TENSORRT and dict(wanted.providers)[CUDA]["use_tf32"] == "0":
            # TensorRT has no option for it; NVIDIA's libraries read this when they begin.
            os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
        cuda.load(onnxruntime, wanted.gpu)
    try:
        # Without enable_fallback=0 a failing provider is silently replaced by the CPU.
        session = onnxruntime.InferenceSession(model, options, providers=[*wanted.providers], enable_fallback=0)
    # onnxruntime raises a type of its own for each kind of damage, and others besides.
    except Exception as error:
        raise ModelUnusable("ONNX Runtime cannot load the model", _reason(error)) from error
    if session.get_providers()[: len(wanted.names)] != wanted.names:
        got = ", ".join(session.get_providers())
        raise DeviceMissing(f"it asks for {', '.join(wanted.names)}, ONNX Runtime took {got}; check the GPU's driver")
    return session


def _bind(onnxruntime: Any, sessions: Sequence[Any], wanted: Plan, max_run_images: int) -> BoundRuns:
    gpu = wanted.gpu or 0
    try:
        return BoundRuns(
            onnxruntime,
            sessions,
            max_run_images=max_run_images,
            device=("cuda", gpu),
            records=dict(wanted.providers)[CUDA]["enable_cuda_graph"] == "1",
            allocate=cuda.pinned_arrays(cuda.library(onnxruntime), gpu),
        )
    # Out of memory, a kernel that is missing, a device that is gone: of many types again.
    except Exception as error:
        raise DeviceMissing(f"the GPU fails on runs of up to {max_run_images} images", _reason(error)) from error


def _check_signature(found: Sequence[Any], wanted: Sequence[Tensor], kind: str) -> None:
    """Compare names, types and shapes, whose first dimension must be free."""
    seen = [(tensor.name, tensor.type, list(tensor.shape)) for tensor in found]
    fits = len(seen) == len(wanted) and all(
        (name, type_, shape[1:]) == want and not isinstance(shape[0], int)
        for (name, type_, shape), want in zip(seen, wanted, strict=True)
    )
    if not fits:
        expected = [(name, type_, ["N", *shape]) for name, type_, shape in wanted]
        raise ModelUnusable(f"the model has the {kind}s {seen}; expected {expected}")
