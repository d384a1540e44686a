"""Containers and pods of podman, on a network where names lead to them as in a cluster."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent.parent
IMAGE = "localhost/digitserve:cpu"
# The name that the proxies' settings ask for.
SERVICE = "digitserve.digitserve.svc.cluster.local"
NETWORK = "digitserve-e2e"
NODES = "digitserve-e2e-nodes"
HARDENED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")


def wait_for(condition: Callable[[], Any], timeout_s: float) -> float:
    """Seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise SystemExit(f"nothing happened for {timeout_s} s")
        time.sleep(0.05)
    return time.monotonic() - began


def wait_until_ready(address: str) -> float:
    """Seconds until a server's operations port says that it is ready."""
    return wait_for(lambda: _is_ready(address), 60)


def _is_ready(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}:8002/readyz", timeout=2) as response:
        return bool(response.status == 200)
    return False


def render(overlay: str) -> list[dict[str, Any]]:
    """The resources of an overlay."""
    command = ["kubectl", "kustomize", str(DEPLOY / "overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True).stdout))


class Podman:
    """podman with a store of its own."""

    def __init__(self, work: Path):
        """Everything lies in this folder."""
        self.work = work
        # What names lead to, as dnsmasq reads it, and whom containers ask for them.
        self._hosts, self._resolv_conf = work / "hosts", work / "resolv.conf"
        store = ["--root", work / "store", "--runroot", work / "run", "--storage-driver", "overlay"]
        self._command = ["podman", *map(str, store)]

    def __call__(self, *arguments: str | Path, timeout_s: float = 120) -> str:
        """Run podman and return what it prints; ends everything if it fails."""
        done = self._run(*arguments, timeout_s=timeout_s)
        if done.returncode:
            raise SystemExit(f"podman {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout.strip()

    def _run(self, *arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        command = [*self._command, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)

    def open_networks(self) -> None:
        """Make the networks, and start the name server of the one that calls go over.

        It is not podman's own: when containers come and go, aardvark-dns 1.4 leaves queries unanswered, for 26 s once.
        podman is not told so, since the host has no address on an internal network without names.
        """
        for network in (NETWORK, NODES):
            self("network", "create", "--internal", network)
        self._hosts.write_text("")
        options = ["--keep-in-foreground", "--user=root", "--no-resolv", "--no-hosts", f"--addn-hosts={self._hosts}"]
        mount = f"{self._hosts}:{self._hosts}:ro"
        self("run", "-d", "--name", "dns", "--network", NETWORK, "-v", mount, "--rootfs", "/:O", "dnsmasq", *options)
        self._resolv_conf.write_text(f"nameserver {self.address_of('dns')}\n")

    def name(self, name: str, container: str) -> None:
        """Let a name lead to a container, too."""
        self._change_names(f"{self._hosts.read_text()}{self.address_of(container)} {name}\n")

    def _change_names(self, hosts: str) -> None:
        self._hosts.write_text(hosts)
        self("kill", "-s", "HUP", "dns")

    def logs(self, container: str) -> str:
        """What a container has written, of both kinds."""
        done = self._run("logs", container)
        return done.stdout + done.stderr

    def run(self, name: str, *arguments: str | Path) -> None:
        """Start a container on the network, hardened."""
        options = ["--name", name, "--pull", "never", "--no-healthcheck", *self._network(), *HARDENED]
        self("run", "-d", *options, *arguments)

    def run_of_this_machine(self, name: str, *command: str | Path) -> None:
        """Start a program of this machine in a container on the network, which its name leads to."""
        self("run", "-d", "--name", name, *self._network(), "--rootfs", "/:O", *command)
        self.name(name, name)

    def _network(self) -> tuple[str, ...]:
        return "--network", NETWORK, "-v", f"{self._resolv_conf}:/etc/resolv.conf:ro"

    def address_of(self, container: str, network: str = NETWORK) -> str:
        """A container's address on a network."""
        networks = json.loads(self("inspect", container))[0]["NetworkSettings"]["Networks"]
        address: str = networks[network]["IPAddress"]
        return address

    def play(self, name: str, replicas: int) -> dict[str, str]:
        """Play the Deployment of the overlay dev; returns the address of each pod.

        As in Kubernetes, the service's name leads to a pod only once it is ready: it joins that network then.
        """
        self("play", "kube", "--network", NODES, self._playable(name, replicas))
        addresses = {}
        for pod in (f"{name}-pod-{n}" for n in range(replicas)):
            infra = self("pod", "inspect", "-f", "{{.InfraContainerID}}", pod)
            addresses[pod] = self.address_of(infra, NODES)
            wait_until_ready(addresses[pod])
            self("network", "connect", NETWORK, infra)
            self.name(SERVICE, infra)
        return addresses

    def remove_pod(self, pod: str) -> None:
        """Remove a pod; the service's name leads there no more."""
        address = self.address_of(self("pod", "inspect", "-f", "{{.InfraContainerID}}", pod))
        lines = self._hosts.read_text().splitlines(keepends=True)
        self._change_names("".join(line for line in lines if line.split()[0] != address))
        self("pod", "rm", "-f", pod)

    def _playable(self, name: str, replicas: int) -> Path:
        """The Deployment as `podman play kube` takes it."""
        kept = [resource for resource in render("dev") if resource["kind"] in ("ConfigMap", "Deployment")]
        for resource in kept:
            del resource["metadata"]["namespace"]
        deployment = kept[-1]
        deployment["metadata"]["name"] = name
        deployment["spec"]["replicas"] = replicas
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        container |= {"image": IMAGE, "imagePullPolicy": "Never"}
        # podman would publish the ports on the host, knows no gRPC probes, and runs the others with curl inside.
        for key in ("ports", "startupProbe", "readinessProbe", "livenessProbe"):
            del container[key]
        path = self.work / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all(kept))
        return path

    def clean_up(self) -> None:
        """Leave no container and no network."""
        self._run("pod", "rm", "-f", "-a", "-t", "5")
        self._run("rm", "-f", "-a", "-t", "5")
        for network in (NETWORK, NODES):
            self._run("network", "rm", "-f", network)
