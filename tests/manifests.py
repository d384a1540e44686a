"""What `kubectl kustomize` makes of the folders in deploy/, read; and which schemas hold it to what."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
CRDS = REPOSITORY.parent / "shared" / "data" / "crds"
Manifest = dict[str, Any]


def needs(command: str) -> str:
    """The path of a command; skips the test where it is not installed."""
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not installed")
    return path


@functools.cache
def render(folder: str) -> list[Manifest]:
    """The resources of a folder below deploy/; skips the test where kubectl is missing."""
    yaml = pytest.importorskip("yaml")
    rendered = subprocess.run(
        [needs("kubectl"), "kustomize", DEPLOY / folder], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(rendered.stdout))


def one(resources: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one resource of a kind, or of a kind and a name."""
    (found,) = [r for r in resources if r["kind"] == kind and name in ("", r["metadata"]["name"])]
    return found


def custom_schema(resource: Manifest) -> Any:
    """The schema of a custom resource; skips the test where the schemas are not at hand."""
    group, version = resource["apiVersion"].split("/")
    path = CRDS / f"{group}_{resource['kind'].lower()}_{version}.json"
    if not CRDS.is_dir():
        pytest.skip(f"the schemas of custom resources are not at {CRDS}")
    return json.loads(path.read_text())
