"""Timing: the call is made as often as is said."""

from __future__ import annotations

from model_export.report.speed import CALLS, ROUNDS, microseconds_per_image, processor


def test_the_median_is_of_so_many_rounds_of_calls() -> None:
    calls: list[None] = []
    assert microseconds_per_image(lambda: calls.append(None)) > 0
    assert len(calls) == 1 + ROUNDS * CALLS


def test_the_processor_has_a_name() -> None:
    assert processor().strip()
