"""What `make e2e` checks, with the image and its base in podman's store: checks.py WORK-FOLDER BASE-IMAGE."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from containers import DEPLOY, IMAGE, SERVICE, Podman, render, wait_for, wait_until_ready
from scraping import Prometheus, dashboard_queries

SIZE_LIMIT_MB = 190
GRACE_S = "40"
# As load.py has them on each way: as many calls are under way.
CALLERS = 2


class Table:
    """What was checked, and how it went."""

    def __init__(self) -> None:
        """Empty."""
        self.rows: list[tuple[str, str, str]] = []

    def __call__(self, what: str, passed: bool, seen: object) -> None:
        """Add a line."""
        self.rows.append((what, "ok" if passed else "FAILED", str(seen)))
        print(f"{self.rows[-1][1]:7} {what}: {seen}", flush=True)

    def show(self) -> None:
        """Print all of it."""
        width = max((len(what) for what, _, _ in self.rows), default=0)
        print("\n" + "\n".join(f"{what:{width}}  {result:6}  {seen}" for what, result, seen in self.rows))


def start_load(podman: Podman) -> None:
    """Start calling along every way there is."""
    ways = {"DNS, without retries": f"dns:///{SERVICE}:8001=1", "DNS, with retries": f"dns:///{SERVICE}:8001=5"}
    ways |= {proxy: f"{proxy}:9001=1" for proxy in ("haproxy", "envoy")}
    script = DEPLOY / "e2e" / "load.py"
    arguments = [f"{name}={target}" for name, target in ways.items()]
    podman.run("load", "-v", f"{script}:/load.py:ro", "--entrypoint", "python", IMAGE, "/load.py", *arguments)


def stop_load(podman: Podman) -> dict[str, dict[str, int]]:
    """End the calls; returns what became of them, by way."""
    podman("stop", "-t", "30", "load")
    outcomes: dict[str, dict[str, int]] = json.loads(podman("logs", "load").splitlines()[-1])
    podman("rm", "load")
    return outcomes


def check_losses(podman: Podman, check: Table, what: str, allowed: dict[str, int] | None = None) -> None:
    """End the calls, and see for each way how many were lost."""
    for way, counts in stop_load(podman).items():
        lost = {outcome: count for outcome, count in counts.items() if outcome != "ok"}
        passed = counts.get("ok", 0) > 50 and sum(lost.values()) <= (allowed or {}).get(way, 0)
        check(f"{what}: {way}", passed, f"{sum(lost.values())} of {sum(counts.values())} lost {lost or ''}")


def check_image(podman: Podman, check: Table, base: str) -> None:
    """Size, user and what is in it."""
    sizes = [int(podman("image", "inspect", "-f", "{{.Size}}", name)) for name in (IMAGE, base)]
    over = (sizes[0] - sizes[1]) / 1e6
    check("image, over its base", over <= SIZE_LIMIT_MB, f"{over:.0f} MB of at most {SIZE_LIMIT_MB}")
    config = json.loads(podman("image", "inspect", IMAGE))[0]["Config"]
    labels = {key.rsplit(".", 1)[1]: value for key, value in config["Labels"].items()}
    named = f"user {config['User']}, version {labels['version']}, commit {labels['revision'][:10]}"
    check("image, user and labels", config["User"] == "65532:65532" and "unknown" not in named, named)
    search = "command -v pip gcc cc; for name in pip torch; do python -c import\\ $name 2>/dev/null && echo $name; done"
    once = ("run", "--rm", "--no-healthcheck", "--network", "none", "--entrypoint", "sh", IMAGE, "-c")
    found = podman(*once, f"{search}; true")
    check("image, no pip, compiler, torch", not found, found or "none")
    hadolint = subprocess.run(["hadolint", DEPLOY.parent / "Dockerfile"], capture_output=True, text=True)
    check("hadolint", hadolint.returncode == 0, hadolint.stdout or "clean")


def check_hardened(podman: Podman, check: Table) -> None:
    """Read-only, without capabilities, with half a CPU and 256 MiB."""
    began = time.monotonic()
    podman.run("hardened", "--cpus", "0.5", "--memory", "256m", "-e", "DIGITSERVE_DRAIN_DELAY_S=1", IMAGE)
    wait_until_ready(podman.address_of("hardened"))
    check("half a CPU, start to ready", True, f"{time.monotonic() - began:.1f} s")
    check("its health check", podman("exec", "hardened", "digitserve", "healthcheck") == "SERVING", "SERVING")
    inside = podman("exec", "hardened", "sh", "-c", "touch /x 2>&1; grep CapEff /proc/1/status")
    check("its root and capabilities", "Read-only" in inside and inside.endswith("0" * 16), inside.replace("\n", "; "))
    before = throttled(podman, "hardened")
    time.sleep(20)
    times = throttled(podman, "hardened") - before
    check("throttled in 20 s at idle", times == 0, f"{times} times")
    podman("stop", "-t", GRACE_S, "hardened")
    code = podman("inspect", "-f", "{{.State.ExitCode}}", "hardened")
    check("SIGTERM ends it", code == "0", f"exit code {code}")
    podman("rm", "hardened")


def throttled(podman: Podman, container: str) -> int:
    """How often the container was stopped at its CPU limit."""
    files = "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null; true"
    lines = podman("exec", container, "sh", "-c", files).splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("nr_throttled"))


def check_kserve(podman: Podman, check: Table) -> None:
    """The runtime's arguments, with the name and the model where KServe puts them."""
    (runtime,) = [resource for resource in render("kserve") if resource["kind"] == "ServingRuntime"]
    arguments = [text.replace("{{.Name}}", "numbers") for text in runtime["spec"]["containers"][0]["args"]]
    models = DEPLOY.parent / "models" / "digits"
    for layout, folder in (("<version>/model.onnx", models), ("model.onnx", models / "1")):
        podman.run("kserve", "-v", f"{folder}:/mnt/models:ro", IMAGE, *arguments)
        address = podman.address_of("kserve")
        seconds = wait_until_ready(address)
        with urllib.request.urlopen(f"http://{address}:8000/v2/models/numbers", timeout=10) as response:
            name = json.load(response)["name"]
        check(f"KServe: /mnt/models with {layout}", name == "numbers", f"{name} is ready after {seconds:.1f} s")
        podman("rm", "-f", "-t", "10", "kserve")


