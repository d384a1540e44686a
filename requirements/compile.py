"""Pin the newest versions that pyproject.toml admits; run by `make requirements`.

serve-cpu.txt and serve-gpu.txt carry hashes: they are what the images and `make run` install.
dev.txt does not: PyTorch's CPU and CUDA builds have the same version and
different hashes. The packages that only the CUDA build needs are left out,
so that the file is right for both: pip adds them where they are wanted.
No file names the index the packages were found on.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_ADDRESSES = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
COMMON = ["--quiet", "--strip-extras", "--allow-unsafe", "--upgrade", "-c", "requirements/constraints.txt"]
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton==).*\n", re.MULTILINE)
LOCAL_BUILD = re.compile(r"\+cpu$", re.MULTILINE)
SETS = {
    "serve-cpu.txt": ["--extra", "cpu", "--generate-hashes"],
    "serve-gpu.txt": ["--extra", "gpu", "--generate-hashes"],
    "dev.txt": ["--extra", "cpu", "--extra", "native", "--extra", "tracing", "--extra", "export", "--extra", "dev"],
}


def main() -> None:
    """Write each set of pins."""
    for name, options in SETS.items():
        output = f"requirements/{name}"
        command = [
            sys.executable,
            "-m",
            "piptools",
            "compile",
            *COMMON,
            *NO_ADDRESSES,
            *options,
            "-o",
            output,
            "pyproject.toml",
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        if "--generate-hashes" not in options:
            pins = CUDA_ONLY.sub("", (ROOT / output).read_text())
            (ROOT / output).write_text(LOCAL_BUILD.sub("", pins))


if __name__ == "__main__":
    main()
