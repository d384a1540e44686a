"""The import rules of the house, read off the syntax trees."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.import_rules import MAY_IMPORT, ONLY_IN

OURS = ("service", "model_export", "protos", "tests")
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


# Every module of the service by its name, which no other has, whatever folder it lies in.
SERVICE = {path.stem: path for path in modules("service") if path.stem != "__init__"}


def module_of(dotted: str) -> str:
    """The module of the service in a dotted name, "ink" of service.pictures.ink.taken_from; of others the package."""
    parts = dotted.split(".")
    if parts[0] != "service":
        return parts[0]
    files = (REPOSITORY.joinpath(*parts[:length]).with_suffix(".py") for length in range(2, len(parts) + 1))
    # service.client.Client is client's: a folder that offers what its module of the same name has.
    return next((file.stem for file in files if file.exists()), parts[1])


def test_the_rules_name_every_module_of_the_service() -> None:
    assert SERVICE.keys() == MAY_IMPORT.keys() | {"server"}
    assert len(SERVICE) == len([path for path in modules("service") if path.stem != "__init__"])


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_service_imports_point_down(module: str) -> None:
    found = {module_of(name) for name in imports(SERVICE[module]) if name.split(".")[0] in OURS}
    assert found <= MAY_IMPORT[module]


def room_of(path: Path) -> str:
    """The folder of the service that a module lies in, or its own name where it lies in none."""
    return path.parent.name if path.parent.name != "service" else path.stem


def test_the_folders_of_the_service_import_each_other_one_way() -> None:
    rooms: dict[str, set[str]] = {}
    for path in SERVICE.values():
        ours = {module_of(name) for name in imports(path) if name.split(".")[0] == "service"}
        rooms.setdefault(room_of(path), set()).update(room_of(SERVICE[name]) for name in ours)
    order = graphlib.TopologicalSorter({room: below - {room} for room, below in rooms.items()})
    assert {"pictures", "runs", "model", "over_grpc"} <= set(order.static_order())


def reached_at_start(module: str) -> set[str]:
    """Every library and module that importing a module of the service imports, save for types only."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        reached.add(current := waiting.pop())
        tree = ast.parse(SERVICE[current].read_text())
        for node in tree.body:
            names = {f"{node.module}.{a.name}" for a in node.names} if isinstance(node, ast.ImportFrom) else set()
            names |= {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            waiting |= {module_of(name) for name in names if name.startswith("service.")} - reached
            reached |= {name.split(".")[0] for name in names} - {"service"}
    return reached


def test_the_supervisor_holds_nothing_of_grpc() -> None:
    """P5: whoever starts processes must have no threads and locks of gRPC; nor does it load a model's libraries."""
    reached = reached_at_start("supervisor")
    assert "worker_process" in reached and "aiohttp" in reached
    assert not reached & {"grpc", "grpc_health", "numpy", "onnxruntime", "protos"}
    assert "grpc" in reached_at_start("worker")


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
