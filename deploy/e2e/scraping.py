"""A Prometheus that scrapes the pods with the rules of the overlay monitoring."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from containers import DEPLOY, render

ADDRESS = "127.0.0.1:19390"
VARIABLES = {"$__rate_interval": "1m", "$namespace": "digitserve", "$pod": ".*"}


class Prometheus:
    """A process of its own; `close` ends it."""

    def __init__(self, work: Path, addresses: dict[str, str]):
        """Start it: every second, these pods."""
        (rule,) = [resource for resource in render("monitoring") if resource["kind"] == "PrometheusRule"]
        (work / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
        targets = [
            {"targets": [f"{address}:8002"], "labels": {"namespace": "digitserve", "pod": pod}}
            for pod, address in addresses.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "digitserve", "static_configs": targets}],
        }
        (work / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.rmtree(work / "data", ignore_errors=True)
        flags = [f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data", "--log.level=error"]
        self._process = subprocess.Popen(["prometheus", *flags, f"--web.listen-address={ADDRESS}"])

    def query(self, expression: str) -> list[Any]:
        """The samples of an instant query."""
        url = f"http://{ADDRESS}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=10) as response:
            return list(json.load(response)["data"]["result"])
        return []

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def dashboard_queries() -> list[str]:
    """The dashboard's queries that have an answer while all calls succeed, over gRPC, on CPUs, and are about digits."""
    panels = json.loads((DEPLOY / "components" / "monitoring" / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    for variable, value in VARIABLES.items():
        queries = [query.replace(variable, value) for query in queries]
    silent = ("http_requests", 'grpc_code!="OK"', "rejections_total{", "nv_gpu")
    return [query for query in queries if not any(word in query for word in silent)]
