"""Rows that are slow to rank, over a sample of the replies: retrieve-then-generate, and another LM zero-shot.

Knows nothing of metrics or of how a row is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gcrs.programs.measured_replies import sample_of
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.eval.base_picks import ABOUT, Picks, candidates_of, pick_piece, reordered
from gcrs.toolkit.eval.config import ZERO_SHOT
from gcrs.toolkit.eval.model_scores import ModelSpec
from gcrs.toolkit.eval.rows import Ground
from gcrs.toolkit.eval.table import Row
from gcrs.toolkit.eval.workers import Progress, Workers

if TYPE_CHECKING:
    from gcrs.toolkit.eval.config import EvalConfig
    from gcrs.toolkit.model.bundle import Bundle

RETRIEVE_THEN_GENERATE = "retrieve-then-generate"
AT_ONCE = 10


def sampled_rows(
    config: EvalConfig,
    bundle: Bundle,
    ground: Ground,
    dense: Sequence[Sequence[str]],
    spec: ModelSpec,
    crew: Workers,
    progress: Progress | None,
) -> list[Row]:
    """The rows of this kind that the run asks for; `dense` are the retrieved rankings of all contexts."""
    places = sample_of(len(ground.split.contexts), config.sampled, config.seed)
    out: list[Row] = []
    if RETRIEVE_THEN_GENERATE in config.baselines:
        found = _retrieved(bundle, ground, dense, spec, crew, places)
        about = f"{ABOUT}; {len(places)} sampled replies"
        out.append(Row(RETRIEVE_THEN_GENERATE, "baseline", about, ground.ranks(_spread(ground, places, found))))
    if config.zero_shot_lm and config.api_base:
        from gcrs.programs.write_replies import zero_shot_picks

        asked = [_read(ground, n) for n in places]
        picks, failed = zero_shot_picks(bundle, config.zero_shot_lm, config.api_base, asked, progress)
        about = f"{config.zero_shot_lm} by the program's signatures, one item a reply; {len(places)} sampled replies"
        ranks = ground.ranks(_spread(ground, places, picks))
        out.append(Row(ZERO_SHOT, "baseline", about, ranks, ("recall@1",), {"outside_the_catalogue": failed}))
    return out


def _read(ground: Ground, context: int) -> Dialogue:
    one = ground.split.contexts[context]
    return ground.split.read[ground.split.place_of[one.dialogue.id]][: one.turn]


def _spread(ground: Ground, places: Sequence[int], found: Sequence[Sequence[str]]) -> list[Sequence[str] | None]:
    """Rankings of the sampled contexts among all of them."""
    by_place = dict(zip(places, found, strict=True))
    return [by_place.get(n) for n in range(len(ground.split.contexts))]


def _retrieved(
    bundle: Bundle,
    ground: Ground,
    dense: Sequence[Sequence[str]],
    spec: ModelSpec,
    crew: Workers,
    places: Sequence[int],
) -> list[list[str]]:
    names = {item.id: item.label for item in bundle.catalog}
    chosen = [candidates_of(dense[n], ground.split.contexts[n].named) for n in places]
    pieces = [
        Picks(
            spec,
            tuple(_read(ground, n) for n in places[at : at + AT_ONCE]),
            tuple(tuple(names[item] for item in some) for some in chosen[at : at + AT_ONCE]),
            names,
        )
        for at in range(0, len(places), AT_ONCE)
    ]
    scores = [one for part in crew.map(pick_piece, pieces, "asking the base model") for one in part]
    return [reordered(dense[n], some, own) for n, some, own in zip(places, chosen, scores, strict=True)]
