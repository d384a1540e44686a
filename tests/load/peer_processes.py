"""The servers a user might pick instead, as processes: how each is installed, started, asked and ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as oip
from service.settings import bundled_models
from tests.environments import REPOSITORY, make_environment
from tests.load import asks, h2, usage
from tests.load.asks import Ask
from tests.pictures import Pixels

MODEL = str(bundled_models() / "digits/1/model.onnx")
SERVERS = REPOSITORY / "tests" / "load" / "peers"
START_PATIENCE_S = 60.0
STOP_PATIENCE_S = 15.0
# How far a probability may be from ONNX Runtime's own: batches of another size round otherwise.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Peer:
    """A server and how it is run.

    Attributes:
        name: As a table has it.
        setting: What else than its defaults it runs with, in words.
        environment: requirements/peers/NAME.txt, or "" for this environment.
        command: The command, after the environment's bin folder, given three free ports: one to ask, two for the rest.
        speaks: Makes a request of an image, uint8 [28, 28].
        environ: Environment variables, given the same ports.
    """

    name: str
    setting: str
    environment: str
    command: Callable[[list[str]], list[str]]
    speaks: Callable[[Pixels], Ask]
    environ: Callable[[list[str]], Mapping[str, str]] = field(default=lambda ports: {})

    def bin(self) -> Path:
        """The folder of its programs; installs it where it is not.

        Raises:
            CannotInstall: That failed.
        """
        return make_environment(f"peers/{self.environment}") if self.environment else Path(sys.executable).parent


def _infer(image: Pixels) -> Ask:
    return asks.infer(image, 1)


def _infer_json(image: Pixels) -> Ask:
    """The same as JSON."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 28, 28], "data": image.ravel().tolist()}
    return Ask("/v2/models/digits/infer", json.dumps({"inputs": [tensor]}).encode(), content_type="application/json")


def _predict_json(image: Pixels) -> Ask:
    """What our LitServe server takes."""
    body = json.dumps({"image": image.ravel().tolist()}).encode()
    return Ask("/predict", body, content_type="application/json")


def _digitserve(grpc_at: int, http_at: int, transport: str) -> Callable[[list[str]], list[str]]:
    """The command, with gRPC and HTTP on these of the ports."""
    command = ["digitserve", "serve", "--transport", transport]
    return lambda ports: [
        *command,
        "--grpc-port",
        ports[grpc_at],
        "--http-port",
        ports[http_at],
        "--ops-port",
        ports[2],
    ]


def _mlserver(ports: list[str], **more: str) -> dict[str, str]:
    """Its settings; worker processes, one by default, only make it slower on one core."""
    port, http, metrics = ports
    settings = {"host": "127.0.0.1", "grpc_port": port, "http_port": http, "metrics_port": metrics}
    settings |= {"debug": "false", "parallel_workers": "0", **more}
    return {f"MLSERVER_{name}".upper(): value for name, value in settings.items()}


def _kserve(ports: list[str]) -> list[str]:
    flags = ["--grpc_port", ports[0], "--http_port", ports[1], "--enable_latency_logging", "false"]
    return ["python", str(SERVERS / "kserve_server.py"), MODEL, *flags]


OURS = (
    Peer("digitserve native", "", "", _digitserve(0, 1, "native"), _infer),
    Peer("digitserve grpcio", "", "", _digitserve(0, 1, "grpcio"), _infer),
    Peer("digitserve JSON", "the same over HTTP", "", _digitserve(1, 0, "grpcio"), _infer_json),
)
OTHERS = (
    Peer(
        "MLServer",
        "without worker processes",
        "mlserver",
        lambda ports: ["mlserver", "start", str(SERVERS / "mlserver")],
        _infer,
        _mlserver,
    ),
    Peer(
        "MLServer batching",
        "the same, adaptive batching of 32 within 5 ms",
        "mlserver",
        lambda ports: ["mlserver", "start", str(SERVERS / "mlserver")],
        _infer,
        lambda ports: _mlserver(ports, model_max_batch_size="32", model_max_batch_time="0.005"),
    ),
    Peer("KServe SDK", "no log line for each call", "kserve", _kserve, _infer),
    Peer(
        "PyTriton",
        "dynamic batching of 32, no delay",
        "pytriton",
        lambda ports: ["python", str(SERVERS / "pytriton_server.py"), MODEL, *ports],
        _infer,
        # Triton's Python backend loads the library of the Python that the environment was made with.
        lambda ports: {"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR")},
    ),
    Peer(
        "LitServe JSON",
        "batching of 32 within 2 ms",
        "litserve",
        lambda ports: ["python", str(SERVERS / "litserve_server.py"), MODEL, ports[0]],
        _predict_json,
    ),
)


