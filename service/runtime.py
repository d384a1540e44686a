"""One ONNX Runtime session: the providers asked for are the providers got.

The only file that knows onnxruntime, which is loaded when a session is made.
It runs whatever number of images it is given; batches are not its business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import DeviceMissing, ModelUnusable, RuntimeMissing

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

Tensor = tuple[str, str, list[int]]
INPUT: Tensor = ("image", "tensor(uint8)", [1, 28, 28])
OUTPUTS: tuple[Tensor, ...] = (("probabilities", "tensor(float)", [10]), ("digit_score", "tensor(float)", []))


class Session:
    """A model ready to run.

    Attributes:
        providers_asked: Execution providers wanted, first choice first.
        providers_got: Execution providers in use, first choice first.
        metadata: The facts written in the model file.
    """

    def __init__(self, model: bytes, *, device: str, threads: int, max_run_images: int):
        """Load a model from memory, check its inputs and outputs, and warm it.

        Args:
            model: The ONNX file. Read from memory, it can refer to no other file.
            device: "cpu", "cuda" or "auto" (cuda where it is offered, else cpu).
            threads: Threads inside one run.
            max_run_images: Size of the largest run to warm up for.

        Raises:
            RuntimeMissing: onnxruntime is not installed.
            DeviceMissing: The device is not offered, or not taken, by onnxruntime.
            ModelUnusable: The bytes are no ONNX model, or one of another shape.
        """
        self._session, self.providers_asked = _load(model, device, threads)
        self.providers_got: list[str] = self._session.get_providers()
        if self.providers_got[0] != self.providers_asked[0]:
            raise DeviceMissing(
                f"--device {device} asks for {self.providers_asked[0]}, ONNX Runtime took {self.providers_got[0]}; "
                "check the GPU's driver, or use --device cpu"
            )
        _check_signature(self._session.get_inputs(), (INPUT,), "input")
        _check_signature(self._session.get_outputs(), OUTPUTS, "output")
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._warm_up(max_run_images)

    def _warm_up(self, max_run_images: int) -> None:
        """Run the smallest and the largest batch, so that no caller waits for what is done once; check the answers."""
        for images in (1, max_run_images):
            try:
                probabilities, scores = self.run(np.zeros((images, 1, 28, 28), np.uint8))
            # Of the same many types as a failed load.
            except Exception as error:
                raise ModelUnusable(f"the model fails on {images} blank images: {_first_line(error)}") from error
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
        probabilities, scores = self._session.run(("probabilities", "digit_score"), {"image": images})
        return probabilities, scores


class LayerSession:
    """A model with more outputs than the usual, run now and then, in the thread of the caller."""

    def __init__(self, model: bytes, *, device: str):
        """Load a model from memory.

        Args:
            model: The ONNX file.
            device: As for `Session`.

        Raises:
            StartError: As for `Session`.
        """
        self._session, _ = _load(model, device, threads=1)

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


def _load(model: bytes, device: str, threads: int) -> tuple[Any, list[str]]:
    """A session, and the execution providers that were asked for."""
    onnxruntime = _import_onnxruntime()
    providers = _providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the core the server needs; the arena never shrinks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        # Without enable_fallback=0 a failing provider is silently replaced by the CPU.
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0), providers
    # onnxruntime raises a type of its own for each kind of damage, and others besides.
    except Exception as error:
        raise ModelUnusable(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


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


def _providers(device: str, offered: Sequence[str]) -> list[str]:
    """Execution providers for a device, first choice first."""
    if device == "cpu" or (device == "auto" and CUDA not in offered):
        return [CPU]
    if CUDA not in offered:
        raise DeviceMissing(
            f"--device cuda needs {CUDA}, ONNX Runtime offers only {', '.join(offered)}; "
            "install 'digitserve[gpu]' instead of 'digitserve[cpu]', or use --device cpu"
        )
    return [CUDA, CPU]


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
