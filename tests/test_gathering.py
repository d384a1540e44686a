"""The metrics of several workers as those of one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.observing.metrics import Family, Metrics
from service.processes.gathering import GatheredMetrics, added


def counting(calls: int) -> Sequence[Family]:
    """The series of a worker that answered some calls, one image waiting."""
    metrics = Metrics()
    metrics.queue_changed(1)
    metrics.serving(True)
    metrics.model_loaded("digits", "1", "abc")
    metrics.providers(["CPU"], ["CPU"])
    metrics.transport("grpcio", "asked for")
    at = [(("digits", "1"), float(calls))]
    metrics.show_also(
        ("model", "version"), lambda: [("nv_inference_count", "", at), ("nv_inference_pending_request_count", "", at)]
    )
    for _ in range(calls):
        metrics.calls_of("unary", "digits.v1.DigitClassifier", "Classify").ended("OK", 0.003)
        metrics.predicted([7], [0.99], [0.1], [""])
    return metrics.families()


def values(metrics: GatheredMetrics, ready_workers: int = 2, is_ready: bool = True) -> dict[str, float]:
    text = metrics.exposition(ready_workers, is_ready).decode()
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_are_added_and_facts_are_not() -> None:
    metrics = GatheredMetrics()
    metrics.seen(0, counting(3))
    metrics.seen(1, counting(4))
    found = values(metrics)
    call = ",grpc_method=Classify,grpc_service=digits.v1.DigitClassifier,grpc_type=unary"
    assert found[f"grpc_server_handled_total,grpc_code=OK{call}"] == 7
    assert found[f"grpc_server_handling_seconds_bucket{call},le=0.005"] == 7
    assert found[f"grpc_server_handling_seconds_sum{call}"] == pytest.approx(0.021)
    assert found["digitserve_predictions_total,digit=7"] == 7
    assert found["digitserve_queue_images"] == 2
    assert found["digitserve_model_info,name=digits,sha256=abc,version=1"] == 1
    assert found["digitserve_provider_info,asked=CPU,got=CPU"] == 1
    assert found["digitserve_transport_info,name=grpcio,reason=asked for"] == 1
    assert found["digitserve_workers"] == 2


def test_what_has_ended_leaves_its_counts_and_nothing_else() -> None:
    metrics = GatheredMetrics()
    metrics.seen(0, counting(3))
    metrics.seen(1, counting(4))
    metrics.ended(0, "ended")
    metrics.ended(1, "hung")
    # One that was never seen.
    metrics.ended(1, "hung")
    metrics.seen(0, counting(0))
    found = values(metrics)
    assert found["digitserve_predictions_total,digit=7"] == 7
    assert found["digitserve_confidence_count"] == 7
    assert found["digitserve_queue_images"] == 1
    assert found["nv_inference_count,model=digits,version=1"] == 7
    assert found["nv_inference_pending_request_count,model=digits,version=1"] == 0
    assert (found["digitserve_worker_ends_total,how=ended"], found["digitserve_worker_ends_total,how=hung"]) == (1, 2)


def test_whether_the_server_is_ready_is_for_the_supervisor_to_say() -> None:
    metrics = GatheredMetrics()
    metrics.seen(0, counting(1))
    found = values(metrics, ready_workers=0, is_ready=False)
    assert (found["digitserve_ready"], found["digitserve_workers"]) == (0, 0)


def test_memory_is_added_and_the_first_start_is_the_start() -> None:
    name, memory = "process_start_time_seconds", "process_resident_memory_bytes"
    one: list[Family] = [(name, "", "gauge", [(name, {}, 20.0)]), (memory, "", "gauge", [(memory, {}, 1.0)])]
    other: list[Family] = [(name, "", "gauge", [(name, {}, 10.0)]), (memory, "", "gauge", [(memory, {}, 2.0)])]
    assert {family[0]: family[3][0][2] for family in added([one, other])} == {name: 10.0, memory: 3.0}
