"""Runs the scripts of this folder, which drive a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.environments import node_environment

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


def run_script(name: str, *arguments: str | Path) -> Any:
    """What a script prints, read as JSON; skips the test where there is no browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed; Debian has the first as a package")
    environ = {**os.environ, "NODE_PATH": str(node_environment("browser")), "BROWSER": browser}
    script = Path(__file__).with_name(name)
    done = subprocess.run(
        ["node", script, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
