"""The settings for HAProxy and Envoy, and mutual TLS in a pod, by the real proxies before real servers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import ClassifyError, Client
from tests.conftest import REPOSITORY
from tests.manifests import DEPLOY, needs
from tests.proxies import endpoint, envoy_command, free_port, port_of, running
from tests.server_process import ServerProcess, wait_until

EXAMPLE = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()


@contextlib.contextmanager
def haproxy(folder: Path, servers: list[ServerProcess]) -> Iterator[str]:
    """HAProxy with our settings, but for its own port and the servers behind it; yields its address."""
    port = free_port()
    lines = (
        (DEPLOY / "proxies" / "haproxy.cfg").read_text().replace("bind :9001", f"bind 127.0.0.1:{port}").splitlines()
    )
    (template,) = [line for line in lines if "server-template" in line]
    options = template.split("8001 ")[1].removesuffix(" resolvers cluster init-addr none")
    backends = [
        f"    server {n} {s.grpc_address} {options.replace('port 8002', f'port {port_of(s.ops_url)}')}"
        for n, s in enumerate(servers)
    ]
    config = folder / "haproxy.cfg"
    config.write_text("\n".join([*(line for line in lines if line != template), *backends, ""]))
    with running([needs("haproxy"), "-db", "-f", str(config)]):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def envoy(folder: Path, servers: list[ServerProcess]) -> Iterator[str]:
    """Envoy likewise."""
    yaml = pytest.importorskip("yaml")
    port = free_port()
    config = yaml.safe_load((DEPLOY / "proxies" / "envoy.yaml").read_text())
    listener, cluster = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [endpoint(s.grpc_address) for s in servers]
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    with running([*envoy_command(), "-c", str(folder / "envoy.yaml")]):
        yield f"127.0.0.1:{port}"


class Load:
    """Four callers who ask again and again and never try twice; counts what they get."""

    def __init__(self, address: str):
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._client = Client(address, max_attempts=1)
        wait_until(self._is_answered)
        self._callers = [threading.Thread(target=self._call) for _ in range(4)]

    def _is_answered(self) -> bool:
        with contextlib.suppress(ClassifyError):
            return self._client.classify(EXAMPLE).digit == 7
        return False

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                assert self._client.classify(EXAMPLE).digit == 7
                self.answered += 1
            except ClassifyError as error:
                self.failures.append(str(error))

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()
        self._client.close()

    def goes_on(self) -> None:
        """Wait for two hundred more answers."""
        target = self.answered + 200
        wait_until(lambda: self.answered >= target)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", [haproxy, envoy])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_call_is_lost_when_a_server_ends(proxy: Any, end: signal.Signals, tmp_path: Path) -> None:
    with ServerProcess("--drain-delay-s", "3") as leaving, ServerProcess() as staying:
        with proxy(tmp_path, [leaving, staying]) as address, Load(address) as load:
            load.goes_on()
            for server in (leaving, staying):
                assert server.metric("grpc_server_handled_total", grpc_method="Classify", grpc_code="OK") > 20
            leaving.stop(end)
            load.goes_on()
        assert load.failures == []


@pytest.mark.parametrize("proxy", [haproxy, envoy])
def test_streams_and_errors_pass_unchanged(proxy: Any, tmp_path: Path) -> None:
    with ServerProcess() as server, proxy(tmp_path, [server]) as address:
        with Load(address) as load:
            load.goes_on()
        with Client(address) as client:
            results = list(client.classify_stream([EXAMPLE, b"no picture", EXAMPLE]))
            assert [isinstance(result, ClassifyError) for result in results] == [False, True, False]
            with pytest.raises(ClassifyError, match="INVALID_ARGUMENT"):
                client.classify(b"no picture")
            assert client.model().name == "digits"
