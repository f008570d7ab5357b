"""What gcrs promises of every recommendation and reply, counted over an evaluation: what `--strict` fails on.

Knows nothing of how scores come about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gcrs.toolkit.eval.measured import Measured
from gcrs.toolkit.eval.replies import Written
from gcrs.toolkit.eval.split import Split

if TYPE_CHECKING:
    from gcrs.toolkit.catalog.item import Catalog

WORDS = {
    "invalid_items": "ranked or named items that the catalogue does not have",
    "duplicate_items": "items that stand twice in one ranking",
    "short_rankings": "rankings with fewer items than asked for",
    "not_numbers": "scores or probabilities that are no numbers",
    "unlicensed_items": "replies that recommend an item which is neither their target nor the dialogue's",
    "titles_leaked": "titles shown in words that nothing licenses",
    "empty_replies": "replies that say nothing",
    "gold_outside": "cases whose gold item is outside the catalogue (--skip-unknown leaves them out)",
}


def promised(
    measured: Measured, written: Sequence[Sequence[Written]], catalog: Catalog, split: Split
) -> dict[str, int]:
    """How often each promise is broken; all are 0 when everything holds."""
    replies = [reply for some in written for reply in some]
    counts = dict.fromkeys(WORDS, 0)
    for score, depth in zip(measured.of_context, measured.ground.depths, strict=True):
        counts["invalid_items"] += sum(item not in catalog for item in score.ranking)
        counts["duplicate_items"] += len(score.ranking) - len(set(score.ranking))
        counts["short_rankings"] += len(score.ranking) < min(depth, len(catalog))
    for scores in measured.turns:
        for score in scores:
            numbers = (score.recommend, *score.scores, score.words.nats, score.spans.nats)
            counts["not_numbers"] += not all(map(math.isfinite, numbers))
    counts["invalid_items"] += sum(item not in catalog for reply in replies for item in reply.items)
    counts["unlicensed_items"] = sum(bool(reply.strangers) for reply in replies)
    counts["titles_leaked"] = sum(reply.leaked for reply in replies)
    counts["empty_replies"] = sum(not reply.text.strip() for reply in replies)
    counts["gold_outside"] = 0 if split.skip_unknown else sum(split.unknown.values())
    return counts


def broken(counts: Mapping[str, int]) -> list[str]:
    """A phrase for each promise that is broken."""
    return [f"{count:,} {WORDS[name]}" for name, count in counts.items() if count]
