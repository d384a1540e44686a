"""What the Open Inference Protocol's statistics say, by the real server process."""

from __future__ import annotations

from collections import Counter

from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.pictures import encode
from tests.test_inference import Digits, Output, files, pixels, refused


def statistics(oip: GRPCInferenceServiceStub, name: str) -> pb.ModelStatistics:
    (found,) = oip.ModelStatistics(pb.ModelStatisticsRequest(name=name)).model_stats
    assert (found.name, found.version) == (name, "1")
    return found


def test_the_statistics_tell_what_was_inferred(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    pixels_before, files_before = statistics(oip, "digits"), statistics(oip, "digits_image")
    oip.ModelInfer(pixels(digits[0][:70]))
    oip.ModelInfer(files(encode(digits[0][0])))
    refused(oip.ModelInfer, files(encode(digits[0][0]), b"no image"))
    pixels_after, files_after = statistics(oip, "digits"), statistics(oip, "digits_image")
    assert pixels_after.inference_count == pixels_before.inference_count + 71
    assert pixels_after.execution_count == pixels_before.execution_count + 4
    assert files_after.inference_count == files_before.inference_count + 1
    assert files_after.inference_stats.fail.count == files_before.inference_stats.fail.count + 1
    assert pixels_after.last_inference >= files_before.last_inference
    for before, after, requests in ((pixels_before, pixels_after, 2), (files_before, files_after, 1)):
        spent = {
            name: getattr(after.inference_stats, name).ns - getattr(before.inference_stats, name).ns
            for name in ("success", "queue", "compute_input", "compute_infer", "compute_output")
        }
        for name in spent:
            counts = getattr(after.inference_stats, name).count - getattr(before.inference_stats, name).count
            assert counts == requests
        assert spent["success"] >= sum(spent.values()) - spent["success"] > 0
    runs = Counter({batch.batch_size: batch.compute_infer.count for batch in pixels_after.batch_stats})
    runs.subtract({batch.batch_size: batch.compute_infer.count for batch in pixels_before.batch_stats})
    assert +runs == {32: 2, 6: 1, 1: 1}


def test_a_run_counts_for_image_files_as_the_images_of_theirs_it_held(
    oip: GRPCInferenceServiceStub, digits: Digits
) -> None:
    before = statistics(oip, "digits_image")
    oip.ModelInfer(files(*[encode(image) for image in digits[0][:40]]))
    after = statistics(oip, "digits_image")
    assert after.inference_count == before.inference_count + 40
    assert after.execution_count == before.execution_count + 2
    runs = Counter({batch.batch_size: batch.compute_infer.count for batch in after.batch_stats})
    runs.subtract({batch.batch_size: batch.compute_infer.count for batch in before.batch_stats})
    assert +runs == {32: 1, 8: 1}


def test_what_is_refused_or_given_up_counts_as_failed(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    def failed(name: str) -> int:
        count: int = statistics(oip, name).inference_stats.fail.count
        return count

    one, picture = digits[0][:1], encode(digits[0][0])
    refusals = [
        pixels(one.repeat(1025, 0)),
        pixels(one[:, :27]),
        pixels(one, outputs=[Output(name="x")]),
        pixels(one, parameters={"timeout": pb.InferParameter(string_param="soon")}),
    ]
    before = failed("digits"), failed("digits_image")
    for request in refusals:
        refused(oip.ModelInfer, request)
    refused(oip.ModelInfer, files(picture, outputs=[Output(name="x")]))
    assert (failed("digits"), failed("digits_image")) == (before[0] + 4, before[1] + 1)


def test_statistics_of_everything_and_of_nothing(oip: GRPCInferenceServiceStub) -> None:
    found = oip.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
    names = ("digits", "digits_image", "digits_explain")
    assert [(each.name, each.version) for each in found] == [(name, "1") for name in names]
    assert refused(oip.ModelStatistics, pb.ModelStatisticsRequest(name="x"))[0] == "NOT_FOUND"
    assert refused(oip.ModelConfig, pb.ModelConfigRequest(name="digits", version="7"))[0] == "NOT_FOUND"
