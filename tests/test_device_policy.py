"""A device that is missing, or fails while it serves: refused, or replaced by the CPU for all to see."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc, grpc_service_pb2, grpc_service_pb2_grpc
from service.errors import DeviceMissing, StartError
from service.model.devices import CPU, CUDA
from service.model.recovery import Recovery
from service.processes.ports import Running
from service.server import running
from tests.pretended_gpu import PretendedGpu
from tests.server_process import COMMAND, ServerProcess
from tests.test_server import RAW_BLANK, free_ports, until_metrics_show


def test_a_fallback_is_told_by_the_log_the_metrics_and_every_description() -> None:
    """E5, with the CPU-only ONNX Runtime of the development environment."""
    with ServerProcess("--device", "cuda", "--on-device-missing", "fallback") as server:
        assert f"is serving model digits/1 on {CPU}" in server.welcome
        assert server.metric("digitserve_device_fallback") == 1
        assert server.metric("digitserve_provider_info", asked=CUDA, got=CPU) == 1
        info = [COMMAND, "info", "--address", server.grpc_address]
        lines = subprocess.run(info, capture_output=True, text=True, check=True, timeout=60).stdout
        assert f"providers_asked    {CUDA}\n" in lines and f"providers_got      {CPU}\n" in lines
        with grpc.insecure_channel(server.grpc_address) as channel:
            model = digits_pb2_grpc.DigitClassifierStub(channel).GetModel(pb.GetModelRequest())
            assert [*model.providers_asked, *model.providers_got] == [CUDA, CPU]
            oip = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            config = oip.ModelConfig(grpc_service_pb2.ModelConfigRequest(name="digits")).config
            assert config.parameters["providers_asked"].string_value == CUDA
            assert config.parameters["providers_got"].string_value == CPU
            assert config.instance_group[0].kind == grpc_service_pb2.ModelInstanceGroup.KIND_CPU
            assert not config.instance_group[0].gpus
        _, stderr = server.stop()
    assert "WARNING service.model.runtime: --device cuda does not work: it needs CUDAExecutionProvider" in stderr
    assert f"on {CPU} (asked: {CUDA})" in stderr


@asynccontextmanager
async def on_gpu(device: str = "cuda", **settings: object) -> AsyncIterator[tuple[Running, Any]]:
    async with (
        running(free_ports(device=device, **settings)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        yield server, digits_pb2_grpc.DigitClassifierStub(channel)


async def test_the_server_serves_from_a_gpu_as_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedGpu(monkeypatch)
    async with on_gpu() as (server, stub):
        model = await stub.GetModel(pb.GetModelRequest())
        assert model.providers_got == [CUDA, CPU]
        assert (await stub.Classify(RAW_BLANK)).prediction.rejection_reason == "blank"
        batch = pb.ClassifyBatchRequest(format=pb.IMAGE_FORMAT_RAW_28X28, images=[bytes(784)] * 100)
        assert len((await stub.ClassifyBatch(batch)).results) == 100
        await until_metrics_show(server.ops_port, "digitserve_device_fallback 0.0")


async def test_the_configuration_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedGpu(monkeypatch)
    async with on_gpu("cuda:1") as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        oip: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        config = (await oip.ModelConfig(grpc_service_pb2.ModelConfigRequest(name="digits"))).config
        (group,) = config.instance_group
        assert (group.kind, [*group.gpus], group.count) == (grpc_service_pb2.ModelInstanceGroup.KIND_GPU, [1], 2)


async def test_a_gpu_that_fails_while_serving_is_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = PretendedGpu(monkeypatch)
    async with on_gpu(on_device_missing="fallback") as (server, stub):
        gpu.fails = True
        with pytest.raises(grpc.aio.AioRpcError, match="has lost its GPU") as error:
            await stub.Classify(RAW_BLANK)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "secret" not in str(error.value.details())
        await until_metrics_show(server.ops_port, "digitserve_device_fallback 1.0")
        assert (await stub.Classify(RAW_BLANK)).prediction.rejection_reason == "blank"
        model = await stub.GetModel(pb.GetModelRequest())
        assert [*model.providers_asked, *model.providers_got] == [CUDA, CPU]
        assert not server.failed.done()


async def test_a_gpu_that_fails_while_serving_ends_the_server_unless_it_may_fall_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = PretendedGpu(monkeypatch)
    async with on_gpu() as (server, stub):
        gpu.fails = True
        with pytest.raises(grpc.aio.AioRpcError, match="has lost its GPU"):
            await stub.Classify(RAW_BLANK)
        with pytest.raises(DeviceMissing, match="--device cuda does not work: the GPU fails on runs of up to 32"):
            await asyncio.wait_for(server.failed, 60)


async def test_a_gpu_that_fails_once_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another process has taken the memory for a moment."""
    gpu = PretendedGpu(monkeypatch)
    async with on_gpu() as (server, stub):
        sessions = len(gpu.sessions)
        gpu.fails = True
        with pytest.raises(grpc.aio.AioRpcError, match="has lost its GPU"):
            await stub.Classify(RAW_BLANK)
        gpu.fails = False
        await until_metrics_show(server.ops_port, 'digitserve_model_loads_total{outcome="loaded"} 2.0')
        assert len(gpu.sessions) == sessions + 2
        assert (await stub.Classify(RAW_BLANK)).prediction.rejection_reason == "blank"
        assert not server.failed.done()


async def test_a_fault_while_the_model_is_loaded_again_ends_the_server_too(caplog: pytest.LogCaptureFixture) -> None:
    """It would go on otherwise, and answer nobody."""

    async def fault() -> None:
        raise ZeroDivisionError("ours")

    recovery = Recovery()
    recovery.begin(fault)
    await asyncio.to_thread(recovery.device_lost)
    with pytest.raises(StartError, match=r"the model cannot be loaded again: .* log knows more under id"):
        await asyncio.wait_for(recovery.failed, 60)
    assert "ZeroDivisionError: ours" in caplog.text
