"""The import rules of the house, read off the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

OURS = ("service", "model_export", "protos", "tests")
# Which of our modules each module of the service may import; what is not named here fails.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"classify", "client", "errors", "server", "settings"},
    "batching": {"errors"},
    "classify": {"client", "errors"},
    "classifier": {"batching", "convention", "errors", "images", "repository"},
    "client": {"client_messages", "protos"},
    "client_messages": {"protos"},
    "convention": set(),
    "digits": {"classifier", "errors", "protos"},
    "errors": set(),
    "filters": set(),
    "images": {"convention", "errors", "ink"},
    "ink": {"filters", "parts", "rules"},
    "interceptors": {"errors"},
    "metrics": set(),
    "parts": set(),
    "repository": {"errors"},
    "rules": {"parts"},
    "runtime": {"errors"},
    "settings": {"errors"},
    "web": {"classifier", "errors"},
}
# Who may import what of others: one file for each, the client being a program of its own.
ONLY_IN = {
    "onnxruntime": {"runtime"},
    "PIL": {"client_messages", "convention", "images"},
    "prometheus_client": {"metrics"},
    "grpc": {"__main__", "client", "client_messages", "digits", "interceptors", "server"},
    "grpc_health": {"__main__", "server"},
    "aiohttp": {"server", "web"},
    "torch": set(),
    "onnx": set(),
    "matplotlib": set(),
    "scipy": set(),
    "cv2": set(),
    "sklearn": set(),
}
VAGUE_NAMES = {"utils", "util", "common", "base", "helpers", "helper", "manager", "misc"}


def modules(package: str) -> list[Path]:
    return [path for path in sorted((REPOSITORY / package).rglob("*.py")) if "_pb2" not in path.name]


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_rules_name_every_module_of_the_service() -> None:
    assert {path.stem for path in modules("service")} == MAY_IMPORT.keys() | {"server"}


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_service_imports_point_down(module: str) -> None:
    ours = [name.split(".") for name in imports(REPOSITORY / "service" / f"{module}.py") if name.split(".")[0] in OURS]
    found = {name[1] if name[0] == "service" else name[0] for name in ours}
    assert found <= MAY_IMPORT[module]


def test_service_and_model_export_do_not_know_each_other() -> None:
    for package, other in (("service", "model_export"), ("model_export", "service")):
        for path in modules(package):
            assert not {name for name in imports(path) if name.split(".")[0] in (other, "tests")}, path


def test_each_large_library_has_its_room() -> None:
    for path in modules("service"):
        for library in {name.split(".")[0] for name in imports(path)} & ONLY_IN.keys():
            assert path.stem in ONLY_IN[library], f"{path.name} imports {library}"


@pytest.mark.parametrize("package", ["service", "model_export"])
def test_nothing_happens_at_import(package: str) -> None:
    """The top level of a module holds definitions and constants; no call stands alone there."""
    for path in modules(package):
        for node in ast.parse(path.read_text()).body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert not isinstance(node, ast.Expr) or is_docstring, f"{path.name}:{node.lineno}"
            assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("package", ["service", "model_export", "tests"])
def test_files_are_short_and_named_for_what_they_hold(package: str) -> None:
    for path in modules(package):
        assert len(path.read_text().splitlines()) <= 300, path
        assert path.stem not in VAGUE_NAMES, path
