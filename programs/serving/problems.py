"""Problem: why a call failed, as data that names the field, its value and what to do; never a stack trace.

Knows which HTTP status a kind of problem has, and nothing else of transports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from gcrs.toolkit.errors import DeadEnd, GcrsError, UnknownItem, UsageError

LONGEST_VALUE = 120
STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_item": 404,
    "unknown_session": 404,
    "unknown_tool": 404,
    "unknown_model": 404,
    "method_not_allowed": 405,
    "nothing_allowed": 409,
    "too_large": 413,
    "invalid_argument": 422,
    "too_many_requests": 429,
    "internal": 500,
    "busy": 503,
    "unavailable": 503,
    "timeout": 504,
}
REMEDIES = {  # by pydantic's kinds of errors, what they know of the limit filled in
    "missing": "Give this argument.",
    "extra_forbidden": "Leave it out: there is no such argument.",
    "json_invalid": "Send one JSON object.",
    "greater_than_equal": "Pass {ge} or more.",
    "greater_than": "Pass more than {gt}.",
    "less_than_equal": "Pass at most {le}.",
    "less_than": "Pass less than {lt}.",
    "literal_error": "Pass one of {expected}.",
    "string_type": "Pass it as text, in quotes.",
    "string_too_long": "Shorten it to {max_length} characters.",
    "string_too_short": "Pass at least {min_length} characters.",
    "too_long": "Pass at most {max_length} entries.",
    "too_short": "Pass at least {min_length} entries.",
    "list_type": "Pass a list, also of one: [...].",
    "int_type": "Pass a whole number.",
    "int_parsing": "Pass a whole number.",
    "int_from_float": "Pass a whole number.",
    "float_type": "Pass a number.",
    "float_parsing": "Pass a number.",
    "bool_type": "Pass true or false.",
    "bool_parsing": "Pass true or false.",
}
KINDS = {int: "a number", float: "a number", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
FIND_IDS = "search_catalog finds the ids of items."


class ErrorBody(BaseModel):
    """What went wrong: `field` is where, as in `where[0]`; null when no argument is to blame."""

    code: str = Field(description="One word that a program can act on.")
    message: str = Field(description="What was found and what was expected.")
    field: str | None = None
    value: str | None = Field(None, description="What the field held, shortened.")
    remedy: str | None = Field(None, description="What to do.")


class ErrorReply(BaseModel):
    """The body of every reply that is an error."""

    error: ErrorBody


class Problem(Exception):
    """A failure to be told to the caller; `retry_after` in seconds where waiting helps."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str | None = None,
        value: Any = None,
        remedy: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        shown = None if value is None else _shown(value)
        place = None if field is None else _shown(field)
        self.body = ErrorBody(code=code, message=message, field=place, value=shown, remedy=remedy)
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """Its HTTP status."""
        return STATUS[self.body.code]

    @property
    def text(self) -> str:
        """One sentence for a person or another model, and what to do."""
        where = f"{self.body.field}: " if self.body.field else ""
        return f"{where}{self.body.message}{f' {self.body.remedy}' if self.body.remedy else ''}"

    def as_json(self) -> dict[str, Any]:
        """The body of the reply."""
        return {"error": self.body.model_dump()}


def of_validation(errors: Iterable[Any], *, skip: int = 0) -> Problem:
    """The first of pydantic's errors as a Problem; `skip` leading parts of its place are the transport's."""
    found = [{**one, "loc": tuple(one["loc"][skip:])} for one in errors]
    first, expected = _chosen([one for one in found if one["loc"][:1] == found[0]["loc"][:1]])
    if isinstance(first.get("input"), bytes):
        header = "Send one JSON object, with the header content-type: application/json."
        return Problem("bad_request", "The body did not come as JSON.", remedy=header)
    if first["type"] == "json_invalid" or not first["loc"]:  # the body as a whole
        said = "The body is empty." if first["type"] == "missing" else _sentence(expected)
        return Problem("bad_request", said, remedy=REMEDIES["json_invalid"])
    remedy = REMEDIES.get(first["type"], "Correct it and call again.").format_map(_Limits(first.get("ctx") or {}))
    if first["type"].endswith("_type"):
        expected += f", found {KINDS.get(type(first.get('input')), type(first.get('input')).__name__)}"
    if others := sorted({_place(one["loc"][:1]) for one in found} - {_place(found[0]["loc"][:1])}):
        remedy += f" Wrong as well: {', '.join(others)}."
    held = None if first["type"] in ("missing", "json_invalid") else first.get("input")
    place = None if first["type"] == "json_invalid" else _place(first["loc"]) or None
    return Problem("invalid_argument", _sentence(expected), field=place, value=held, remedy=remedy)


class _Limits(dict[str, Any]):
    """What an error knows of the limit; "…" for what it does not."""

    def __missing__(self, name: str) -> str:
        return "…"


def of_error(error: GcrsError, *, field: str | None = None, value: Any = None) -> Problem:
    """A GcrsError as a Problem, its own hint as the remedy."""
    if isinstance(error, DeadEnd):
        code = "nothing_allowed"
    elif isinstance(error, UnknownItem) and field is None:
        code = "unknown_item"
    elif isinstance(error, UsageError) or field is not None:
        code = "invalid_argument"
    else:
        code = "unavailable" if error.exit_code in (3, 4) else "internal"
    hint = FIND_IDS if isinstance(error, UnknownItem) and (error.hint or "See").startswith("See") else error.hint
    return Problem(code, error.message, field=field, value=value, remedy=hint)


def of_pydantic(error: ValidationError) -> Problem:
    """`of_validation` of a whole ValidationError."""
    return of_validation(error.errors(include_url=False))


def _chosen(errors: list[Any]) -> tuple[Any, str]:
    """Of one argument's errors the one to tell, and its message; of a union that which the value got furthest into."""
    kinds = {one["type"] for one in errors}
    if kinds == {"string_type", "list_type"}:
        return errors[0], "Input should be a string or a list"
    telling = [one for one in errors if len(errors) == 1 or one["type"] not in ("string_type", "list_type")]
    first = max(telling or errors, key=lambda one: len(one["loc"]))
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return first, "Input should be a JSON object"
    return first, first["msg"].removeprefix("Value error, ")


def _place(parts: Iterable[Any]) -> str:
    """`dialogue[2].role` of ("dialogue", "list[Turn]", 2, "role")."""
    out = ""
    for part in parts:
        if isinstance(part, int):
            out += f"[{part}]"
        elif not any(mark in part for mark in "[(") and part not in ("str", "constrained-str"):
            out += f".{part}" if out else part
    return out


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "�" for c in text[: LONGEST_VALUE + 1])
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."
