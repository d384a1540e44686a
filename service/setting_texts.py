"""The names of settings outside of Python, and their values as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from service.errors import InvalidSetting
from service.setting_checks import AUTO


def flag(name: str) -> str:
    """A setting as a flag of the command."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """A setting as an environment variable."""
    return "DIGITSERVE_" + name.upper()


def names(name: str) -> str:
    """A setting by both of its names, for an error."""
    return f"{flag(name)} ({variable(name)})"


def from_variable(environ: Mapping[str, str], name: str) -> tuple[str, str | None]:
    """A setting's environment variable, and the text in it, if it is set."""
    return variable(name), environ.get(variable(name))


def parse(source: str, text: str, kind: Any) -> Any:
    """The value that a text stands for.

    Args:
        source: Where the text is from, for an error.
        text: What somebody wrote.
        kind: The type of the setting; a union with `Auto` admits "auto".

    Raises:
        InvalidSetting: It stands for none.
    """
    number, *others = get_args(kind) or (kind,)
    if others and text == AUTO:
        return text
    try:
        return number(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[number] + (" or auto" if others else "")
        raise InvalidSetting(f"{source}: must be {wanted}, not {text!r}") from None
