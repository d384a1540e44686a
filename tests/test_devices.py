"""Which execution providers a device means, from lists of what ONNX Runtime might offer."""

from __future__ import annotations

import pytest

from service.model.devices import CPU, CUDA, TENSORRT, GpuOptions, Plan, plan

CPU_BUILD, GPU_BUILD = [CPU], [TENSORRT, CUDA, CPU]


def planned(device: str, offered: list[str], **options: object) -> Plan:
    return plan(device, offered, GpuOptions(**options), max_run_images=512)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "offered", "names", "gpu"),
    [
        ("cpu", CPU_BUILD, [CPU], None),
        ("cpu", GPU_BUILD, [CPU], None),
        ("auto", CPU_BUILD, [CPU], None),
        ("auto", GPU_BUILD, [CUDA], 0),
        ("cuda", GPU_BUILD, [CUDA], 0),
        ("cuda:3", GPU_BUILD, [CUDA], 3),
        ("tensorrt", GPU_BUILD, [TENSORRT, CUDA], 0),
        # What is asked for is what is planned, offered or not: refusing is another's business.
        ("cuda:1", CPU_BUILD, [CUDA], 1),
    ],
)
def test_a_device_means_these_providers(device: str, offered: list[str], names: list[str], gpu: int | None) -> None:
    made = planned(device, offered)
    assert (made.names, made.gpu) == (names, gpu)


def test_cuda_is_told_to_answer_as_the_cpu_does_and_to_take_only_the_memory_it_needs() -> None:
    told = dict(planned("cuda:2", GPU_BUILD).providers)[CUDA]
    assert told == {
        "device_id": "2",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_cuda_graph": "0",
    }


def test_every_option_reaches_cuda() -> None:
    options = {"precision": "tf32", "cudnn_search": "exhaustive", "arena": "next-power-of-two", "memory_mib": 512}
    told = dict(planned("cuda", GPU_BUILD, graphs=True, **options).providers)[CUDA]
    assert told == {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "use_tf32": "1",
        "enable_cuda_graph": "1",
        "gpu_mem_limit": str(512 * 1024 * 1024),
    }


def test_tensorrt_builds_one_engine_for_every_size_of_a_run() -> None:
    told = dict(planned("tensorrt", GPU_BUILD, precision="fp16", tensorrt_cache_dir="/cache").providers)[TENSORRT]
    assert told == {
        "device_id": "0",
        "trt_fp16_enable": "True",
        "trt_profile_min_shapes": "image:1x1x28x28",
        "trt_profile_opt_shapes": "image:512x1x28x28",
        "trt_profile_max_shapes": "image:512x1x28x28",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "/cache",
    }
    assert "trt_engine_cache_enable" not in dict(planned("tensorrt", GPU_BUILD).providers)[TENSORRT]
