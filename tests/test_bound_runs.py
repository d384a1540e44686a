"""Runs of fixed sizes on bound buffers, with the CPU as the device that they are bound on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest

from service.model.bound_runs import BoundRuns, sizes
from service.settings import bundled_models

CPU = ("cpu", 0)
MODEL = (bundled_models() / "digits/1/model.onnx").read_bytes()


def session() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def noise(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, 1, 28, 28), np.uint8)


def test_sizes_are_powers_of_two_and_the_largest() -> None:
    assert sizes(1) == [1]
    assert sizes(8) == [1, 2, 4, 8]
    assert sizes(100) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert len(sizes(4096)) == 13


@pytest.mark.parametrize("records", [False, True])
def test_every_number_of_images_is_answered_as_by_the_plain_session(records: bool) -> None:
    """Also after a larger run, whose images still lie in the buffers behind those of the smaller one."""
    plain = session()
    runs = BoundRuns(onnxruntime, [session()], max_run_images=12, device=CPU, records=records)
    for count in (12, 1, 7, 3, 12, 30):
        images = noise(count)
        probabilities, scores = runs.run(images)
        expected = plain.run(("probabilities", "digit_score"), {"image": images})
        assert probabilities.shape == (count, 10) and scores.shape == (count,)
        np.testing.assert_allclose(probabilities, expected[0], atol=1e-6)
        np.testing.assert_allclose(scores, expected[1], atol=1e-4)


def test_an_answer_is_the_callers_and_not_overwritten_by_the_next_run() -> None:
    runs = BoundRuns(onnxruntime, [session()], max_run_images=4, device=CPU)
    first, _ = runs.run(noise(4))
    kept = first.copy()
    runs.run(255 - noise(4))
    np.testing.assert_array_equal(first, kept)


def test_every_size_is_warm_before_the_first_caller_and_only_those_sizes_are_run() -> None:
    class Recording:
        def __init__(self) -> None:
            self.ran: list[Any] = []
            self.real = session()

        def io_binding(self) -> Any:
            return self.real.io_binding()

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            self.ran.append((binding._bound_inputs["image"].shape()[0], threading.current_thread().name))
            self.real.run_with_iobinding(binding, options)

    recording = Recording()
    runs = BoundRuns(onnxruntime, [recording], max_run_images=8, device=CPU)
    assert sorted({size for size, _ in recording.ran}) == [1, 2, 4, 8]
    recording.ran.clear()
    for count in (1, 3, 5, 8):
        runs.run(noise(count))
    assert [size for size, _ in recording.ran] == [1, 4, 8, 8]
    assert len({thread for _, thread in recording.ran}) == 1  # CUDA graphs belong to the thread that recorded them


def test_two_sessions_run_two_batches_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    class Meeting:
        def __init__(self) -> None:
            self.real = session()
            self.is_warm = False

        def io_binding(self) -> Any:
            return self.real.io_binding()

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            if self.is_warm:
                both.wait()
            self.real.run_with_iobinding(binding, options)

    sessions = [Meeting(), Meeting()]
    runs = BoundRuns(onnxruntime, sessions, max_run_images=2, device=CPU)
    for each in sessions:
        each.is_warm = True
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(runs.run(noise(2)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 2


def test_a_failed_run_does_not_take_its_session_away_for_good() -> None:
    class Failing:
        def __init__(self) -> None:
            self.real = session()
            self.fails = False

        def io_binding(self) -> Any:
            return self.real.io_binding()

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            if self.fails:
                raise RuntimeError("out of memory")
            self.real.run_with_iobinding(binding, options)

    failing = Failing()
    runs = BoundRuns(onnxruntime, [failing], max_run_images=2, device=CPU)
    failing.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        runs.run(noise(1))
    failing.fails = False
    assert runs.run(noise(1))[0].shape == (1, 10)
