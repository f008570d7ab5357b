"""Beam search over a grammar of fixed length, its beams forwarded as one tree behind the prompt's cache.

One prompt's beams, or those of several places of one sequence at once: each level is then one forward for all places.
Tokens that can only follow with probability 1 are taken without asking the model, so most of a semantic ID's last
codes cost nothing and the scores stay the same. Knows nothing of items or of what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from gcrs.toolkit.model.cache import PrefixCache

NOWHERE = -1


@dataclass(frozen=True)
class Hypotheses:
    """Complete outputs, best first: ids int64 [b, n] and the sum of their tokens' scores, float64 [b].

    Equal scores stand in the order of their ids. Those that tie with the last of the beam are kept too.
    """

    ids: np.ndarray
    scores: np.ndarray


@dataclass
class _Beams:
    ids: np.ndarray  # int64 [b, n]
    scores: np.ndarray  # float64 [b]
    places: np.ndarray  # int64 [b, n]: where each token stands in the tree, NOWHERE = not forwarded
    owner: np.ndarray  # int64 [b]: which of the searches each belongs to

    @classmethod
    def begin(cls, lead: list[int], searches: int = 1) -> _Beams:
        """One beam a search, which has taken the lead."""
        ids = np.repeat(np.array([lead], dtype=np.int64), searches, axis=0)
        return cls(ids, np.zeros(searches), np.full(ids.shape, NOWHERE), np.arange(searches))

    def take(self, rows: np.ndarray, tokens: np.ndarray, scores: np.ndarray) -> _Beams:
        """One more token, not forwarded yet, after each of `rows`."""
        nowhere = np.full((len(rows), 1), NOWHERE)
        ids, places = np.hstack([self.ids[rows], tokens[:, None]]), np.hstack([self.places[rows], nowhere])
        return _Beams(ids, scores, places, self.owner[rows])

    def part(self, rows: np.ndarray | slice) -> _Beams:
        return _Beams(self.ids[rows], self.scores[rows], self.places[rows], self.owner[rows])

    @classmethod
    def join(cls, parts: Sequence[_Beams]) -> _Beams:
        names = ("ids", "scores", "places", "owner")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def beam_search(cache: PrefixCache, prompt: Sequence[int], processor: Any, *, length: int, beams: int) -> Hypotheses:
    """The `beams` best outputs of `length` tokens after `prompt`; all of them when there are fewer.

    `processor` is an Outlines logits processor; one with `columns` and `forced` (MaskProcessor) has the output head
    computed for these columns alone. The best path's keys and values stay in the cache.
    """
    lead = _lead(processor, length)
    root = cache.extend([*prompt, *lead])
    live = _Beams.begin(lead)
    while live.ids.shape[1] < length:
        live = _cut(_step(cache, live, processor, len(lead), root), beams)
    keep = live.part(_order(live))
    path = keep.places[0, len(lead) :].tolist()
    known = path.index(NOWHERE) if NOWHERE in path else len(path)
    cache.keep(keep.ids[0, len(lead) : len(lead) + known].tolist(), path[:known])
    return Hypotheses(keep.ids, keep.scores)


def beam_search_along(
    cache: PrefixCache, roots: torch.Tensor, bases: np.ndarray, processor: Any, *, length: int, beams: Sequence[int]
) -> list[Hypotheses]:
    """`beam_search` at several places of the sequence that `cache` holds, `beams[n]` wide at place n.

    `roots` [n, width] are the hidden states behind the output's forced lead, `bases` int64 [n] how many of the ids
    stand before what follows it. The ids stay in the cache, the trees do not.
    """
    lead = _lead(processor, length)
    live = _Beams.begin(lead, len(bases))
    while live.ids.shape[1] < length:
        grown = _step(cache, live, processor, len(lead), roots, bases)
        live = _Beams.join([_cut(grown.part(grown.owner == n), wide) for n, wide in enumerate(beams)])
    cache.cut(0)
    every = [live.part(live.owner == n) for n in range(len(bases))]
    return [Hypotheses(one.ids[order], one.scores[order]) for one in every for order in [_order(one)]]


def exhaustive_search(
    cache: PrefixCache, prompt: Sequence[int], processor: Any, *, length: int, chunk: int
) -> Hypotheses:
    """Every output that the grammar allows, depth first, `chunk` prefixes at a time, so memory stays flat."""
    lead = _lead(processor, length)
    root = cache.extend([*prompt, *lead])
    done: list[_Beams] = []

    def descend(live: _Beams) -> None:
        if live.ids.shape[1] == length:
            done.append(live)
            return
        for start in range(0, len(live.ids), chunk):
            mark = cache.branched
            descend(_step(cache, live.part(slice(start, start + chunk)), processor, len(lead), root))
            cache.cut(mark)

    descend(_Beams.begin(lead))
    every = _Beams.join(done)
    order = _order(every)
    return Hypotheses(every.ids[order], every.scores[order])


def _lead(processor: Any, length: int) -> list[int]:
    """What the output must begin with: forwarded together with the prompt."""
    lead: list[int] = []
    if not hasattr(processor, "forced"):
        return lead
    while len(lead) < length and (token := int(processor.forced(np.array([lead], dtype=np.int64))[0])) >= 0:
        lead.append(token)
    return lead


def _order(live: _Beams) -> np.ndarray:
    return np.lexsort((*live.ids.T[::-1], -live.scores))


def _step(
    cache: PrefixCache, live: _Beams, processor: Any, lead: int, roots: torch.Tensor, bases: np.ndarray | None = None
) -> _Beams:
    """Every legal continuation by one token, beams' ids in order."""
    count = len(live.ids)
    forced = processor.forced(live.ids) if hasattr(processor, "forced") else np.full(count, NOWHERE)
    certain, asking = np.flatnonzero(forced >= 0), np.flatnonzero(forced < 0)
    rows, tokens, scores = [certain], [forced[certain]], [live.scores[certain]]
    if len(asking):
        hidden = _hidden(cache, live, asking, lead, roots, bases)
        ids = torch.from_numpy(live.ids[asking])
        columns = processor.columns(live.ids[asking]) if hasattr(processor, "columns") else np.arange(cache.rows)
        step = processor(ids, cache.logits(hidden, columns)).double().cpu().numpy()
        row, column = np.nonzero(step > -np.inf)
        rows.append(asking[row])
        tokens.append(columns[column])
        scores.append(live.scores[asking][row] + step[row, column])
    return live.take(np.concatenate(rows), np.concatenate(tokens), np.concatenate(scores))


