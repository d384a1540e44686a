"""What the GPUs of this machine do, under the names that Triton gives it and perf_analyzer reads; from NVIDIA's NVML.

NVML is optional: where pynvml (nvidia-ml-py) is not installed, or no driver is loaded, there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# Name, help, and the values by GPU.
Series = tuple[str, str, list[tuple[tuple[str], float]]]

# Name, help, and how the value is asked for, given NVML and the handle of a GPU.
SERIES: tuple[tuple[str, str, Callable[[Any, Any], float]], ...] = (
    (
        "nv_gpu_utilization",
        "Share of the time in which a kernel ran, 0 to 1.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    (
        "nv_gpu_memory_used_bytes",
        "Memory of the GPU in use, whoever uses it.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    (
        "nv_gpu_memory_total_bytes",
        "Memory of the GPU.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    (
        "nv_gpu_power_usage",
        "Power that the GPU draws, in watts.",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    (
        "nv_gpu_power_limit",
        "Power that it may draw, in watts.",
        lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
    ),
    (
        "nv_gpu_temperature_celsius",
        "Temperature of the GPU.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    ),
)


def open_nvml() -> Any | None:
    """NVML, ready to be asked; None where there is none."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def series(nvml: Any) -> Iterator[Series]:
    """The series, with a value for each GPU; without those that a GPU does not know.

    Args:
        nvml: The module pynvml, initialised.
    """
    try:
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        uuids = [nvml.nvmlDeviceGetUUID(gpu) for gpu in gpus]
    except nvml.NVMLError:
        # A driver that was taken away must not take the other metrics along.
        return
    for name, help, ask in SERIES:
        values = []
        for gpu, uuid in zip(gpus, uuids, strict=True):
            try:
                values.append(((uuid,), float(ask(nvml, gpu))))
            except nvml.NVMLError:
                continue
        if values:
            yield name, help, values
