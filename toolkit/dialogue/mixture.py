"""Mixture: which share of the training tokens each task gets, as a value and as YAML.

    shares: {dialogue: 0.7, own-mentions: 0.1, facts-to-item: 0.2}
    tokens: 500000
    max_repeats: 4

Knows which tasks there are; knows nothing of models, nor of how examples are drawn.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcrs.toolkit.dialogue.task_registry import check_task
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write
from gcrs.toolkit.settings import read_settings

MAX_REPEATS = 4.0  # beyond that, seeing data again teaches little (Muennighoff et al., 2023)
CLOSE = 1e-3  # how far written shares may be from one: they are rounded
KEYS = ("shares", "tokens", "max_repeats", "note")


@dataclass(frozen=True)
class Mixture:
    """Shares of the training tokens by task, each above 0, summing to one; tokens are those of whole sequences.

    `tokens` is the total, where no other budget is given; `max_repeats` is how often an example may be seen, for all
    tasks or by task; `note` says where the mixture came from.
    """

    shares: Mapping[str, float]
    tokens: int | None = None
    max_repeats: float | Mapping[str, float] = MAX_REPEATS
    note: str = ""

    def __post_init__(self) -> None:
        _check(self, "The mixture")
        total = sum(self.shares.values())
        shares = {name: value / total for name, value in self.shares.items() if value > 0}
        object.__setattr__(self, "shares", shares)

    def repeats_of(self, name: str) -> float:
        """How often the task's examples may be seen."""
        if isinstance(self.max_repeats, Mapping):
            return float(self.max_repeats.get(name, MAX_REPEATS))
        return float(self.max_repeats)

    @classmethod
    def uniform(cls, names: Sequence[str], tokens: int | None = None) -> Mixture:
        """The same share for each task."""
        return cls(dict.fromkeys(names, 1.0 / len(names)), tokens)

    @classmethod
    def paper(cls, tokens: int | None = None) -> Mixture:
        """The paper's point: whole dialogues alone."""
        return cls({"dialogue": 1.0}, tokens)

    def to_mapping(self) -> dict[str, Any]:
        """As it stands in YAML: plain values, what is not set left out; shares in full, so that it reads back equal."""
        repeats = dict(self.max_repeats) if isinstance(self.max_repeats, Mapping) else self.max_repeats
        out: dict[str, Any] = {"shares": dict(self.shares), "max_repeats": repeats}
        return out | ({"tokens": self.tokens} if self.tokens else {}) | ({"note": self.note} if self.note else {})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "The mixture") -> Mixture:
        """A mixture from YAML's values; DataError names what is unknown, of the wrong kind, or does not add up."""
        if unknown := sorted(set(values) - set(KEYS)):
            near = difflib.get_close_matches(unknown[0], KEYS, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(KEYS)}."
            raise DataError(f"{where}: unknown key {unknown[0]!r}.", hint=hint)
        shares = values.get("shares")
        if not isinstance(shares, Mapping) or not shares:
            raise DataError(
                f"{where}: shares is {shares!r}, expected tasks with their shares.", hint="shares: {dialogue: 1}"
            )
        plain = {
            "shares": dict(shares), "tokens": values.get("tokens"),
            "max_repeats": values.get("max_repeats", MAX_REPEATS), "note": values.get("note") or "",
        }  # fmt: skip
        held = cls.__new__(cls)
        for name, value in plain.items():
            object.__setattr__(held, name, value)
        _check(held, where)
        return cls(**plain)

    @classmethod
    def load(cls, path: Path) -> Mixture:
        """The mixture of a YAML file; DataError says what is wrong with it."""
        return cls.from_mapping(read_settings(Path(path)), str(path))

    def save(self, path: Path) -> None:
        """Write YAML, staged and renamed."""
        import yaml

        text = yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)
        with atomic_write(Path(path)) as handle:
            handle.write(
                f"# Shares of the training tokens by task (docs/mixture.md): gcrs finetune --mixture FILE\n{text}"
            )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(mixture: Mixture, where: str) -> None:
    """DataError for a share that is no number or negative, a sum that is not one, an unknown task, a bad total."""
    if not mixture.shares:
        raise DataError(f"{where} has no shares.", hint="shares: {dialogue: 1}")
    for name, share in mixture.shares.items():
        check_task(str(name), where)
        if not _number(share) or share < 0:
            raise DataError(f"{where}: the share of {name} is {share!r}, expected a number from 0 to 1.")
    total = sum(mixture.shares.values())
    if abs(total - 1) > CLOSE:
        raise DataError(
            f"{where}: the shares sum to {total:.4g}, expected 1.", hint="They are parts of all training tokens."
        )
    tokens = mixture.tokens
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise DataError(f"{where}: tokens is {tokens!r}, expected a whole number of at least 1.")
    repeats = mixture.max_repeats
    for name, value in repeats.items() if isinstance(repeats, Mapping) else [("", repeats)]:
        if name:
            check_task(str(name), where)
        if not _number(value) or value <= 0:
            of = f" of {name}" if name else ""
            raise DataError(f"{where}: max_repeats{of} is {value!r}, expected a number above 0.")
