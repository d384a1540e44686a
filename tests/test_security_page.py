"""SECURITY.md names tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY

NAMED = re.findall(r"([\w/]*test_\w+\.py)(?:::(\w+))?", (REPOSITORY / "SECURITY.md").read_text())


def test_every_threat_has_one() -> None:
    rows = re.findall(r"^\| (?!threat|---)(.*) \|$", (REPOSITORY / "SECURITY.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    assert all("test_" in row.split(" | ")[2] for row in rows)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_it_is_there(file: str, name: str) -> None:
    path = REPOSITORY / "tests" / file
    assert path.is_file()
    assert not name or f"def {name}(" in path.read_text()
