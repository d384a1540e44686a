"""Generate `*_pb2*.py(i)` beside each .proto, or check that they are up to date.

Run by `make protos` and `make lint`, in an environment of its own: the
compiler is older than the runtime on purpose, since code generated for
protobuf 6 also runs with 7, and not the other way round.

The messages of grpc_service.proto get a descriptor pool of their own. Every
client of that protocol brings a copy of the file, and a process that loads a
second one into protobuf's default pool dies of "duplicate symbol".
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED_POOL, OWN_POOL = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"


def generate(destination: Path) -> list[Path]:
    """Run protoc over every .proto of this folder; returns the files made."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").glob("*.proto"))
    outputs = [f"--{kind}_out={destination}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    includes = [f"-I{ROOT}", f"-I{sysconfig.get_path('purelib')}"]
    # protoc looks for its mypy plug-in on the PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *protos]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    messages = destination / "protos" / "grpc_service_pb2.py"
    messages.write_text(messages.read_text().replace(SHARED_POOL, OWN_POOL))
    # protoc makes stubs of what has no calls, too: empty ones.
    callless = {Path(path).stem for path in protos if "\nservice " not in (ROOT / path).read_text()}
    made = sorted((destination / "protos").glob("*_pb2*"))
    return [path for path in made if path.name.partition("_pb2_grpc")[0] not in callless]


def main() -> None:
    """Generate in place, or with --check compare and exit with 1 on a difference."""
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
        targets = [ROOT / "protos" / path.name for path in made]
        if sys.argv[1:] != ["--check"]:
            for source, target in zip(made, targets, strict=True):
                shutil.copyfile(source, target)
            return
        stale = [
            target.name
            for source, target in zip(made, targets, strict=True)
            if not target.exists() or not filecmp.cmp(source, target, shallow=False)
        ]
    if stale:
        sys.exit(f"not what protoc makes of protos/*.proto: {', '.join(stale)}; run: make protos")


if __name__ == "__main__":
    main()
