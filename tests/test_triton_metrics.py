"""The mirror of the statistics under Triton's names."""

from __future__ import annotations

from service.client import Client
from tests.pictures import Pixels, encode
from tests.server_process import ServerProcess


def test_the_mirror_is_off_unless_asked_for(server: ServerProcess) -> None:
    assert "nv_inference" not in server.get(f"{server.ops_url}/metrics")


def test_the_mirror_shows_what_the_statistics_say(digits: tuple[Pixels, Pixels]) -> None:
    with ServerProcess("--triton-metrics", "on") as server, Client(server.grpc_address) as client:
        client.classify_batch(list(digits[0][:40]))
        client.classify(encode(digits[0][0]))
        of_pixels, of_files = {"model": "digits", "version": "1"}, {"model": "digits_image", "version": "1"}
        assert server.metric("nv_inference_count", **of_pixels) == 41
        assert server.metric("nv_inference_request_success", **of_pixels) == 2
        assert server.metric("nv_inference_exec_count", **of_pixels) == 3
        assert server.metric("nv_inference_request_success", **of_files) == 1
        assert server.metric("nv_inference_request_failure", **of_files) == 0
        assert server.metric("nv_inference_pending_request_count", **of_pixels) == 0
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        whole = server.metric("nv_inference_request_duration_us", **of_pixels)
        assert whole >= sum(server.metric(f"nv_inference_{part}_duration_us", **of_pixels) for part in parts) > 0
        shown = server.get(f"{server.ops_url}/metrics")
        assert '\nnv_inference_count{model="digits",version="1"} 41' in shown
