"""The series and their names, which dashboards and alerts are written against."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.observing.metrics import Metrics


def values(metrics: Metrics) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(asyncio.run(metrics.exposition()).decode())
        for sample in family.samples
    }


def test_calls_are_counted_by_method_and_code_and_timed() -> None:
    metrics = Metrics()
    calls = metrics.calls_of("unary", "digits.v1.DigitClassifier", "Classify")
    calls.started()
    calls.ended("OK", 0.003)
    found = values(metrics)
    call = ",grpc_method=Classify,grpc_service=digits.v1.DigitClassifier,grpc_type=unary"
    assert found[f"grpc_server_started_total{call}"] == 1
    assert found[f"grpc_server_handled_total,grpc_code=OK{call}"] == 1
    assert found[f"grpc_server_handling_seconds_bucket{call},le=0.0025"] == 0
    assert found[f"grpc_server_handling_seconds_bucket{call},le=0.005"] == 1
    assert found[f"grpc_server_handling_seconds_sum{call}"] == 0.003


def test_runs_of_the_model_tell_size_time_and_waiting() -> None:
    metrics = Metrics()
    metrics.queue_changed(12)
    metrics.model_ran(32, 0.002, [0.001, 0.003])
    found = values(metrics)
    assert found["digitserve_queue_images"] == 12
    assert found["digitserve_batch_images_sum"] == 32
    assert found["digitserve_batch_images_bucket,le=16.0"] == 0
    assert found["digitserve_batch_images_bucket,le=32.0"] == 1
    assert found["digitserve_model_run_seconds_count"] == 1
    assert found["digitserve_queue_seconds_count"] == 2


def test_predictions_are_counted_by_digit_from_the_start() -> None:
    metrics = Metrics()
    assert all(values(metrics)[f"digitserve_predictions_total,digit={digit}"] == 0 for digit in range(10))
    metrics.predicted([7, 7], [0.97, 0.45], [0.1, 0.2], ["", "ambiguous"])
    metrics.image_decoded(0.0001)
    found = values(metrics)
    assert found["digitserve_predictions_total,digit=7"] == 2
    assert found["digitserve_rejections_total,reason=ambiguous"] == 1
    assert found["digitserve_confidence_bucket,le=0.95"] == found["digitserve_confidence_bucket,le=0.5"] == 1
    assert found["digitserve_confidence_count"] == 2
    assert found["digitserve_ink_ratio_sum"] == pytest.approx(0.3)
    assert found["digitserve_decode_seconds_count"] == 1


def test_model_provider_and_readiness_are_shown() -> None:
    metrics = Metrics()
    assert values(metrics)["digitserve_model_loads_total,outcome=refused"] == 0
    metrics.model_loaded("digits", "3", "abc")
    metrics.providers(["CUDA"], ["CUDA", "CPU"])
    assert values(metrics)["digitserve_device_fallback"] == 0
    metrics.providers(["CUDA", "CPU"], ["CPU"])
    metrics.serving(True)
    found = values(metrics)
    assert found["digitserve_model_info,name=digits,sha256=abc,version=3"] == 1
    assert found["digitserve_provider_info,asked=CUDA,CPU,got=CPU"] == 1
    assert found["digitserve_device_fallback"] == 1
    assert found["digitserve_ready"] == 1
    metrics.serving(False)
    metrics.model_removed("digits", "3", "abc")
    metrics.model_refused()
    found = values(metrics)
    assert found["digitserve_ready"] == 0
    assert "digitserve_model_info,name=digits,sha256=abc,version=3" not in found
    assert found["digitserve_model_loads_total,outcome=refused"] == 1


def test_two_servers_in_one_process_do_not_share_series() -> None:
    one, other = Metrics(), Metrics()
    one.predicted([1], [0.9], [0.1], [""])
    assert values(other)["digitserve_predictions_total,digit=1"] == 0
