"""The Open Inference Protocol over real sockets, against the real server process."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import Message

from protos import digits_pb2, digits_pb2_grpc
from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.open_inference.tensors import join_bytes, split_bytes
from tests.pictures import Pixels, encode, on_paper

Digits = tuple[Pixels, Pixels]
Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor


def pixels(images: npt.NDArray[Any], **fields: object) -> pb.ModelInferRequest:
    """A request for `digits`."""
    shape = [len(images), 1, 28, 28]
    tensor = Input(name="image", datatype="UINT8", shape=shape)
    return pb.ModelInferRequest(
        model_name="digits",
        inputs=[tensor],
        raw_input_contents=[images.tobytes()],
        **fields,  # type: ignore[arg-type]
    )


def files(*images: bytes, **fields: object) -> pb.ModelInferRequest:
    """A request for `digits_image`."""
    tensor = Input(name="image", datatype="BYTES", shape=[len(images)])
    return pb.ModelInferRequest(
        model_name="digits_image",
        inputs=[tensor],
        raw_input_contents=[join_bytes(images)],
        **fields,  # type: ignore[arg-type]
    )


def refused(call: Any, request: Message, **options: Any) -> tuple[str, str]:
    """Code and text of a call that has to fail."""
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=10, **options)
    return error.value.code().name, error.value.details() or ""


def output(response: pb.ModelInferResponse, name: str) -> npt.NDArray[Any]:
    """One output as an array."""
    index = [each.name for each in response.outputs].index(name)
    tensor = response.outputs[index]
    dtype = {"FP32": np.float32, "UINT8": np.uint8}[tensor.datatype]
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(tuple(tensor.shape))


def test_pixels_are_read_as_by_our_own_service(
    oip: GRPCInferenceServiceStub, stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits
) -> None:
    images = digits[0][:50]
    response = oip.ModelInfer(pixels(images, id="fifty"))
    assert (response.model_name, response.model_version, response.id) == ("digits", "1", "fifty")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("probabilities", "FP32", [50, 10]),
        ("digit_score", "FP32", [50]),
    ]
    assert not any(o.HasField("contents") for o in response.outputs)
    batch = stub.ClassifyBatch(
        digits_pb2.ClassifyBatchRequest(format=digits_pb2.IMAGE_FORMAT_RAW_28X28, images=[i.tobytes() for i in images])
    )
    expected = [list(result.prediction.probabilities) for result in batch.results]
    assert np.allclose(output(response, "probabilities"), expected, atol=1e-6)
    assert (output(response, "probabilities").argmax(1) == digits[1][:50]).mean() > 0.9


def test_the_same_pixels_in_every_spelling(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    images = digits[0][:2]
    expected = oip.ModelInfer(pixels(images)).raw_output_contents
    typed = pixels(images)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(images.ravel().tolist())
    fp32 = pixels(images.astype(np.float32))
    fp32.inputs[0].datatype = "FP32"
    fractions = pixels(images.astype(np.float32) / 255)
    fractions.inputs[0].datatype = "FP32"
    fractions.inputs[0].parameters["pixel_max"].int64_param = 1
    typed_fp32 = pixels(images)
    del typed_fp32.raw_input_contents[:]
    typed_fp32.inputs[0].datatype = "FP32"
    typed_fp32.inputs[0].contents.fp32_contents.extend(images.ravel().tolist())
    for request in (typed, fp32, fractions, typed_fp32):
        assert oip.ModelInfer(request).raw_output_contents == expected


def test_files_are_normalised_and_shown_as_the_network_saw_them(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    pictures = [encode(on_paper(digits[0][0])), encode(digits[0][1], "BMP")]
    outputs = [Output(name="seen"), Output(name="digit_score"), Output(name="probabilities")]
    response = oip.ModelInfer(files(*pictures, outputs=outputs))
    assert [o.name for o in response.outputs] == ["seen", "digit_score", "probabilities"]
    seen = output(response, "seen")
    assert seen.shape == (2, 28, 28) and (seen[1] == digits[0][1]).all()
    again = oip.ModelInfer(pixels(seen))
    assert np.allclose(output(again, "probabilities"), output(response, "probabilities"), atol=1e-6)
    typed = files(*pictures)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.bytes_contents.extend(pictures)
    unasked = oip.ModelInfer(typed)
    assert [o.name for o in unasked.outputs] == ["probabilities", "digit_score"]
    assert unasked.raw_output_contents[1] == response.raw_output_contents[1]


def test_classes_instead_of_numbers(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    wanted = Output(name="probabilities")
    wanted.parameters["classification"].int64_param = 3
    response = oip.ModelInfer(pixels(digits[0][:2], outputs=[wanted]))
    (tensor,) = response.outputs
    assert (tensor.datatype, list(tensor.shape)) == ("BYTES", [2, 3])
    texts = [text.decode().split(":") for text in split_bytes(response.raw_output_contents[0], 6)]
    assert len(texts) == 6 and all(index == label for _, index, label in texts)
    probabilities = output(oip.ModelInfer(pixels(digits[0][:2])), "probabilities")
    for row, three in zip(probabilities, (texts[:3], texts[3:]), strict=True):
        assert [int(index) for _, index, _ in three] == np.argsort(-row)[:3].tolist()
        assert [float(value) for value, _, _ in three] == pytest.approx(np.sort(row)[:-4:-1], abs=1e-6)
    wanted.parameters["classification"].int64_param = 1000
    assert list(oip.ModelInfer(pixels(digits[0][:1], outputs=[wanted])).outputs[0].shape) == [1, 10]


def test_what_the_server_and_its_models_are(oip: GRPCInferenceServiceStub) -> None:
    assert oip.ServerLive(pb.ServerLiveRequest()).live
    assert oip.ServerReady(pb.ServerReadyRequest()).ready
    for name, version, ready in (
        ("digits", "", True),
        ("digits_image", "1", True),
        ("digits", "2", False),
        ("x", "", False),
    ):
        assert oip.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready is ready
    server = oip.ServerMetadata(pb.ServerMetadataRequest())
    assert server.name == "digitserve" and "classification" in server.extensions
    metadata = oip.ModelMetadata(pb.ModelMetadataRequest(name="digits_image"))
    assert (metadata.name, list(metadata.versions)) == ("digits_image", ["1"])
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("image", "BYTES", [-1])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [
        ("probabilities", "FP32", [-1, 10]),
        ("digit_score", "FP32", [-1]),
        ("seen", "UINT8", [-1, 28, 28]),
    ]


def test_unknown_models_and_versions_are_not_found(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    request = pixels(digits[0][:1])
    for name, version in (("../x", ""), ("x" * 10_000, ""), ("digits", "01"), ("digits", "../1"), ("digits", "2")):
        request.model_name, request.model_version = name, version
        metadata = pb.ModelMetadataRequest(name=name, version=version)
        for code, text in (refused(oip.ModelInfer, request), refused(oip.ModelMetadata, metadata)):
            assert code == "NOT_FOUND"
            assert "Request for unknown model" in text and len(text) < 250


def test_an_expired_timeout_is_never_run(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    request = files(encode(digits[0][0]))
    request.parameters["timeout"].int64_param = 1
    request.parameters["triton_whatever"].string_param = "ignored"
    assert refused(oip.ModelInfer, request)[0] == "DEADLINE_EXCEEDED"
    request.parameters["timeout"].int64_param = 60_000_000
    request.parameters["priority"].uint64_param = 1
    assert oip.ModelInfer(request).model_version == "1"


def test_what_there_is_not_says_so(oip: GRPCInferenceServiceStub) -> None:
    for call, request, text in (
        (oip.SystemSharedMemoryRegister, pb.SystemSharedMemoryRegisterRequest(), "shared memory is not available"),
        (oip.CudaSharedMemoryStatus, pb.CudaSharedMemoryStatusRequest(), "shared memory is not available"),
        (oip.TraceSetting, pb.TraceSettingRequest(), "traces are not available"),
        (oip.LogSettings, pb.LogSettingsRequest(), "the log cannot be set"),
    ):
        code, found = refused(call, request)
        assert code == "UNIMPLEMENTED" and text in found


def test_an_id_that_comes_back_is_no_long_text(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    longest, longer = (pixels(digits[0][:1], id="x" * length) for length in (1024, 1025))
    assert oip.ModelInfer(longest).id == longest.id
    code, text = refused(oip.ModelInfer, longer)
    assert code == "INVALID_ARGUMENT" and "1025 characters, the limit is 1024" in text
    answers = list(oip.ModelStreamInfer(iter([longer, longest])))
    assert "1025 characters" in answers[0].error_message
    assert [answer.infer_response.id for answer in answers] == [longest.id] * 2


def test_a_stream_is_answered_in_order_and_survives_errors(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    good, bad = pixels(digits[0][:1], id="good"), pixels(digits[0][:1], id="bad")
    bad.inputs[0].shape[0] = 2
    last = pixels(digits[0][1:3], id="last")
    last.parameters["triton_enable_empty_final_response"].bool_param = True
    wrong = pb.ModelInferRequest(model_name="x", id="wrong", parameters=last.parameters)
    answers = list(oip.ModelStreamInfer(iter([good, bad, good, last, wrong])))
    assert [answer.infer_response.id for answer in answers] == ["good", "bad", "good", "last", "wrong"]
    assert "its shape [2,1,28,28] needs 1568" in answers[1].error_message
    assert [bool(answer.error_message) for answer in answers] == [False, True, False, False, True]
    for answer in answers[3:]:
        assert answer.infer_response.parameters["triton_final_response"].bool_param
    assert not answers[0].infer_response.parameters
    assert output(answers[3].infer_response, "probabilities").shape == (2, 10)


def test_a_stream_may_ask_to_end_with_the_status_of_an_error(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    bad = pixels(digits[0][:1])
    bad.inputs[0].name = "x"
    with pytest.raises(grpc.RpcError) as error:
        list(oip.ModelStreamInfer(iter([bad]), metadata=(("triton_grpc_error", "true"),)))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_config_says_how_the_model_is_run(oip: GRPCInferenceServiceStub) -> None:
    config = oip.ModelConfig(pb.ModelConfigRequest(name="digits")).config
    assert (config.name, config.platform, config.backend) == ("digits", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 1024
    assert list(config.dynamic_batching.preferred_batch_size) == [32]
    assert (config.dynamic_batching.priority_levels, config.dynamic_batching.default_priority_level) == (3, 2)
    assert [group.kind for group in config.instance_group] == [pb.ModelInstanceGroup.KIND_CPU]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("image", pb.TYPE_UINT8, [1, 28, 28])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [
        ("probabilities", pb.TYPE_FP32, [10]),
        ("digit_score", pb.TYPE_FP32, []),
    ]
    assert config.parameters["providers_got"].string_value == "CPUExecutionProvider"
    assert len(config.parameters["sha256"].string_value) == 64


def test_the_index_lists_every_model(oip: GRPCInferenceServiceStub) -> None:
    index = oip.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert [(each.name, each.version, each.state) for each in index] == [
        ("digits", "1", "READY"),
        ("digits_image", "1", "READY"),
        ("digits_explain", "1", "READY"),
    ]
    for call, request in (
        (oip.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="digits")),
        (oip.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="digits")),
    ):
        assert refused(call, request)[0] == "UNIMPLEMENTED"