@contextlib.contextmanager
def proxies(podman: Podman) -> Iterator[None]:
    """HAProxy and Envoy of this machine, in containers of the network, with the settings as they are shipped."""
    commands = {
        "haproxy": ["haproxy", "-db", "-f", str(DEPLOY / "proxies" / "haproxy.cfg")],
        "envoy": [shutil.which("envoy") or "envoy", "-c", str(DEPLOY / "proxies" / "envoy.yaml"), "--concurrency", "1"],
    }
    for name, command in commands.items():
        podman.run_of_this_machine(name, *command)
    yield
    for name in commands:
        (podman.work / f"{name}.log").write_text(podman.logs(name))
    podman("rm", "-f", "-t", "5", *commands)


def check_pods(podman: Podman, check: Table) -> None:
    """The Deployment played twice: load, a roll, a kill, what Prometheus sees, the end; meanwhile, the image alone."""
    pods = podman.play("digitserve", 2)
    chosen = next(line for line in podman.logs("digitserve-pod-0-digitserve").splitlines() if "cores: " in line)
    chosen = chosen[chosen.index("cores: ") :]
    check("500m: one worker, one thread", "group 0.5)" in chosen and "1 x 1 for the model, 1 x 1" in chosen, chosen)
    prometheus = Prometheus(podman.work, pods)
    with contextlib.closing(prometheus), proxies(podman):
        start_load(podman)
        time.sleep(15)
        samples = prometheus.query("sum by (pod) (digitserve_predictions_total)")
        split = {sample["metric"]["pod"]: int(sample["value"][1]) for sample in samples}
        check("both pods answer", len(split) == 2 and min(split.values()) > sum(split.values()) / 4, split)
        queries = dashboard_queries()
        empty = [query for query in queries if not prometheus.query(query)]
        check("dashboard's queries", not empty, f"{len(queries) - len(empty)} of {len(queries)} answered {empty or ''}")
        peak = podman("exec", "digitserve-pod-0-digitserve", "grep", "VmHWM", "/proc/1/status").split()[1]
        check("memory under load", int(peak) < 256_000, f"{int(peak) / 1000:.0f} MB at most, of 256 MiB")
        check_losses(podman, check, "steady")

        start_load(podman)
        time.sleep(3)
        podman.play("digitserve-next", 1)
        # The proxies look for new addresses every five seconds.
        time.sleep(6)
        began = time.monotonic()
        # Of a pod that is stopped as a whole, podman takes the network away before the server has drained.
        podman("stop", "-t", GRACE_S, "digitserve-pod-0-digitserve")
        seconds = time.monotonic() - began
        podman.remove_pod("digitserve-pod-0")
        time.sleep(5)
        check("roll, the old pod left in time", seconds < int(GRACE_S), f"{seconds:.1f} s of {GRACE_S}")
        check_losses(podman, check, "roll")

        start_load(podman)
        time.sleep(8)
        podman("kill", "-s", "KILL", "digitserve-pod-1-digitserve")
        time.sleep(8)
        # What was under way on the pod that died, and no more.
        check_losses(podman, check, "kill", {"DNS, without retries": CALLERS})

        podman("stop", "-t", GRACE_S, "digitserve-next-pod-0-digitserve")
        code = podman("inspect", "-f", "{{.State.ExitCode}}", "digitserve-next-pod-0-digitserve")
        check("SIGTERM ends the last pod", code == "0", f"exit code {code}")
        began = time.monotonic()
        # The alert takes a minute, which the other checks need as well.
        check_hardened(podman, check)
        check_kserve(podman, check)
        firing = 'ALERTS{alertname="DigitserveNoReadyPod",alertstate="firing"}'
        wait_for(lambda: prometheus.query(firing), 150)
        check("alert DigitserveNoReadyPod", True, f"fires, after {time.monotonic() - began:.0f} s at most")


def main() -> None:
    """Check everything and print the table; exit code 1 if anything failed."""
    podman, check = Podman(Path(sys.argv[1])), Table()
    podman.clean_up()
    podman.open_networks()
    try:
        check_image(podman, check, base=sys.argv[2])
        check_pods(podman, check)
    finally:
        podman.clean_up()
        check.show()
    sys.exit(any(result != "ok" for _, result, _ in check.rows))


if __name__ == "__main__":
    main()
