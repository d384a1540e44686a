"""What the service is made of, and what its code never does: S9 and the parts of S11 that a test can hold to."""

from __future__ import annotations

import ast
import http.server
import json
import re
import subprocess
import sys
import threading
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.environments import environment

# The tests run the examples of the documentation, which is what `exec` is for.
PACKAGES = ("service", "model_export", "protos", "deploy", "requirements")
CODE = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
# They run what they read.
DANGEROUS_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
DANGEROUS_CALLS = {"eval", "exec", "os.system", "os.popen", "torch.jit.load", "torch.export.load"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}


def offences(code: str) -> list[str]:
    """What some code does that could run what somebody else wrote."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.asname and alias.name in DANGEROUS_MODULES]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in DANGEROUS_MODULES:
            # The name of an error harms nobody.
            found += [] if node.attr.endswith("Error") else [ast.unparse(node)]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in DANGEROUS_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
            if (
                name in DANGEROUS_CALLS
                or given.get("shell", "False") != "False"
                or given.get("allow_pickle", "False") != "False"
                or (name == "torch.load" and given.get("weights_only") != "True")
                or (name == "yaml.load" and given.get("Loader", "").split(".")[-1] not in SAFE_LOADERS)
                or name in ("yaml.unsafe_load", "yaml.full_load")
            ):
                found.append(f"{name}({', '.join(f'{key}={value}' for key, value in given.items())})")
    return found


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_s9_nothing_runs_what_it_reads(path: Path) -> None:
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle as p",
        "load = pickle.load",
        "from joblib import load",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=wanted)",
        "os.system(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.export.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
    ],
)
def test_s9_the_look_finds_each_kind(code: str) -> None:
    assert len(offences(code)) == 1


@pytest.mark.parametrize(
    "code", ["torch.load(path, weights_only=True)", "yaml.safe_load(text)", "yaml.load(text, Loader=yaml.CSafeLoader)"]
)
def test_s9_and_lets_go_what_is_safe(code: str) -> None:
    assert offences(code) == []


def test_s9_torch_is_not_among_what_serves_and_new_enough_where_it_trains() -> None:
    for name in ("serve-cpu.txt", "serve-gpu.txt"):
        assert "torch" not in pins(name)
    version = re.search(r"^torch==(\d+)\.(\d+)", (REPOSITORY / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    assert version and tuple(map(int, version.groups())) >= (2, 10)


def pins(name: str) -> dict[str, str]:
    """Packages of a file of requirements, with the text that pins each."""
    text = re.sub(r"^#.*\n", "", (REPOSITORY / "requirements" / name).read_text(), flags=re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip())
    return {re.split(r"[=\[ ]", entry)[0]: entry for entry in entries}


@pytest.mark.parametrize("name", ["serve-cpu.txt", "serve-gpu.txt"])
def test_s11_every_wheel_that_serves_is_pinned_by_its_hash(name: str) -> None:
    found = pins(name)
    assert len(found) > 15
    for package, entry in found.items():
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", entry), package


def test_s11_the_image_and_make_install_nothing_without_its_hash() -> None:
    dockerfile, makefile = ((REPOSITORY / name).read_text() for name in ("Dockerfile", "Makefile"))
    installs = re.findall(r"pip .* install .*", dockerfile)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0] and "--only-binary :all:" in installs[0] and "--no-deps" in installs[1]
    served = re.findall(r"\$\(SERVE\)/bin/python \$\(PIP\) install .*", makefile)
    assert len(served) == 2
    assert "--require-hashes" in served[0] and "--no-deps" in served[1]


@pytest.mark.slow
def test_s11_the_bill_of_materials_lists_everything_that_is_installed(tmp_path: Path) -> None:
    command = environment("sbom") / "cyclonedx-py"
    out = tmp_path / "bom.json"
    subprocess.run([command, "environment", "--output-reproducible", "-o", out, sys.executable], check=True)
    bom = json.loads(out.read_text())
    listed = {(plain(each["name"]), each["version"]) for each in bom["components"]}
    assert bom["bomFormat"] == "CycloneDX"
    assert {(plain(each.name), each.version) for each in distributions()} <= listed


class Weaknesses(http.server.BaseHTTPRequestHandler):
    """osv.dev, as far as pip-audit asks it; it knows of one, in Pillow."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"]))).get("package", {})
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}]
        known = {"id": "OSV-1", "modified": "2026-01-01T00:00:00Z", "affected": [{"package": asked, "ranges": ranges}]}
        answer = json.dumps({"vulns": [known]} if asked.get("name") == "pillow" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.mark.slow
def test_s11_known_weaknesses_are_looked_up_or_it_is_said_that_they_were_not() -> None:
    environment("audit")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Weaknesses)
    command = ["make", "audit", f"OSV=http://127.0.0.1:{server.server_port}/v1/query"]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert found.returncode and re.search(r"^pillow .* OSV-1 ", found.stdout, re.MULTILINE), found.stderr
    alone = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert alone.returncode and "nothing was looked up" in alone.stderr


def plain(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