class PeerProcess:
    """A running peer, which has given a right answer; leaving its context ends it and all that it started.

    Attributes:
        address: host:port to ask.
        pid: Of its first process.
        start_s: Seconds from starting it to its first right answer.
    """

    def __init__(self, peer: Peer, image: Pixels, expected: npt.NDArray[np.float32], cpus: str | None = None):
        """Start it on these cores only ("0" or "0,1").

        Args:
            peer: What to start.
            image: To ask about until it is answered.
            expected: Its ten probabilities.
            cpus: As taskset has them.

        Raises:
            RuntimeError: It did not answer in time, or wrongly.
        """
        ports = _free_ports(3)
        first, *arguments = peer.command(ports)
        command = [*(["taskset", "-c", cpus] if cpus else []), str(peer.bin() / first), *arguments]
        self._peer, self.address = peer, f"127.0.0.1:{ports[0]}"
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._folder.name) / "log"
        environ = {**os.environ, **peer.environ(ports), "TMPDIR": self._folder.name}
        began = time.perf_counter()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder.name, env=environ)
        self.pid = self._process.pid
        try:
            self._wait(image, expected, began + START_PATIENCE_S)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - began

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def check(self, image: Pixels, expected: npt.NDArray[np.float32]) -> int:
        """Ask about an image.

        Args:
            image: uint8 [28, 28].
            expected: Its ten probabilities.

        Returns:
            The bytes of the answer's body.

        Raises:
            OSError: There is no answer, or it is an error.
            RuntimeError: The answer is not what ONNX Runtime says in process.
        """
        ask = self._peer.speaks(image)
        body = self._asked(ask)
        if not np.allclose(said := probabilities(body, ask.content_type), expected, rtol=0, atol=TOLERANCE):
            raise RuntimeError(f"{self._peer.name} answered {said}, expected {expected}: what it does is no figure")
        return len(body)

    def _asked(self, ask: Ask) -> bytes:
        """The body of the answer to a request."""
        if ask.content_type != h2.GRPC:
            headers = {"Content-Type": ask.content_type}
            request = urllib.request.Request(f"http://{self.address}{ask.path}", ask.body, headers)
            with urllib.request.urlopen(request, timeout=10) as response:
                body: bytes = response.read()
            return body
        # A connection of its own, at once: others of this process may be pausing after they were refused.
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ask.path)
            try:
                # The body is one message and the five bytes before it.
                return h2.body(call(ask.body[5:], timeout=10))
            except grpc.RpcError as error:
                raise OSError(error.details()) from None

    def stop(self) -> None:
        """End it, and what it started, and what is left of it after a while."""
        processes = usage.tree(self.pid) if self._process.poll() is None else []
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_PATIENCE_S)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def _wait(self, image: Pixels, expected: npt.NDArray[np.float32], end: float) -> None:
        while True:
            try:
                self.check(image, expected)
                return
            except OSError as error:
                if time.perf_counter() > end or self._process.poll() is not None:
                    said = self._log.read_text(errors="replace").strip()[-300:]
                    raise RuntimeError(f"{self._peer.name} does not answer: {error}; it wrote: {said}") from None
            time.sleep(0.05)


def probabilities(body: bytes, content_type: str) -> npt.NDArray[np.float32]:
    """The ten probabilities in the body of an answer: of the Open Inference Protocol, or of our LitServe server."""
    if content_type == h2.GRPC:
        answer = oip.ModelInferResponse.FromString(body[5:])
        at = [output.name for output in answer.outputs].index("probabilities")
        return np.frombuffer(answer.raw_output_contents[at], np.float32)
    said = json.loads(body)
    if "outputs" in said:
        said = {output["name"]: output["data"] for output in said["outputs"]}
    return np.array(said["probabilities"], np.float32)


def _free_ports(count: int) -> list[str]:
    """Ports of the loopback address that nobody has."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]