def _hidden(
    cache: PrefixCache, live: _Beams, asking: np.ndarray, lead: int, roots: torch.Tensor, bases: np.ndarray | None
) -> torch.Tensor:
    """Hidden states [b, width] of the last tokens of the beams `asking`; forwards what of them is not forwarded."""
    depth = live.ids.shape[1] - lead
    if depth == 0:
        return roots[torch.from_numpy(live.owner[asking]).to(roots.device)]
    ids, places = live.ids[asking, lead:], live.places[asking, lead:]
    beam, level = np.nonzero(places == NOWHERE)  # the beams' own tails: no two of them share a node
    places[beam, level] = cache.branched + np.arange(len(beam))
    above = np.where(np.arange(depth) < level[:, None], places[beam], NOWHERE)
    after = None if bases is None else bases[live.owner[asking]][beam]
    hidden = cache.branch(ids[beam, level], level, above, after)
    live.places[asking, lead:] = places
    return hidden[torch.from_numpy(np.flatnonzero(level == depth - 1)).to(hidden.device)]


def _cut(live: _Beams, beams: int) -> _Beams:
    """The best `beams`, and what equals the last of them, up to as many again; equal scores by ids."""
    if len(live.scores) <= beams:
        return live
    bound = np.partition(live.scores, -beams)[-beams]
    near = live.part(np.flatnonzero(live.scores >= bound))
    return near.part(_order(near)[: 2 * beams])
