"""The dashboard, the rules and the alerts, by Prometheus itself, over the metrics of a server that answers."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import digits_pb2, digits_pb2_grpc
from service.client import ClassifyError, Client
from tests.conftest import REPOSITORY
from tests.manifests import DEPLOY, needs, one, render
from tests.server_process import ServerProcess

MONITORING = DEPLOY / "components" / "monitoring"
EXAMPLES = sorted((REPOSITORY / "service" / "examples").glob("*.png"))
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "30s", "$namespace": ".*", "$pod": ".*"}


def write_rules(folder: Path) -> dict[str, Any]:
    """Write what the operator would give to Prometheus as folder/rules.yml; returns it."""
    yaml = pytest.importorskip("yaml")
    rules: dict[str, Any] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    return rules


def alerts(rules: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]


def dashboard_queries() -> list[tuple[str, str]]:
    """Title and expression of every query of the dashboard."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    queries = []
    for panel in panels:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            queries.append((panel["title"], expression))
    return queries


class Prometheus:
    """A Prometheus that scrapes one server every second, with the rules."""

    def __init__(self, folder: Path, target: str):
        write_rules(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "digitserve", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        data, listen = f"--storage.tsdb.path={folder}/data", f"--web.listen-address={self._address}"
        command = [needs("prometheus"), f"--config.file={folder}/prometheus.yml", data, listen, "--log.level=error"]
        self.process = subprocess.Popen(command)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; none while Prometheus is not there yet."""
        url = f"http://{self._address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                result: list[dict[str, Any]] = json.load(response)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return []
            raise AssertionError(error.read().decode()) from None
        except urllib.error.URLError:
            return []


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes a server that has been asked everything: good images, bad ones, late ones, over gRPC and HTTP."""
    folder = tmp_path_factory.mktemp("prometheus")
    with ServerProcess() as server, Client(server.grpc_address) as client:
        prometheus = Prometheus(folder, server.ops_url.removeprefix("http://"))
        try:
            # Counters have to grow between two scrapes, and the rules are evaluated in their own time: what is still
            # without an answer in the end is for the tests to say.
            silent = [expression for _, expression in dashboard_queries() if "nv_gpu" not in expression]
            for _ in range(60):
                ask_everything(server, client)
                silent = [expression for expression in silent if not prometheus.query(expression)]
                if not silent:
                    break
                time.sleep(0.5)
            yield prometheus
        finally:
            prometheus.process.terminate()
            prometheus.process.wait()


def ask_everything(server: ServerProcess, client: Client) -> None:
    for path in EXAMPLES:
        client.classify(path)
    with contextlib.suppress(ClassifyError):
        client.classify(b"no picture")
    list(client.classify_stream(EXAMPLES))
    with grpc.insecure_channel(server.grpc_address) as channel:
        blank = digits_pb2.ClassifyRequest(format=digits_pb2.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
        digits_pb2_grpc.DigitClassifierStub(channel).Classify(blank)
    for body in (EXAMPLES[0].read_bytes(), b"no picture"):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.http_url}/v1/classify", data=body, timeout=10).close()


@pytest.mark.parametrize(("title", "expression"), dashboard_queries())
def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus, title: str, expression: str) -> None:
    if "nv_gpu" in expression:
        # Without a GPU there is nothing to show; that it can be asked shows all the same.
        assert prometheus.query(expression) == []
        return
    samples = prometheus.query(expression)
    assert samples, expression
    assert all(sample["value"][1] != "NaN" for sample in samples) or "quantile" in expression


def test_the_dashboard_shows_what_happened(prometheus: Prometheus) -> None:
    queries = dict(dashboard_queries())
    assert [s["value"][1] for s in prometheus.query(queries["Servers ready"])] == ["1"]
    digits = {s["metric"]["digit"]: float(s["value"][1]) for s in prometheus.query(queries["Answers by digit"])}
    assert sum(digits.values()) == pytest.approx(1) and len(digits) == 10
    assert {s["metric"]["reason"] for s in prometheus.query(queries["Rejected"])} >= {"blank"}
    (runs_on,) = prometheus.query(queries["Runs on"])
    assert runs_on["metric"]["got"] == "CPUExecutionProvider"


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    failed = prometheus.query("prometheus_rule_evaluation_failures_total > 0")
    assert failed == []


def test_no_panel_takes_health_checks_for_calls_or_streams_for_slow_ones() -> None:
    for title, expression in dashboard_queries():
        for selector in re.findall(r"grpc_server_\w+\{(.*?)\}", expression):
            assert 'grpc_service=~"digits.v1.DigitClassifier|inference.GRPCInferenceService"' in selector, title
            assert "handling_seconds" not in expression or 'grpc_type="unary"' in selector, title


def test_every_panel_lies_beside_the_others() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells and max(x for x, _ in covered) < 24, panel["title"]
        cells |= covered


def test_the_alerts_fire_on_what_they_are_for(tmp_path: Path) -> None:
    promtool = needs("promtool")
    rules = write_rules(tmp_path)
    tests = shutil.copy(MONITORING / "rules.test.yaml", tmp_path)
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts", Path(tests).read_text()))
    assert tested == {rule["alert"] for rule in alerts(rules)}


def test_every_alert_has_an_entry_in_the_runbook(tmp_path: Path) -> None:
    headings = re.findall(r"^## (\w+)$", (REPOSITORY / "docs" / "runbook.md").read_text(), re.MULTILINE)
    named = {rule["alert"]: rule["annotations"]["runbook"] for rule in alerts(write_rules(tmp_path))}
    assert named == {heading: f"docs/runbook.md#{heading.lower()}" for heading in headings}


def test_the_dashboard_travels_as_grafana_looks_for_it() -> None:
    config = one(render("overlays/monitoring"), "ConfigMap", "digitserve-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["digitserve.json"])["uid"] == "digitserve"
