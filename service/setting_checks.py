"""What is wrong with a value of a setting: each check returns it as words that follow the setting's name, or None."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

Check = Callable[[Any], str | None]
# What is left to the server.
Auto = Literal["auto"]
AUTO: Auto = "auto"
# The values that a profile allows; the first is the default with it.
PROFILES: dict[str, dict[str, tuple[str, ...]]] = {
    "default": {},
    "production": {
        "reflection": ("off",),
        "page": ("off",),
        "model_control": ("none", "poll"),
        "transport": ("grpcio",),
    },
}


def between(low: float, high: float) -> Check:
    """A check that a number lies between two bounds, both allowed."""

    def check(value: float) -> str | None:
        if low <= value <= high:
            return None
        return f"must be {low:g}" if low == high else f"must be between {low:.10g} and {high:.10g}"

    return check


def one_of(*choices: str) -> Check:
    """A check that a text is one of a few."""

    def check(value: str) -> str | None:
        return None if value in choices else f"must be one of {', '.join(choices)}"

    return check


def or_auto(check: Check) -> Check:
    """A check that lets "auto" pass as well."""
    return lambda value: None if value == AUTO else check(value)


def device(value: str) -> str | None:
    """A check that a text names what runs the model."""
    fits = re.fullmatch(r"auto|cpu|cuda|cuda:[0-9]{1,2}|tensorrt", value)
    return None if fits else "must be auto, cpu, cuda, cuda:N or tensorrt"


def not_empty(value: str) -> str | None:
    """A check that a text is not empty."""
    return None if value else "must not be empty"


def name_in_addresses(value: str) -> str | None:
    """A check that a text can stand in an address."""
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value)
    return None if fits else "must be 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit"


def version_policy(value: str) -> str | None:
    """A check that a text says which versions to serve."""
    fits = re.fullmatch(r"all|latest:[1-9][0-9]{0,3}|[0-9]{1,9}(,[0-9]{1,9})*", value)
    return None if fits else "must be latest:N, all, or numbers such as 1,3"
