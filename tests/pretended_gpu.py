"""A GPU that is the CPU under another name, for machines that have none.

ONNX Runtime is made to offer CUDA; a session on it computes on the CPU and says
otherwise. What is tested with it is what we do around a provider, not the provider.
"""

from __future__ import annotations

import ctypes
from typing import Any

import onnxruntime
import pytest
from onnxruntime import OrtValue

from service.model import cuda
from service.model.devices import CPU, CUDA, TENSORRT


class PretendedGpu:
    """What was asked of it, and what goes wrong with it.

    Attributes:
        works: Whether ONNX Runtime can use it; if not, it takes the CPU instead, without a word.
        fails: Whether its runs fail.
        sessions: Providers and session options of each session made on it.
        pages: Page-locked memory in use, by address.
        values: What lies in its own memory.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        """Let there be one, until the test is over."""
        self.works, self.fails = True, False
        self.sessions: list[tuple[list[tuple[str, dict[str, str]]], Any]] = []
        self.pages: dict[int, Any] = {}
        self.values: list[Any] = []
        real = onnxruntime.InferenceSession
        gpu = self

        class Session(real):  # type: ignore[misc, valid-type]
            def __init__(self, model: bytes, options: Any, providers: Any, **others: Any):
                assert others == {"enable_fallback": 0}
                self._asked, self._pretends = providers, providers[0][0] != CPU and gpu.works
                if providers[0][0] != CPU:
                    gpu.sessions.append((providers, options))
                plain = onnxruntime.SessionOptions()
                plain.log_severity_level = 3
                super().__init__(model, plain, providers=[CPU], **others)

            def get_providers(self) -> list[str]:
                return [*(name for name, _ in self._asked), CPU] if self._pretends else [CPU]

            def io_binding(self) -> Any:
                binding = super().io_binding()
                bind = binding.bind_ortvalue_input

                def copying(name: str, value: Any) -> None:
                    # As on CUDA, what lies in the host's memory is copied when it is bound, and never again.
                    bind(name, value if value in gpu.values else OrtValue.ortvalue_from_numpy(value.numpy().copy()))

                binding.bind_ortvalue_input = copying
                return binding

            def run_with_iobinding(self, *arguments: Any) -> None:
                if gpu.fails:
                    raise RuntimeError("CUDA failure 999: unknown error ; GPU=0 ; hostname=secret")
                super().run_with_iobinding(*arguments)

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        make = OrtValue.ortvalue_from_shape_and_type

        def on_device(shape: list[int], dtype: Any, device: str, number: int) -> Any:
            assert device == "cuda"
            gpu.values.append(make(shape, dtype, "cpu", 0))
            return gpu.values[-1]

        monkeypatch.setattr(OrtValue, "ortvalue_from_shape_and_type", staticmethod(on_device))
        monkeypatch.setattr(cuda, "DRIVER", None)
        monkeypatch.setattr(cuda, "library", lambda onnxruntime: self)
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")

    def cudaGetDeviceCount(self, count: Any) -> int:
        """As CUDA's: there are two."""
        count._obj.value = 2
        return 0

    def cudaSetDevice(self, gpu: int) -> int:
        """As CUDA's."""
        return 0

    def cudaHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: int) -> int:
        """As CUDA's."""
        memory = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(memory)
        self.pages[address._obj.value] = memory
        return 0

    def cudaFreeHost(self, address: ctypes.c_void_p) -> int:
        """As CUDA's."""
        del self.pages[address.value or 0]
        return 0
