"""Settings files: YAML in, a plain mapping out. Knows nothing of what the settings mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError, UsageError

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # YAML 1.1 reads 1e-4 as a text; nobody means that


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; DataError names `where` and what is wrong. Tags that build objects are refused."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{where} is not valid YAML: {_why(error)}.") from error
    if isinstance(value, dict):
        return {name: _number(entry) for name, entry in value.items()}
    return _number(value)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; DataError when it is missing, broken or no mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        found = "nothing" if values is None else type(values).__name__
        raise DataError(f"{path} holds {found}, expected settings as `name: value` lines.")
    return values


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`name=value` texts as a mapping, values read as YAML; UsageError for one without a name or `=`."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{assignment!r} is no setting.", hint="Write NAME=VALUE, for example lr=0.0005")
        values[name.strip().replace("-", "_")] = parse_yaml(value, assignment)
    return values


def _why(error: Exception) -> str:
    """What is wrong and where, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())[:300].rstrip(".")
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
