"""The statistics once more, under the names that Triton's dashboards and autoscaling rules read.

Triton's counters have no `_total` at the end, so they cannot be counters to
prometheus_client; `metrics` shows them without a type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.model.statistics import Requests
from service.model.versions import Versions

# Name, help, and the values by (model, version).
Series = tuple[str, str, list[tuple[tuple[str, str], float]]]

MICROSECONDS = 1e6
# Name, help, and how the value follows from the requests of one version of one model.
SERIES: tuple[tuple[str, str, Callable[[Requests], float]], ...] = (
    ("nv_inference_request_success", "Requests answered.", lambda of: of.success.count),
    ("nv_inference_request_failure", "Requests that could not be answered.", lambda of: of.fail.count),
    ("nv_inference_count", "Images inferred.", lambda of: of.images),
    ("nv_inference_exec_count", "Runs of the model.", lambda of: of.executions),
    ("nv_inference_request_duration_us", "Time of requests.", lambda of: of.success.seconds * MICROSECONDS),
    ("nv_inference_queue_duration_us", "Time in the queue.", lambda of: of.queue.seconds * MICROSECONDS),
    ("nv_inference_compute_input_duration_us", "Time before it.", lambda of: of.input.seconds * MICROSECONDS),
    ("nv_inference_compute_infer_duration_us", "Time of the runs.", lambda of: of.infer.seconds * MICROSECONDS),
    ("nv_inference_compute_output_duration_us", "Time after them.", lambda of: of.output.seconds * MICROSECONDS),
)


def series(versions: Versions, model_name: str) -> Iterator[Series]:
    """Triton's series, with a value for each loaded version of each model, of which `digits` goes by this name."""
    loaded = versions.loaded()
    requests = [(model_name, each.model.version, each.statistics.pixels) for each in loaded]
    requests += [(f"{model_name}_image", each.model.version, each.statistics.files) for each in loaded]
    requests += [(f"{model_name}_explain", each.model.version, each.statistics.layers) for each in loaded]
    for name, help, value in SERIES:
        yield name, help, [((model, version), value(of)) for model, version, of in requests]
    pending = [((model_name, each.model.version), float(each.batcher.waiting_groups)) for each in loaded]
    yield "nv_inference_pending_request_count", "Requests that wait for the model.", pending
