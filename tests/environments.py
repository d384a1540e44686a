"""Virtual environments with the clients of others, made when a test first needs one and kept."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


class CannotInstall(Exception):
    """An environment cannot be made."""


def environment(name: str) -> Path:
    """The `bin` folder of the environment that requirements/NAME.txt describes; skips the test if it cannot be made."""
    try:
        return make_environment(name)
    except CannotInstall as error:
        pytest.skip(str(error))


def make_environment(name: str) -> Path:
    """The `bin` folder of the environment that requirements/NAME.txt describes, made where it is not there yet.

    Raises:
        CannotInstall: It cannot be made.
    """
    requirements = REPOSITORY / "requirements" / f"{name}.txt"
    folder = REPOSITORY / f".venv-{name}"
    folder.parent.mkdir(exist_ok=True)
    ready = folder / "ready"
    with _alone(folder):
        if ready.exists() and ready.read_text() == requirements.read_text():
            return folder / "bin"
        install: list[str | Path] = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "-r",
            requirements,
        ]
        commands: list[list[str | Path]] = [
            [sys.executable, "-m", "venv", "--clear", folder],
            [folder / "bin" / "python", *install],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise CannotInstall(f"{folder.name} cannot be made: {done.stderr.strip().splitlines()[-1]}")
        ready.write_text(requirements.read_text())
    return folder / "bin"


def libraries_of_perf_analyzer(folder: Path) -> list[Path]:
    """What the program in this environment needs in LD_LIBRARY_PATH: NVIDIA's library, and Debian's beside it."""
    debian = folder / "debian" / "usr" / "lib" / sysconfig.get_config_var("MULTIARCH")
    return [*folder.glob("lib/*/site-packages/nvidia/cuda_runtime/lib"), debian]


def node_environment(name: str = "node") -> Path:
    """The `node_modules` that requirements/NAME/package.json describes; skips the test if it cannot be made."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    wanted = (REPOSITORY / "requirements" / name / "package.json").read_text()
    folder = REPOSITORY / f".venv-{name}"
    ready = folder / "ready"
    with _alone(folder):
        if ready.exists() and ready.read_text() == wanted:
            return folder / "node_modules"
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text(wanted)
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{folder.name} cannot be made: {done.stderr.strip()[-200:]}")
        ready.write_text(wanted)
    return folder / "node_modules"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else makes this folder meanwhile: tests run in several processes."""
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
