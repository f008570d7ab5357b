"""The one family of errors that a user sees: what was found, what was expected, what to do.

Knows nothing of where an error is printed; `cli.py` prints `str(error)` and exits with `error.exit_code`.
"""

from __future__ import annotations


class GcrsError(Exception):
    """A failure with one clear sentence, an optional hint, and the process exit code that stands for it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}" if hint else message)


class UsageError(GcrsError):
    """Flags or arguments that contradict each other or name something that does not exist."""

    exit_code = 2


class DataError(GcrsError):
    """A catalogue, dialogue file, bundle or config that is missing, broken or of the wrong shape."""

    exit_code = 3


class MissingModelError(GcrsError):
    """Weights that are not on this machine and could not be fetched, or whose bytes are not the pinned ones."""

    exit_code = 4


class UnknownItem(DataError):
    """An item id that is not in the catalogue."""

    def __init__(self, item_id: str, *, hint: str | None = None) -> None:
        super().__init__(f"Item {item_id!r} is not in the catalogue.", hint=hint)


class DeadEnd(GcrsError):
    """A walk in the ID tree reached a state with no legal continuation: a bug or an empty filter, never ignored."""
