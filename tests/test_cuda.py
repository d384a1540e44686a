"""What is asked of CUDA itself, of a GPU that is pretended."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.errors import DeviceMissing
from service.model import cuda
from service.model.cuda import pinned_arrays
from tests.pretended_gpu import PretendedGpu

# Of ONNX Runtime, what is asked of it here.
LIBRARIES = SimpleNamespace(preload_dlls=lambda: None, cuda_version="13.0")


class Text:
    """A function of a C library, with the type of what it returns."""

    restype: Any = None

    def __call__(self, status: int) -> bytes:
        return b"CUDA driver version is insufficient for CUDA runtime version"


def test_a_gpu_that_is_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedGpu(monkeypatch)
    for gpu in (0, 1):
        cuda.load(LIBRARIES, gpu)


def test_a_number_without_a_gpu_is_refused_with_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime says of it: Parse Failed."""
    PretendedGpu(monkeypatch)
    with pytest.raises(DeviceMissing, match="there is no GPU 2: CUDA finds 2, counted from 0"):
        cuda.load(LIBRARIES, 2)


def test_a_driver_that_cuda_does_not_work_with_is_refused_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu: Any = PretendedGpu(monkeypatch)
    gpu.cudaGetDeviceCount, gpu.cudaGetErrorString = lambda count: 35, Text()
    with pytest.raises(DeviceMissing, match=r"CUDA finds no GPU: CUDA driver version is insufficient.* \(error 35\)"):
        cuda.load(LIBRARIES, 0)


def test_libraries_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "DRIVER", None)
    with pytest.raises(DeviceMissing, match=r"CUDA's libraries are not here \(libcudart.so.0: cannot open"):
        cuda.load(SimpleNamespace(preload_dlls=lambda: None, cuda_version="0.1"), 0)


def test_page_locked_memory_is_an_array_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = PretendedGpu(monkeypatch)
    array = pinned_arrays(gpu, 0)((3, 5), np.float32)
    array[:] = 7
    assert array.shape == (3, 5) and array.dtype == np.float32 and array.sum() == 105
    assert [len(memory) for memory in gpu.pages.values()] == [60]
    view = array[1:]
    del array
    gc.collect()
    assert gpu.pages and view.sum() == 70
    del view
    gc.collect()
    assert not gpu.pages


def test_no_page_locked_memory_is_an_error_with_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = PretendedGpu(monkeypatch)
    monkeypatch.setattr(gpu, "cudaHostAlloc", lambda *_: 2)
    with pytest.raises(MemoryError, match="no 60 bytes of page-locked memory"):
        pinned_arrays(gpu, 0)((3, 5), np.float32)
