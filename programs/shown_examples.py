"""Examples for a report's page: ten of the written replies, and ten replies whose target the model missed.

Chosen evenly, so that equal runs show the same. Data, not markup. Knows nothing of how anything was scored or written.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from gcrs.programs.render import shown_text
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.eval.cases import OUTSIDE, candidates
from gcrs.toolkit.eval.measured import Measured
from gcrs.toolkit.eval.metrics import rank_of
from gcrs.toolkit.eval.one_pass import TurnScore
from gcrs.toolkit.eval.replies import Written
from gcrs.toolkit.eval.rows import DEPTH
from gcrs.toolkit.eval.spread import failing_level
from gcrs.toolkit.ids.codebook import spell

if TYPE_CHECKING:
    from gcrs.toolkit.catalog.item import Catalog
    from gcrs.toolkit.ids.codebook import Codebook

SHOWN = 10
TURNS_BEFORE = 4
BEST = 5


def written_in_full(measured: Measured, replies: Sequence[Written], catalog: Catalog) -> list[dict[str, Any]]:
    """Ten written replies with what came before and what was decided."""
    scores = {
        (one.dialogue.id, one.turn): score
        for one, score in zip(measured.ground.split.contexts, measured.of_context, strict=True)
    }
    out = []
    for reply in _evenly(replies):
        score = scores.get((reply.dialogue, reply.turn))
        said = {"intent": reply.intent, "reply": shown_text(reply.text, catalog)}
        out.append(_talk(measured, reply.dialogue, reply.turn, catalog) | said | {"best": _best(score, catalog)})
    return out


def missed_in_full(measured: Measured, book: Codebook, catalog: Catalog) -> list[dict[str, Any]]:
    """Ten replies with new items of the catalogue, none of which comes first: where the first one's ID leaves theirs.

    As under protocol `new`, what the dialogue has named is no candidate.
    """
    missed = []
    for one, score in zip(measured.ground.split.contexts, measured.of_context, strict=True):
        gold = [item for item in one.gold if not item.startswith(OUTSIDE) and item not in one.repeats]
        if gold and (ranking := candidates("new", score.ranking, one.named)) and ranking[0] not in gold:
            missed.append((one, score, gold, ranking))
    out = []
    for one, score, gold, ranking in _evenly(missed):
        first = ranking[0]
        level = failing_level(book.semantic_id(first), [book.semantic_id(item) for item in gold])
        out.append(
            _talk(measured, one.dialogue.id, one.turn, catalog)
            | {
                "gold_items": [
                    (catalog[i].label, spell(book.semantic_id(i)), rank_of(i, ranking[:DEPTH])) for i in gold
                ],
                "best": _best(score, catalog, one.named),
                "first": spell(book.semantic_id(first)),
                "leaves_gold_at": chr(ord("a") + level),
                "recommend": score.recommend,
            }
        )
    return out


def _evenly(found: Sequence[Any]) -> list[Any]:
    return list(found)[:: max(1, len(found) // SHOWN)][:SHOWN]


def _talk(measured: Measured, dialogue: str, turn: int, catalog: Catalog) -> dict[str, Any]:
    split = measured.ground.split
    read: Dialogue = split.read[split.place_of[dialogue]]
    before = [(one.role, shown_text(one.text, catalog)) for one in read[:turn].turns[-TURNS_BEFORE:]]
    return {"dialogue": dialogue, "turn": turn, "before": before, "gold": shown_text(read.turns[turn].text, catalog)}


def _best(score: TurnScore | None, catalog: Catalog, named: Collection[str] = ()) -> list[tuple[str, float]]:
    """The best items with their probabilities, but for those of `named`."""
    if score is None:
        return []
    pairs = [pair for pair in zip(score.ranking, score.scores, strict=True) if pair[0] not in named]
    return [(catalog[item].label, math.exp(value)) for item, value in pairs[:BEST]]
