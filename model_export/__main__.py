"""Start of `python -m model_export`: without the `export` extra it says what to install."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one step of making the model and return the exit code."""
    try:
        from model_export.command import run
    except ModuleNotFoundError as error:
        print(
            f"model_export: the package {error.name!r} is not installed; run: pip install 'digitserve[cpu,export]'",
            file=sys.stderr,
        )
        return 2
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
