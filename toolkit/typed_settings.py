"""Settings against the dataclass that they fill: unknown names, values of the wrong kind, values out of range.

Knows nothing of what a setting means or where it came from.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gcrs.toolkit.errors import GcrsError, UsageError


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be: `least` or more, `most` or less, an open end excluded."""

    least: float = -math.inf
    most: float = math.inf
    least_open: bool = False
    most_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.least if self.least_open else value >= self.least
        below = value < self.most if self.most_open else value <= self.most
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        if self.most < math.inf:
            return f" from {self.least:g} to {'below ' if self.most_open else ''}{self.most:g}"
        if self.least == -math.inf:
            return ""
        return f" above {self.least:g}" if self.least_open else f" of at least {self.least:g}"


def typed(
    cls: type,
    values: Mapping[str, Any],
    ranges: Mapping[str, Range],
    *,
    where: str = "",
    error: type[GcrsError] = UsageError,
) -> dict[str, Any]:
    """`values` as the types that the fields of `cls` declare; `where` names the file that they came from.

    Paths may be given as text, one path where several are expected. Raises `error` naming the setting, what was
    found, what was expected and, for an unknown name, the nearest known one.
    """
    known = {one.name for one in fields(cls)}
    hints = typing.get_type_hints(cls)
    out: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
            found = f"{where}: unknown setting" if where else "Unknown setting"
            raise error(f"{found} {name!r}.", hint=hint)
        try:
            out[name] = _as(hints[name], value, ranges.get(name))
        except ValueError as expected:
            raise error(
                f"{where + ':' if where else 'Setting'} {name} is {_shown(value)}, expected {expected}."
            ) from None
    return out


def _shown(value: Any) -> str:
    text = "empty" if value is None else str(value) if isinstance(value, Path) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _as(hint: Any, value: Any, bounds: Range | None) -> Any:
    """`value` as the hint's type; ValueError says what was expected."""
    options = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (one for one in options if one is not type(None))
        return _as(hint, value, bounds)
    if typing.get_origin(hint) is Literal:
        if value not in options or isinstance(value, bool):
            raise ValueError(" or ".join(map(str, options)))
        return value
    if typing.get_origin(hint) is tuple:
        return _paths(value)
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if hint is Path:
        if not isinstance(value, Path) and (not isinstance(value, str) or not value.strip()):
            raise ValueError("a path")
        return Path(value)
    if hint is str:
        if not isinstance(value, str):
            raise ValueError("a text (in quotes, if YAML reads it as something else)")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (hint is int and not isinstance(value, int)) or (bounds is not None and value not in bounds):
        raise ValueError(f"a {'whole ' if hint is int else ''}number{bounds or ''}")
    return value


def _paths(value: Any) -> tuple[Path, ...]:
    listed = [value] if isinstance(value, str | Path) else [] if value is None else value
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str | Path) and str(one) for one in listed):
        raise ValueError("a path or a list of paths")
    return tuple(Path(one) for one in listed)
