"""Runs on a GPU: of a few fixed sizes, on buffers that are bound once, several at a time.

A run of N images is done in the next larger size; what lies behind them in
the buffer is computed and thrown away. So every shape is known and warm before
the first caller comes, memory does not grow, and a run can be recorded as a
CUDA graph. Works on any device that ONNX Runtime has, which is handed in.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# A new array of a shape and dtype, in memory that the device copies from and to well.
Allocate = Callable[[tuple[int, ...], Any], npt.NDArray[Any]]

# ONNX Runtime runs a size once before it records it, and the first run of all sets up the libraries.
RUNS_TO_WARM = 3


def sizes(max_run_images: int) -> list[int]:
    """The powers of two below the size of the largest run, and that size."""
    return [*(1 << power for power in range((max_run_images - 1).bit_length())), max_run_images]


class BoundRuns:
    """Runs images on whichever of its lanes is free."""

    def __init__(
        self,
        onnxruntime: Any,
        sessions: Sequence[Any],
        *,
        max_run_images: int,
        device: tuple[str, int],
        records: bool = False,
        allocate: Allocate = np.zeros,
    ):
        """Bind and warm every size in every session.

        Args:
            onnxruntime: The module.
            sessions: One for each run at a time; each is used by one thread only, as CUDA graphs demand.
            max_run_images: Size of the largest run.
            device: Its type, as ONNX Runtime calls it, and its number.
            records: Whether the runs are recorded once as a CUDA graph, and replayed.
            allocate: Makes the arrays in the host's memory from which images are copied to the device.
        """
        self._largest = max_run_images
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        # One after the other: nothing else may happen on the device while a run is recorded.
        for session in sessions:
            make = partial(_Buffers, onnxruntime, session, allocate=allocate, device=device, records=records)
            self._free.put(_Lane(make, sizes(max_run_images)))

    def run(self, images: Images) -> tuple[Floats, Floats]:
        """Run the model on any number of images; in parts, if it is more than the largest run.

        Args:
            images: uint8 of shape (N, 1, 28, 28).

        Returns:
            float32 of shape (N, 10), and float32 of shape (N,).
        """
        lane = self._free.get()
        try:
            parts = [lane.run(images[start : start + self._largest]) for start in range(0, len(images), self._largest)]
        finally:
            self._free.put(lane)
        if len(parts) == 1:
            return parts[0]
        probabilities, scores = zip(*parts, strict=True)
        return np.concatenate(probabilities), np.concatenate(scores)


class _Lane:
    """One session's buffers, and the thread that uses them."""

    def __init__(self, make: Callable[[int], _Buffers], sizes: Sequence[int]):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._buffers = [self._thread.submit(make, size).result() for size in sizes]

    def run(self, images: Images) -> tuple[Floats, Floats]:
        buffers = next(each for each in self._buffers if each.size >= len(images))
        return self._thread.submit(buffers.run, images).result()


class _Buffers:
    """Input and outputs of one size, on the device and bound to one session; warm."""

    def __init__(
        self,
        onnxruntime: Any,
        session: Any,
        size: int,
        *,
        allocate: Allocate,
        device: tuple[str, int],
        records: bool,
    ):
        self.size = size
        self._session = session
        self._images: Images = allocate((size, 1, 28, 28), np.uint8)
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        # An input that is bound in the host's memory would be copied to the device now, and never again.
        self._input = make([size, 1, 28, 28], np.uint8, *device)
        self._outputs = [make([size, 10], np.float32, *device), make([size], np.float32, *device)]
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("image", self._input)
        for name, output in zip(("probabilities", "digit_score"), self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, output)
        self._options = onnxruntime.RunOptions()
        if records:
            # What is recorded are addresses: each size is a graph of its own.
            self._options.add_run_config_entry("gpu_graph_id", str(size))
        for _ in range(RUNS_TO_WARM):
            self.run(np.zeros((size, 1, 28, 28), np.uint8))

    def run(self, images: Images) -> tuple[Floats, Floats]:
        self._images[: len(images)] = images
        self._input.update_inplace(self._images)
        self._session.run_with_iobinding(self._binding, self._options)
        probabilities, scores = (output.numpy() for output in self._outputs)
        # On the CPU these are the buffers, which are written again by the next run.
        return probabilities[: len(images)].copy(), scores[: len(images)].copy()
