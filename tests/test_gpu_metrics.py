"""The GPUs' metrics, from an NVML that is handed in."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from service.observing import gpu_metrics
from service.observing.metrics import Metrics


class NvmlError(Exception):
    """As pynvml's."""


class FakeNvml:
    """Two GPUs; the second does not tell its power, as a part of a divided one does not."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.is_gone = False
        self.is_initialised = False

    def nvmlInit(self) -> None:
        if self.is_gone:
            raise NvmlError("driver not loaded")
        self.is_initialised = True

    def nvmlDeviceGetCount(self) -> int:
        if self.is_gone:
            raise NvmlError("GPU is lost")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, gpu: int) -> str:
        return f"GPU-{gpu}"

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=25 * (gpu + 1))

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=1 << 30, total=4 << 30)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        if gpu:
            raise NvmlError("not supported")
        return 72_500

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: int) -> int:
        raise NvmlError("not supported")

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return 61


async def shown(nvml: FakeNvml) -> list[str]:
    metrics = Metrics()
    metrics.show_also(("gpu_uuid",), lambda: gpu_metrics.series(nvml))
    return [line for line in (await metrics.exposition()).decode().splitlines() if line.startswith("nv_gpu")]


async def test_every_gpu_has_its_values_under_the_names_that_perf_analyzer_reads() -> None:
    assert await shown(FakeNvml()) == [
        'nv_gpu_utilization{gpu_uuid="GPU-0"} 0.25',
        'nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5',
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-0"} 1073741824',
        'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1073741824',
        'nv_gpu_memory_total_bytes{gpu_uuid="GPU-0"} 4294967296',
        'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 4294967296',
        'nv_gpu_power_usage{gpu_uuid="GPU-0"} 72.5',
        'nv_gpu_temperature_celsius{gpu_uuid="GPU-0"} 61.0',
        'nv_gpu_temperature_celsius{gpu_uuid="GPU-1"} 61.0',
    ]


async def test_a_driver_that_is_gone_takes_no_other_metric_along() -> None:
    nvml = FakeNvml()
    nvml.is_gone = True
    assert await shown(nvml) == []


def test_nvml_is_opened_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert gpu_metrics.open_nvml() is nvml and nvml.is_initialised
    nvml.is_gone = True
    assert gpu_metrics.open_nvml() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_metrics.open_nvml() is None
