"""CUDA beneath ONNX Runtime: NVIDIA's driver, the libraries that pip has installed, GPUs and page-locked memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import DeviceMissing

DRIVER = "libcuda.so.1"


def load(onnxruntime: Any, gpu: int) -> None:
    """Load CUDA and cuDNN, before a provider looks for them elsewhere, and make sure that there is a GPU.

    Args:
        onnxruntime: The module.
        gpu: The number of the GPU.

    Raises:
        DeviceMissing: The driver, the libraries or the GPU are not there. ONNX Runtime would say a great deal, and
            last of all that.
    """
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        raise DeviceMissing(f"there is no driver of NVIDIA's here ({error})") from None
    # What it has to say goes to standard output, which is for the welcome.
    with contextlib.redirect_stdout(sys.stderr):
        onnxruntime.preload_dlls()
    try:
        cudart = library(onnxruntime)
    except OSError as error:
        raise DeviceMissing(f"CUDA's libraries are not here ({error})") from None
    count = ctypes.c_int()
    if status := cudart.cudaGetDeviceCount(ctypes.byref(count)):
        cudart.cudaGetErrorString.restype = ctypes.c_char_p
        raise DeviceMissing(f"CUDA finds no GPU: {cudart.cudaGetErrorString(status).decode()} (error {status})")
    if gpu >= count.value:
        raise DeviceMissing(f"there is no GPU {gpu}: CUDA finds {count.value}, counted from 0")


def library(onnxruntime: Any) -> Any:
    """CUDA's runtime library, of the version that ONNX Runtime was built for and has loaded."""
    return ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}")


def pinned_arrays(cudart: Any, gpu: int) -> Callable[[tuple[int, ...], Any], npt.NDArray[Any]]:
    """A maker of arrays, of a shape and dtype, in page-locked memory, which a GPU reads and writes by itself.

    Args:
        cudart: As from `library`.
        gpu: The number of the GPU.
    """

    def allocate(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = ctypes.c_void_p()
        status = cudart.cudaSetDevice(gpu) or cudart.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), 0)
        if status:
            raise MemoryError(f"CUDA has no {size} bytes of page-locked memory (error {status})")
        memory = (ctypes.c_char * size).from_address(address.value or 0)
        # At the end of the process CUDA may be gone before it.
        weakref.finalize(memory, cudart.cudaFreeHost, address).atexit = False
        return np.frombuffer(memory, dtype).reshape(shape)

    return allocate
