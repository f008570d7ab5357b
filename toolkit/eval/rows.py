"""From rankings to rows: the rank of each case's gold item under each protocol, by canonical items or original ids.

Knows nothing of how a ranking came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gcrs.toolkit.eval.cases import PROTOCOLS, Case, Context, Protocol, candidates, spread_out, under
from gcrs.toolkit.eval.metrics import rank_of
from gcrs.toolkit.eval.split import Split

DEPTH = 50  # places of a ranking that count
Rankings = Sequence[Sequence[str] | None]  # one a context; None: this row did not rank it


@dataclass(frozen=True)
class Ground:
    """The cases of a split under every protocol.

    `trained` counts the training mentions of each item; `ids` are the original ids of items that have several.
    """

    split: Split
    trained: Mapping[str, int]
    ids: Mapping[str, Sequence[str]]

    @cached_property
    def places(self) -> dict[Protocol, list[int]]:
        """Which of the split's cases count under each protocol."""
        return {protocol: under(protocol, self.split.cases, self.trained) for protocol in PROTOCOLS}

    @cached_property
    def source_places(self) -> dict[Protocol, list[int]]:
        """The same of the cases by original ids, for the protocols that need no training counts."""
        return {protocol: under(protocol, self.split.source_cases, {}) for protocol in ("all", "new")}

    @cached_property
    def depths(self) -> list[int]:
        """How many items a row must rank in each context, so that enough are left without what is named."""
        return [DEPTH + len(context.named) for context in self.split.contexts]

    def groups(self, protocol: Protocol) -> list[str]:
        """The dialogue of each case that counts."""
        return [self.split.group(self.split.cases[n]) for n in self.places[protocol]]

    def source_groups(self, protocol: Protocol) -> list[str]:
        """The dialogue of each case by original ids that counts."""
        cases, contexts = self.split.source_cases, self.split.source_contexts
        return [contexts[cases[n].context].dialogue.id for n in self.source_places[protocol]]

    def ranks(self, rankings: Rankings, silent: frozenset[int] = frozenset()) -> dict[str, list[int | None]]:
        """Ranks by protocol; 0 where the gold item is not among the first 50, or the context is one of `silent`."""
        split = self.split
        return {
            protocol: _ranks(split.cases, places, split.contexts, rankings, protocol, silent, {})
            for protocol, places in self.places.items()
        }

    def source_ranks(self, rankings: Rankings) -> dict[str, list[int | None]]:
        """The same by original ids."""
        cases, contexts = self.split.source_cases, self.split.source_contexts
        return {
            protocol: _ranks(cases, places, contexts, rankings, protocol, frozenset(), self.ids)
            for protocol, places in self.source_places.items()
        }


def _ranks(
    cases: Sequence[Case],
    places: Sequence[int],
    contexts: Sequence[Context],
    rankings: Rankings,
    protocol: Protocol,
    silent: frozenset[int],
    ids: Mapping[str, Sequence[str]],
) -> list[int | None]:
    out: list[int | None] = []
    held: dict[int, list[str]] = {}
    for place in places:
        case = cases[place]
        ranking = rankings[case.context]
        if ranking is None:
            out.append(None)
            continue
        if case.context not in held:
            spread = spread_out(ranking, ids) if ids else ranking
            held[case.context] = candidates(protocol, spread, contexts[case.context].named)[:DEPTH]
        out.append(0 if case.context in silent else rank_of(case.gold, held[case.context]))
    return out
