"""What runs the model: which execution providers a device means, and what each is told.

Knows ONNX Runtime's names and not ONNX Runtime.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """How a GPU is used.

    Attributes:
        precision: "fp32"; "tf32", which rounds the factors of products to 10 bits; or "fp16", TensorRT's alone.
        cudnn_search: How cuDNN chooses its convolutions: "heuristic", "exhaustive" or "default".
        arena: How the GPU's memory is taken: "same-as-requested" or "next-power-of-two".
        memory_mib: Most MiB of it that one session takes; 0 for no limit.
        graphs: Whether the runs are recorded once and replayed.
        tensorrt_cache_dir: Where TensorRT keeps the engines it has built; "" for nowhere.
    """

    precision: str = "fp32"
    cudnn_search: str = "heuristic"
    arena: str = "same-as-requested"
    memory_mib: int = 0
    graphs: bool = False
    tensorrt_cache_dir: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The execution providers to ask for.

    Attributes:
        providers: Names and options, first choice first.
        gpu: The number of the GPU; None where none is wanted.
    """

    providers: tuple[tuple[str, dict[str, str]], ...]
    gpu: int | None = None

    @property
    def names(self) -> list[str]:
        """The providers' names, first choice first."""
        return [name for name, _ in self.providers]


ON_CPU = Plan(((CPU, {}),))


def plan(device: str, offered: Sequence[str], options: GpuOptions, *, max_run_images: int) -> Plan:
    """What to ask for.

    Args:
        device: "cpu", "cuda", "cuda:N", "tensorrt"; or "auto", which is cuda where it is offered and else cpu.
        offered: The providers that ONNX Runtime was built with.
        options: How to use a GPU.
        max_run_images: Most images in one run.
    """
    if device == "cpu" or (device == "auto" and CUDA not in offered):
        return ON_CPU
    number = re.fullmatch(r"cuda:(\d+)", device)
    gpu = int(number[1]) if number else 0
    cuda = CUDA, _cuda(gpu, options)
    if device == "tensorrt":
        # What TensorRT does not take goes to CUDA on the same GPU.
        return Plan(((TENSORRT, _tensorrt(gpu, options, max_run_images)), cuda), gpu)
    return Plan((cuda,), gpu)


def _cuda(gpu: int, options: GpuOptions) -> dict[str, str]:
    told = {
        "device_id": str(gpu),
        "cudnn_conv_algo_search": options.cudnn_search.upper(),
        "arena_extend_strategy": {"same-as-requested": "kSameAsRequested", "next-power-of-two": "kNextPowerOfTwo"}[
            options.arena
        ],
        "use_tf32": str(int(options.precision == "tf32")),
        "enable_cuda_graph": str(int(options.graphs)),
    }
    if options.memory_mib:
        told["gpu_mem_limit"] = str(options.memory_mib << 20)
    return told


def _tensorrt(gpu: int, options: GpuOptions, max_run_images: int) -> dict[str, str]:
    told = {
        "device_id": str(gpu),
        "trt_fp16_enable": str(options.precision == "fp16"),
        # One engine for every size of a run; without it, one is built for each size that is met.
        "trt_profile_min_shapes": "image:1x1x28x28",
        "trt_profile_opt_shapes": f"image:{max_run_images}x1x28x28",
        "trt_profile_max_shapes": f"image:{max_run_images}x1x28x28",
    }
    if options.tensorrt_cache_dir:
        told |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": options.tensorrt_cache_dir}
    return told
