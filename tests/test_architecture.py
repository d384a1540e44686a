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
    "__main__": {
        "bulk",
        "classify",
        "client",
        "client_flags",
        "errors",
        "explain",
        "logs",
        "server",
        "settings",
        "signals",
    },
    "batching": {"errors", "queueing", "threads"},
    "bound_runs": set(),
    "bulk": {"classify", "client", "errors"},
    "calls": {"errors"},
    "classify": {"client", "errors"},
    "classifier": {"convention", "decoding", "errors", "images", "judging", "queueing", "statistics", "versions"},
    "client": {"client_channel", "client_explanation", "client_messages", "client_stream", "protos"},
    "client_channel": set(),
    "client_explanation": {"client_messages", "protos"},
    "client_flags": {"client_channel", "errors"},
    "client_messages": {"protos"},
    "client_stream": {"client_messages", "protos"},
    "convention": {"steps"},
    "decoding": {"errors", "images"},
    "devices": set(),
    "digits": {"calls", "classifier", "errors", "explain_messages", "explaining", "protos", "versions"},
    "envelope": {"errors"},
    "doors": {"errors", "layers", "versions"},
    "drawing": set(),
    "drawing_details": {"client_explanation", "drawing", "drawing_flow"},
    "drawing_flow": {"client_explanation", "drawing"},
    "errors": set(),
    "explain": {"classify", "client", "client_channel", "drawing", "drawing_details", "drawing_flow", "errors"},
    "explain_json": {"explaining", "layers"},
    "explain_messages": {"explaining", "layers", "protos"},
    "explaining": {"classifier", "errors", "images", "layers", "occlusion", "steps", "versions"},
    "filters": set(),
    "gpu_metrics": set(),
    "grpc_admission": {"request_log", "security"},
    "grpcio_options": {"settings"},
    "http_admission": {"security"},
    "http_connections": set(),
    "images": {"convention", "envelope", "errors", "ink", "steps"},
    "inference": {
        "classifier",
        "doors",
        "errors",
        "explaining",
        "judging",
        "loading",
        "model_config",
        "outputs",
        "protos",
        "tensors",
        "versions",
    },
    "inference_calls": {"calls", "errors", "inference", "protos"},
    "ink": {"filters", "parts", "rules", "steps"},
    "interceptors": {"errors", "request_log"},
    "judging": set(),
    "layers": {"errors", "protos"},
    "loading": {"errors", "repository", "versions"},
    "logs": set(),
    "manifest": {"errors"},
    "metrics": {"tallies"},
    "model_config": {"devices", "doors", "protos", "queueing", "repository", "statistics", "versions"},
    "occlusion": {"images"},
    "operations": set(),
    "outputs": {"classifier", "doors", "errors", "explaining", "protos", "tensors"},
    "page": {"versions"},
    "parts": set(),
    "ports": {"errors"},
    "readiness": set(),
    "queueing": {"errors"},
    "recovery": {"errors"},
    "reflection": set(),
    "repository": {"errors", "manifest"},
    "request_log": {"logs"},
    "rest": {"errors", "inference", "protos", "rest_tensors"},
    "rest_tensors": {"errors", "protos", "tensors"},
    "rules": {"parts"},
    "runtime": {"bound_runs", "devices", "errors"},
    "security": {"errors"},
    "setting_checks": set(),
    "settings": {"errors", "setting_checks"},
    "signals": set(),
    "steps": set(),
    "statistics": {"batching"},
    "tallies": set(),
    "tensors": {"errors", "judging", "protos"},
    "threads": set(),
    "transport": {"errors"},
    "trial": {"errors", "runtime"},
    "triton_metrics": {"statistics", "versions"},
    "versions": {"batching", "errors", "judging", "repository", "statistics"},
    "web": {
        "classifier",
        "errors",
        "explain_json",
        "explaining",
        "http_connections",
        "inference",
        "request_log",
        "rest",
    },
}
# Who may import what of others: one file for each, the client being a program of its own.
ONLY_IN = {
    "onnxruntime": {"runtime"},
    "PIL": {"client_messages", "convention", "images", "steps"},
    "prometheus_client": {"metrics", "tallies"},
    "pynvml": {"gpu_metrics"},
    "grpc": {
        "__main__",
        "calls",
        "client",
        "client_channel",
        "client_messages",
        "digits",
        "grpc_admission",
        "inference_calls",
        "interceptors",
        "ports",
        "reflection",
        "server",
        "transport",
    },
    "pygrpc_native": {"transport"},
    "grpc_reflection": {"reflection"},
    "grpc_health": {"__main__", "readiness", "server"},
    "aiohttp": {"http_admission", "http_connections", "operations", "page", "ports", "rest", "server", "web"},
    "torch": set(),
    "onnx": set(),
    "matplotlib": {"drawing", "drawing_flow"},
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


def files_by_name(package: str) -> dict[str, Path]:
    """The modules of a package by their dotted names: "model_export.judging.pictures"."""
    return {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in modules(package)}


def reached_from(module: str) -> dict[str, Path]:
    """The modules of model_export that one of them imports, directly or through others; itself included."""
    known = files_by_name("model_export")
    reached, waiting = set(), {module}
    while waiting:
        reached.add(current := waiting.pop())
        # What is imported may be a module or something in one.
        names = {known_name for name in imports(known[current]) for known_name in (name, name.rpartition(".")[0])}
        waiting |= (names & known.keys()) - reached
    return {name: known[name] for name in reached}


def mentioned(tree: ast.AST) -> set[str]:
    """Every name, attribute, import and whole text in some code; not the names of what it defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names |= {*node.name.split(".")}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {*node.module.split(".")}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names


def test_what_shapes_a_model_reads_nothing_that_judges_it() -> None:
    """Neither MNIST's test images nor load_digits, the synthetic pictures or the non-digits are within its reach."""
    judges = {"load_test_images", "load_digits", "sklearn"}
    shaping, judging = reached_from("model_export.train"), reached_from("model_export.judging.evaluate")
    assert "model_export.scribbles" in shaping
    assert not [name for name in shaping if name.startswith(("model_export.judging", "model_export.report"))]
    for name, path in shaping.items():
        by_another_way = set() if name == "model_export.data" else {"_load", "t10k"}
        assert not mentioned(ast.parse(path.read_text())) & (judges | by_another_way), name
    step = next(
        node
        for node in ast.parse((REPOSITORY / "model_export" / "command.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "_train"
    )
    assert not mentioned(step) & judges
    # The same look finds all of them where they are allowed.
    assert {f"model_export.judging.{name}" for name in ("pictures", "non_digits", "digit_sets")} <= judging.keys()
    assert judges <= set().union(*(mentioned(ast.parse(path.read_text())) for path in judging.values()))


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
