"""A dialogue scored in one pass of the model: every reply's intent, ranking and likelihood.

The gold dialogue is read once; each reply's decisions are read off where its prompt ends, and the beams of all its
replies grow from that one cache, level by level together. The turn that is scored and later ones cannot be seen from
there. Knows nothing of metrics, files or processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.dialogue.budget import fit
from gcrs.toolkit.dialogue.encode import Kind, encode
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.eval.direct import direct_targets

if TYPE_CHECKING:
    from gcrs.toolkit.model.engine import Engine, Scored

BEAMS = 60  # least width of the beams: recall@50 needs 50, and a few more lose less on the way


@dataclass(frozen=True)
class Spent:
    """Tokens of one kind in a gold reply and their -log P in nats."""

    nats: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class TurnScore:
    """One assistant turn: P(recommend), the best items with their scores, and what its gold reply cost.

    `words` are the reply's words and its end, `spans` its item spans, `size` the words' bytes in UTF-8. `ranking` is
    empty where none was asked for.
    """

    turn: int
    recommend: float
    ranking: tuple[str, ...]
    scores: tuple[float, ...]
    words: Spent
    spans: Spent
    size: int
    fitted: bool = False


def score_dialogue(
    engine: Engine, dialogue: Dialogue, wanted: Mapping[int, int], *, budget: int, beams: int = BEAMS
) -> list[TurnScore]:
    """Every assistant turn of a dialogue whose items are the catalogue's; `wanted` says how many items a turn ranks.

    Replies whose prompt is longer than `budget` tokens are read as the product reads them: newest turns behind a
    summary (`fitted`).
    """
    ends = encode(dialogue, engine.tokens, engine.book).turn_ends
    head = len(engine.tokens.header("assistant"))
    turns = [n for n, turn in enumerate(dialogue.turns) if turn.role == "assistant"]
    short = [n for n in turns if n == 0 or ends[n - 1] + head <= budget]
    if not engine.tokens.shape.past_decisions:  # each reply is read behind another history: no pass serves two
        short = []
    out: list[TurnScore] = []
    if short:
        whole = dialogue[: short[-1] + 1]
        out = _score(engine, whole, short, {n: wanted[n] for n in short if n in wanted}, beams)
    for n in turns[len(short) :]:
        fitted = fit(dialogue[:n], engine.tokens, engine.book, budget)
        last = len(fitted.dialogue)
        again = Dialogue(dialogue.id, (*fitted.dialogue.turns, dialogue.turns[n]))
        (one,) = _score(engine, again, [last], {last: wanted[n]} if n in wanted else {}, beams)
        out.append(replace(one, turn=n, fitted=bool(fitted.dropped)))
    return out


def _score(
    engine: Engine, dialogue: Dialogue, turns: Sequence[int], wanted: Mapping[int, int], beams: int
) -> list[TurnScore]:
    tokens, shape = engine.tokens, engine.tokens.shape
    encoded = encode(dialogue, tokens, engine.book)
    ids, kinds = encoded.ids.tolist(), encoded.kinds
    begins = (len(tokens.bos), *encoded.turn_ends)
    opened = [begins[n] + len(tokens.header("assistant")) for n in turns]
    inside = np.zeros(len(ids), dtype=bool)
    for n in turns:
        inside[begins[n] : begins[n + 1]] = True
    supervised = np.flatnonzero(inside & np.isin(kinds, [int(Kind.TEXT), int(Kind.MENTION)]))
    ranked = {n: opening for n, opening in zip(turns, opened, strict=True) if n in wanted}
    ready = {n: at + 2 for n, at in ranked.items() if ids[at : at + 2] == [tokens.rec, tokens.boi]}
    size = len(engine.book)
    read = engine.along(
        ids,
        decisions=opened,
        losses=supervised.tolist(),
        targets=list(ready.values()),
        beams=[min(size, max(beams, wanted[n])) for n in ready],
    )
    found: dict[int, list[Scored]] = dict(zip(ready, read.targets, strict=True))
    for n, at in ranked.items():
        depth, wide = min(size, wanted[n]), min(size, max(beams, wanted[n]))
        if shape.decisions != "all":
            opened_by = [tokens.rec, tokens.resp] if shape.decisions == "intent" else []
            found[n] = direct_targets(engine, [*ids[:at], *opened_by], depth, wide)
        elif n not in found:  # the data says that this reply chats, or its items are not in the catalogue
            found[n] = engine.targets([*ids[:at], tokens.rec], k=depth, beams=wide)
    losses = dict(zip(supervised.tolist(), read.losses.tolist(), strict=True))

    def spent(turn: int, kind: Kind) -> Spent:
        held = [losses[n] for n in range(begins[turn], begins[turn + 1]) if kinds[n] == kind]
        return Spent(float(sum(held)), len(held))

    out = []
    for n, chance in zip(turns, read.recommend.tolist(), strict=True):
        if shape.decisions == "none":  # whether it recommends is whether it names an item
            chance = float(bool(found.get(n)))
        best = found.get(n, [])[: wanted.get(n, 0)]
        said = "".join(value for what, value in dialogue.turns[n].segments() if what == "text")
        length = len(said.encode("utf-8", "replace"))
        names, scores = tuple(one.item_id for one in best), tuple(one.score for one in best)
        out.append(TurnScore(n, chance, names, scores, spent(n, Kind.TEXT), spent(n, Kind.MENTION), length))
    return out
