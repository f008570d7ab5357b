"""What the model did on a split, joined to its replies: rankings, intents, likelihoods; and what follows from them.

Knows nothing of processes, baselines or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrs.toolkit.eval.decisions import bits_per_byte, intent_scores, perplexity
from gcrs.toolkit.eval.metrics import Resampling, recall_at
from gcrs.toolkit.eval.one_pass import TurnScore
from gcrs.toolkit.eval.rows import Ground, Rankings
from gcrs.toolkit.eval.spread import BANDS, NAMED, breadth, by_band, calibration, failing_level

if TYPE_CHECKING:
    from gcrs.toolkit.ids.codebook import Codebook

TOKENS = {
    "words": "the gold reply's words and its closing token, given the gold intent and targets; item spans left out",
    "spans": "the gold reply's item spans: their first token, codes and end, given the same",
    "all": "both",
}


@dataclass(frozen=True)
class Measured:
    """The scores of every assistant turn of every dialogue of `ground.split`, in its order."""

    ground: Ground
    turns: list[list[TurnScore]]

    @cached_property
    def of_context(self) -> list[TurnScore]:
        """The score of each context."""
        split = self.ground.split
        by_turn = [{score.turn: score for score in scores} for scores in self.turns]
        return [by_turn[split.place_of[one.dialogue.id]][one.turn] for one in split.contexts]

    @property
    def rankings(self) -> list[tuple[str, ...]]:
        """The model's ranking in each context, named items included."""
        return [score.ranking for score in self.of_context]

    @property
    def silent(self) -> frozenset[int]:
        """The contexts in which the model, left free, chats."""
        return frozenset(n for n, score in enumerate(self.of_context) if score.recommend < 0.5)

    def intents(self, seed: int) -> dict[str, Any]:
        """How well the free intent agrees with what the gold replies do."""
        said, gold, groups = [], [], []
        for dialogue, scores in zip(self.ground.split.named, self.turns, strict=True):
            for score in scores:
                said.append(score.recommend >= 0.5)
                gold.append(dialogue.turns[score.turn].decided_intent == "recommend")
                groups.append(dialogue.id)
        return {"n": len(said), "gold_recommend": sum(gold)} | intent_scores(said, gold, groups, seed=seed)

    def likelihood(self) -> dict[str, Any]:
        """Perplexity of the gold replies by kind of token, and bits per byte of their words."""
        every = [score for scores in self.turns for score in scores]
        nats = {"words": sum(s.words.nats for s in every), "spans": sum(s.spans.nats for s in every)}
        tokens = {"words": sum(s.words.tokens for s in every), "spans": sum(s.spans.tokens for s in every)}
        nats["all"], tokens["all"] = sum(nats.values()), sum(tokens.values())
        found = {
            name: {"on": TOKENS[name], "tokens": tokens[name], "perplexity": perplexity(nats[name], tokens[name])}
            for name in TOKENS
        }
        size = sum(s.size for s in every)
        words = {"bytes": size, "bits_per_byte": bits_per_byte(nats["words"], size)}
        return {"n": len(every), "words": found["words"] | words, "spans": found["spans"], "all": found["all"]}

    def targets(self, book: Codebook, seed: int) -> dict[str, Any]:
        """The target step by itself: whether its best item is one of the reply's, where it fails, how sure it is."""
        split = self.ground.split
        asked = {case.context for case in split.cases}  # all, unless items outside the catalogue are left out
        pairs = [(one, score) for n, (one, score) in enumerate(zip(split.contexts, self.of_context, strict=True))
                 if n in asked]  # fmt: skip
        right = [score.ranking != () and score.ranking[0] in one.gold for one, score in pairs]
        groups = [one.dialogue.id for one, _ in pairs]
        precision = Resampling(groups, seed=seed).estimate(np.asarray(right, dtype=np.float64))
        levels = [0] * (book.levels + 1)
        for one, score in pairs:
            gold = [book.semantic_id(item) for item in one.gold if item in book.ids]
            if gold and score.ranking:
                levels[failing_level(book.semantic_id(score.ranking[0]), gold)] += 1
        chances = [math.exp(score.scores[0]) if score.scores else 0.0 for _, score in pairs]
        named = {chr(ord("a") + level): count for level, count in enumerate(levels[:-1])}
        return {
            "n": len(pairs),
            "precision": precision.to_json(),
            "leaves_gold_at": {**named, "never": levels[-1]},
            "calibration": calibration(chances, right),
        }

    def spread(self, rows: Mapping[str, tuple[Rankings, Sequence[int]]], items: int, seed: int) -> dict[str, Any]:
        """Coverage and Gini of what each row recommends; recall by how popular the gold is and how much was named.

        `rows` are rankings of all contexts, and ranks of all cases under protocol `all`, forced.
        """
        split, trained = self.ground.split, self.ground.trained
        hits = {name: recall_at(ranks, 10) for name, (_, ranks) in rows.items()}
        popularity = [trained.get(case.gold, 0) for case in split.cases]
        named = [len(split.contexts[case.context].named) for case in split.cases]
        groups = self.ground.groups("all")
        return {
            "protocol": "all",
            "mode": "forced",
            "n": len(self.of_context),
            "items": items,
            "rows": {name: breadth([one or () for one in rankings], items) for name, (rankings, _) in rows.items()},
            "recall@10_by_popularity": by_band(hits, popularity, BANDS, groups, seed=seed),
            "recall@10_by_items_named": by_band(hits, named, NAMED, groups, seed=seed),
        }
