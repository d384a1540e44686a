"""On a real GPU: it is the one that computes, it answers as the CPU does, and its memory stays."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from service.client import Client
from service.errors import DeviceMissing
from service.model.devices import CPU, CUDA, GpuOptions
from service.model.runtime import Session
from service.observing import gpu_metrics
from tests.gpu.conftest import LARGEST, open_session
from tests.server_process import ServerProcess

# Sums in another order; the probabilities of the two differ by no more.
PROBABILITY_TOLERANCE = 1e-4
SPARE_BYTES = 1 << 20


def answers(session: Session, images: Any) -> tuple[Any, Any]:
    parts = [session.run(images[start : start + LARGEST]) for start in range(0, len(images), LARGEST)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def test_the_gpu_is_what_was_asked_for_and_what_computes(on_gpu: Session) -> None:
    """Every node of it: `session.disable_cpu_ep_fallback` would have refused the session otherwise."""
    assert on_gpu.providers_asked == [CUDA]
    assert on_gpu.providers_got == [CUDA, CPU]
    assert on_gpu.runs_at_once == 2


def test_10000_images_get_the_digits_and_probabilities_of_the_cpu(on_gpu: Session, images: Any) -> None:
    expected, expected_scores = answers(open_session("cpu"), images)
    got, scores = answers(on_gpu, images)
    difference = np.abs(got - expected).max()
    print(f"largest difference: probability {difference:.2e}, score {np.abs(scores - expected_scores).max():.2e}")
    assert (got.argmax(1) == expected.argmax(1)).all()
    assert difference < PROBABILITY_TOLERANCE


def test_recorded_runs_answer_alike(on_gpu: Session, images: Any) -> None:
    recorded = open_session(gpu=GpuOptions(graphs=True))
    for count in (1, 2, 3, 100, 777, LARGEST):
        for _ in range(2):
            got, expected = recorded.run(images[:count])[0], on_gpu.run(images[:count])[0]
            np.testing.assert_allclose(got, expected, atol=1e-5)


def test_two_threads_at_once_get_their_own_answers(on_gpu: Session, images: Any) -> None:
    expected, _ = answers(on_gpu, images)
    wrong: list[int] = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(500):
            start, count = int(random.integers(0, 9000)), int(random.integers(1, LARGEST))
            got, _ = on_gpu.run(images[start : start + count])
            if np.abs(got - expected[start : start + count]).max() > PROBABILITY_TOLERANCE:
                wrong.append(start)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_stays_over_10000_runs_of_any_size(on_gpu: Session, images: Any) -> None:
    nvml = gpu_metrics.open_nvml()
    if nvml is None:
        pytest.skip("NVML is not here (nvidia-ml-py), so the GPU's memory cannot be seen")
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    random = np.random.default_rng(0)
    before = nvml.nvmlDeviceGetMemoryInfo(gpu).used
    for _ in range(10_000):
        on_gpu.run(images[: int(random.integers(1, LARGEST + 1))])
    assert nvml.nvmlDeviceGetMemoryInfo(gpu).used - before <= SPARE_BYTES


def test_a_gpu_without_memory_is_refused_or_replaced(on_gpu: Session) -> None:
    narrow = GpuOptions(memory_mib=1)
    with pytest.raises(DeviceMissing, match="--device cuda does not work"):
        open_session(gpu=narrow)
    assert open_session(gpu=narrow, on_missing="fallback").providers_got == [CPU]


def test_a_gpu_that_is_not_there_is_refused(on_gpu: Session) -> None:
    with pytest.raises(DeviceMissing, match="--device cuda:63 does not work"):
        open_session("cuda:63")


def test_the_server_says_that_it_runs_on_the_gpu(on_gpu: Session, images: Any) -> None:
    with ServerProcess("--device", "cuda", "--max-run-images", "512") as server, Client(server.grpc_address) as client:
        assert f"on {CUDA}" in server.welcome
        assert server.metric("digitserve_device_fallback") == 0
        assert client.model().providers_got == (CUDA, CPU)
        expected = on_gpu.run(images[:512])[0].argmax(1).tolist()
        got = [getattr(result, "digit", None) for result in client.classify_batch(list(images[:512, 0]))]
        assert got == expected
        if gpu_metrics.open_nvml():
            assert server.metric("nv_gpu_memory_used_bytes") > 0
