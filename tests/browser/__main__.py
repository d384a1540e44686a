"""Takes the pictures of the page that README and docs show; run by `make screenshots`."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from tests.browser.scripts import run_script
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess

DOCS = REPOSITORY / "docs"


def main() -> None:
    """Start a server, have a browser visit it, and make the pictures small."""
    try:
        with ServerProcess() as server:
            names = run_script("pictures.cjs", f"{server.http_url}/", DOCS)
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))
    for name in names:
        path = DOCS / name
        with Image.open(path) as image:
            # The page has few colours: a palette halves the file and nobody sees it.
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"docs/{name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
