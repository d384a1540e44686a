"""The benchmark of `make gpu-check`, with the CPU in the place of the GPU: it runs seldom, and must run then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.gpu import bench

BEFORE, AFTER = "# Title\n\n<!-- measured -->\n", "\n<!-- end -->\n\nThe rest.\n"


@pytest.mark.slow
def test_the_figures_take_their_place_in_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "gpu.md"
    document.write_text(f"{BEFORE}Not measured yet.{AFTER}")
    monkeypatch.setattr(bench, "SIZES", (1, 32))
    monkeypatch.setattr(bench, "SECONDS", 0.2)
    monkeypatch.setattr(bench, "LOADS", (("unary", 1, 4), ("batch", 1, 1), ("stream", 1, 1)))
    monkeypatch.setattr(bench, "find_mnist", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cpu", "--out", str(document)])
    bench.main()
    text = document.read_text()
    assert text.startswith(BEFORE) and text.endswith(AFTER)
    rows = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1:] for row in text.splitlines() if row[:1] == "|"}
    # A row for each size, precision and load, with a number in every place where there is one.
    for row in ("1", "32", "fp32", "tf32", "unary, 4 in flight", "batch, 1 in flight"):
        assert rows[row] and all(any(letter.isdigit() for letter in cell) for cell in rows[row]), rows[row]
    assert rows["stream, 1 in flight"]
