"""What several tests share: a real server process, digits to send it, and MNIST where it is found."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from protos import digits_pb2_grpc
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.client import Client
from tests.mnist_files import find_mnist, small_digits
from tests.server_process import ServerProcess

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _sigint_reaches_children() -> None:
    """A shell that runs the tests in the background has them ignore SIGINT, and every process they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=["grpcio", "native"])
def transport(request: pytest.FixtureRequest) -> str:
    """Every test of the contract runs on both implementations of gRPC."""
    if request.param == "native" and importlib.util.find_spec("pygrpc_native") is None:
        pytest.skip("the native transport is not installed; pip install '.[native]'")
    return str(request.param)


@pytest.fixture(scope="session")
def server(transport: str) -> Iterator[ServerProcess]:
    """One server process of each transport, with default settings, for all tests that leave it as it is."""
    with ServerProcess("--transport", transport) as process:
        yield process


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="session")
def stub(server: ServerProcess) -> Iterator[digits_pb2_grpc.DigitClassifierStub]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield digits_pb2_grpc.DigitClassifierStub(channel)


@pytest.fixture(scope="session")
def oip(server: ServerProcess) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="session")
def digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """397 real handwritten digits of scikit-learn in MNIST's convention, (N, 28, 28), and their labels."""
    return small_digits("t10k")


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder with MNIST's files; a test that needs it is skipped where there is none."""
    folder = find_mnist()
    if folder is None:
        pytest.skip("MNIST is not on this machine; set DIGITSERVE_DATA to the folder with its four files")
    return folder
