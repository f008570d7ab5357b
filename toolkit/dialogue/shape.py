"""SequenceShape: what of a reply's decisions stands in the sequence, and how the person's items are shown.

A bundle that was trained on another shape than the usual one says so in its manifest. One whose replies lack a decision
is an ablation: `gcrs eval` scores it, nothing talks with it. Knows nothing of tokens.
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

    `past_decisions`: whether the replies before the last turn of a sequence show theirs. `titles`: whether the title's
    words stand before an item that the person mentions.
    """

    decisions: Decisions = "all"
    past_decisions: bool = True
    titles: bool = False

    @property
    def talks(self) -> bool:
        """Whether replies show every decision, so that they can be made and not only scored."""
        return self.decisions == "all" and self.past_decisions

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> SequenceShape:
        """What `to_json` gave, the product's shape for None. DataError for anything else."""
        if raw is None:
            return PRODUCT
        known = {"decisions", "past_decisions", "titles"}
        if not isinstance(raw, Mapping) or not {"decisions", "past_decisions"} <= set(raw) <= known:
            raise DataError(f"The bundle's sequence shape is {raw!r}.", hint="Update gcrs.")
        decisions, past, titles = raw["decisions"], raw["past_decisions"], raw.get("titles", False)
        if decisions not in ("all", "intent", "none") or not isinstance(past, bool) or not isinstance(titles, bool):
            raise DataError(f"The bundle's sequence shape is {dict(raw)!r}.", hint="Update gcrs.")
        return cls(decisions, past, titles)

    def at(self, last: bool) -> Decisions:
        """What a reply declares; `last`: whether it is the last turn of its sequence."""
        return self.decisions if last or self.past_decisions else "none"


PRODUCT = SequenceShape()
