"""SequenceShape: what of a reply's decisions stands in the sequence. The product's is all, others are ablations.

A bundle that was trained on another shape says so in its manifest: `gcrs eval` scores it, nothing talks with it.
Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gcrs.toolkit.errors import DataError

Decisions = Literal["all", "intent", "none"]


@dataclass(frozen=True)
class SequenceShape:
    """`decisions`: which a reply declares before its words: intent and targets, the intent alone, or none.

    `past_decisions`: whether the replies before the last turn of a sequence show theirs.
    """

    decisions: Decisions = "all"
    past_decisions: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> SequenceShape:
        """What `to_json` gave, the product's shape for None. DataError for anything else."""
        if raw is None:
            return PRODUCT
        if not isinstance(raw, Mapping) or set(raw) != {"decisions", "past_decisions"}:
            raise DataError(f"The bundle's sequence shape is {raw!r}.", hint="Update gcrs.")
        decisions, past = raw["decisions"], raw["past_decisions"]
        if decisions not in ("all", "intent", "none") or not isinstance(past, bool):
            raise DataError(f"The bundle's sequence shape is {dict(raw)!r}.", hint="Update gcrs.")
        return cls(decisions, past)

    def at(self, last: bool) -> Decisions:
        """What a reply declares; `last`: whether it is the last turn of its sequence."""
        return self.decisions if last or self.past_decisions else "none"


PRODUCT = SequenceShape()
