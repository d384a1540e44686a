"""The real `digitserve serve` as a process of its own, on free ports."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

COMMAND = Path(sys.executable).parent / "digitserve"


def wait_until(condition: Callable[[], bool], patience_s: float = 60) -> None:
    """Return when a condition holds, which the server brings about a moment after its caller is gone."""
    for _ in range(round(patience_s / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("what was waited for did not happen")


class ServerProcess:
    """A running server; leaving its context stops it with SIGTERM.

    Attributes:
        grpc_address: host:port of gRPC.
        http_url: Of the HTTP port, without a path.
        ops_url: Of the operations port, without a path.
        welcome: What the command printed when it was ready.
    """

    def __init__(
        self,
        *flags: str,
        command: Path = COMMAND,
        cpus: str | None = None,
        tls: ssl.SSLContext | None = None,
        token: str = "",
    ):
        """Start with these flags, on these cores only ("0" or "0,1"), and wait until it is ready.

        `get` and `metric` speak TLS and show a token, if it wants that. Its transport is grpcio, whatever is
        installed, unless the flags name another.
        """
        self._tls = tls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        pinned = ["taskset", "-c", cpus] if cpus else []
        free_ports = ("--grpc-port", "0", "--http-port", "0", "--ops-port", "0")
        # No pipe: once full, at 64 kB, it would hold up a server that is saying why it ends.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`stop` closes it)
        self.process = subprocess.Popen(
            [*pinned, command, "serve", *free_ports, "--transport", "grpcio", *flags],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("{"):
                break
            if line.startswith("Classify a digit"):
                lines.append(self.process.stdout.readline())
                break
        self.welcome = "".join(lines)
        if self.welcome.startswith("{"):
            said = json.loads(self.welcome)
            self.grpc_address, self.http_url, self.ops_url = said["grpc"], said["http"], said["operations"]
            return
        ports = re.search(r"gRPC +(\S+)\n +HTTP +(https?://[^/]+)\S*\n +operations +(https?://[^/]+)", self.welcome)
        if not ports:
            raise AssertionError(f"the server did not start: {self.welcome}{self.stop(signal.SIGKILL)[1]}")
        self.grpc_address, self.http_url, self.ops_url = ports.groups()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(signum)

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout_s: float = 60) -> tuple[int, str]:
        """Stop it with a signal if it still runs; returns its exit code and what it wrote to stderr."""
        if self.process.poll() is None:
            self.send(signum)
        self.process.communicate(timeout=timeout_s)
        if not self._stderr.closed:
            with self._stderr:
                self._stderr.seek(0)
                self._written = self._stderr.read()
        return self.process.returncode, self._written

    def get(self, url: str) -> str:
        """The body of a GET."""
        request = urllib.request.Request(url, headers=self._headers)
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as response:
            body: bytes = response.read()
        return body.decode()

    def metric(self, name: str, /, **labels: str) -> float:
        """The value of a sample of /metrics; 0 for one that does not exist yet."""
        families = text_string_to_metric_families(self.get(f"{self.ops_url}/metrics"))
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
