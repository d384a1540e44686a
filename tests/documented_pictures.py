"""Draw the pictures of docs/how-it-works.md anew, by the command that it recommends."""

from __future__ import annotations

import subprocess

from service.__main__ import PARTS
from tests.conftest import REPOSITORY
from tests.server_process import COMMAND, ServerProcess

FOLDER = REPOSITORY / "docs" / "how-it-works"
DIGIT = REPOSITORY / "service" / "examples" / "seven.png"


def main() -> None:
    """Ask a server of our own for each part."""
    FOLDER.mkdir(exist_ok=True)
    with ServerProcess() as server:
        for part in PARTS:
            out = FOLDER / f"{part}.png"
            command = [COMMAND, "explain", DIGIT, "-o", out, "--part", part, "--address", server.grpc_address]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
