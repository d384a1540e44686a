"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def share(value: float | None) -> str:
    """Write a share from 0 to 1 in percent; nothing for None."""
    return "" if value is None else f"{value:.2%}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], align: str = "") -> str:
    """Write a table; `align` has an "r" for each column whose figures stand at its right."""
    rules = ["--:" if side == "r" else "---" for side in align.ljust(len(head))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rules, *rows))
