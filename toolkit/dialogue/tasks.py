"""Training tasks over a catalogue: item -> ID, ID -> item, facts -> ID, mentions -> ID, transferred dialogues, chat.

A task is `name`, `num_examples` and `get_example(n)`: a pure function of (data, seed, n), so that a run can be
resumed and a mixture can draw from it; with how an example is laid out
and what of it is supervised. The words are our own; items come from the catalogue. Knows nothing of tokens, weights or
budgets.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.corpus import Layout
from gcrs.toolkit.dialogue.encode import Kind
from gcrs.toolkit.dialogue.fact_words import FactWords, Wish
from gcrs.toolkit.dialogue.related import Related
from gcrs.toolkit.dialogue.request_words import (
    ANSWERS,
    ASK_ITEM,
    FACTS_ASKED,
    FACTS_HELD_OUT,
    LIKE,
    LOOKUP,
    PLAIN,
    SMALL_TALK,
    TOLD,
    UNNAMED,
)
from gcrs.toolkit.dialogue.skeletons import Skeleton, shipped_skeletons
from gcrs.toolkit.dialogue.turns import Dialogue, Turn

REPLY = frozenset({Kind.INTENT, Kind.TARGET, Kind.TEXT, Kind.MENTION})  # everything after `Assistant:`


class Task(Protocol):
    """Something to learn from: example n of `num_examples` is the same whenever it is asked for."""

    @property
    def name(self) -> str:
        """What mixtures call it."""

    @property
    def layout(self) -> Layout:
        """How an example becomes a sequence: whole, an instance a target, or its items alone."""

    @property
    def supervises(self) -> frozenset[Kind]:
        """The kinds of tokens that it teaches; loss weights by kind come on top."""

    @property
    def num_examples(self) -> int:
        """How many examples there are before they repeat."""

    def get_example(self, n: int) -> Dialogue:
        """Example n, 0 <= n < num_examples."""


class Source:
    """What the tasks draw from: the items with their weights, wishes and neighbours.

    `words` maps an item id to the text that its encoder read; `popularity` weighs the items that are recommended
    (count plus one, to the power 0.5); `baskets` are items that people mentioned in one dialogue.
    """

    def __init__(
        self,
        catalog: Catalog,
        facts: FactWords,
        related: Related,
        words: Mapping[str, str],
        *,
        popularity: Mapping[str, int] | None = None,
        baskets: Sequence[Sequence[str]] = (),
        seed: int = 0,
    ) -> None:
        self.catalog, self.facts, self.related, self.words, self.seed = catalog, facts, related, words, seed
        self.ids = [item.id for item in catalog]
        popularity = popularity or {}
        weights = np.asarray([(popularity.get(item, 0) + 1.0) ** 0.5 for item in self.ids])
        self._cumulative = np.cumsum(weights / weights.sum())
        self._with: dict[str, list[Sequence[str]]] = {}
        for basket in baskets:
            for item in set(basket) if len(set(basket)) > 1 else ():
                self._with.setdefault(item, []).append(tuple(basket))

    def rng(self, task: str, n: int) -> np.random.Generator:
        """The random numbers of one example."""
        return np.random.default_rng([self.seed, zlib.crc32(task.encode()), n])

    def item(self, rng: np.random.Generator) -> str:
        """An item to recommend, drawn by weight."""
        return self.ids[min(int(np.searchsorted(self._cumulative, rng.random())), len(self.ids) - 1)]

    def like(self, item: str, rng: np.random.Generator, but: Sequence[str] = ()) -> str:
        """An item that goes with this one: from its baskets where it has some (half of the time), else a neighbour."""
        used = {item, *but}
        if (baskets := self._with.get(item)) and rng.random() < 0.5:
            basket = baskets[int(rng.integers(len(baskets)))]
            if others := [other for other in dict.fromkeys(basket) if other not in used and other in self.catalog]:
                return pick(others, rng)
        near = [other for other in self.related.nearest(item) if other not in used]
        if near:  # the nearest more often
            return near[min(int(rng.geometric(0.3)) - 1, len(near) - 1)]
        return self.related.far(item, rng)

    def wishes(self, item: str, rng: np.random.Generator, most: int | None = None) -> list[Wish]:
        """One to three facts of the item as wishes; [] for an item without facts."""
        return self.facts.wishes(self.catalog[item], rng, most or int(rng.choice([1, 2, 2, 3])))

    def slots(self) -> dict[str, str]:
        """The words of the slots that depend on the noun alone."""
        noun = self.facts.noun
        if not noun:
            return {"one": "something", "good": "something good", "kind": "things", "idea": "idea"}
        from gcrs.toolkit.dialogue.fact_words import article

        return {"one": f"{article(noun)} {noun}", "good": f"a good {noun}", "kind": self.facts.nouns, "idea": noun}


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options."""
    return str(options[int(rng.integers(len(options)))])


class _OfItems:
    """What the tasks below share: a name, a source and a number of examples."""

    name = ""
    layout: Layout = "dialogue"
    supervises: frozenset[Kind] = REPLY

    def __init__(self, source: Source, num_examples: int) -> None:
        self.source = source
        self._count = num_examples

    @property
    def num_examples(self) -> int:
        return self._count

    def get_example(self, n: int) -> Dialogue:
        rng = self.source.rng(self.name, n)
        return Dialogue(f"{self.name}-{n}", self.turns(rng))

    def turns(self, rng: np.random.Generator) -> tuple[Turn, ...]:
        raise NotImplementedError

    def recommend(self, asked: str, item: str, rng: np.random.Generator) -> tuple[Turn, ...]:
        """A request and its answer with one item."""
        answer = pick(ANSWERS, rng).format(x=f"<item:{item}>")
        return Turn("user", asked), Turn("assistant", answer, "recommend", (item,))


class ItemToId(_OfItems):
    """The item's text -> its ID."""

    name = "item-to-id"

    def turns(self, rng: np.random.Generator) -> tuple[Turn, ...]:
        item = self.source.item(rng)
        words = self.source.words[item] if rng.random() < 0.7 else self.source.catalog[item].title
        return self.recommend(pick(LOOKUP, rng).format(words=_safe(words)), item, rng)


class IdToItem(_OfItems):
    """The ID -> its title, or its facts."""

    name = "id-to-item"

    def turns(self, rng: np.random.Generator) -> tuple[Turn, ...]:
        item = self.source.item(rng)
        told = self.source.facts.told(self.source.catalog[item], rng)
        if not told or rng.random() < 0.3:
            asked, answer = pick(UNNAMED, rng), _safe(self.source.catalog[item].title)
        else:
            asked, answer = pick(ASK_ITEM, rng), pick(TOLD, rng).format(x=f"<item:{item}>", told=_safe(told))
        return Turn("user", asked.format(x=f"<item:{item}>")), Turn("assistant", answer, "chat")


class FactsToItem(_OfItems):
    """Some facts of an item as a request -> its ID. `held_out` asks in words that training never uses."""

    name = "facts-to-item"

    def __init__(self, source: Source, num_examples: int, *, held_out: bool = False) -> None:
        super().__init__(source, num_examples)
        self.forms = FACTS_HELD_OUT if held_out else FACTS_ASKED
        if held_out:
            self.name = "facts-to-item-held-out"

    def turns(self, rng: np.random.Generator) -> tuple[Turn, ...]:
        item = self.source.item(rng)
        wishes = self.source.wishes(item, rng, 3 if self.forms is FACTS_HELD_OUT else None)
        if not wishes:
            return self.recommend(pick(LOOKUP, rng).format(words=_safe(self.source.catalog[item].title)), item, rng)
        facts = self.source.facts
        filled = pick(self.forms, rng).format(want=facts.phrase(wishes), keys=facts.keywords(wishes))
        return self.recommend(_safe(filled), item, rng)


class MentionsToId(_OfItems):
    """Liked items -> the ID of one that goes with them; now and then a plain request without any."""

    name = "mentions-to-id"

    def turns(self, rng: np.random.Generator) -> tuple[Turn, ...]:
        target = self.source.item(rng)
        slots = self.source.slots()
        if rng.random() < 0.15:
            return self.recommend(pick(PLAIN, rng).format(**slots), target, rng)
        a = self.source.like(target, rng)
        b = self.source.like(target, rng, (a,))
        asked = pick(LIKE, rng).format(a=f"<item:{a}>", b=f"<item:{b}>", **slots)
        return self.recommend(asked, target, rng)


class Transferred(_OfItems):
    """Skeletons of dialogues, filled with items that stand in the like relation."""

    name = "transferred"

    def __init__(self, source: Source, num_examples: int, skeletons: Sequence[Skeleton] = ()) -> None:
        super().__init__(source, num_examples)
        self.skeletons = tuple(skeletons) or shipped_skeletons()

    def get_example(self, n: int) -> Dialogue:
        rng, source = self.source.rng(self.name, n), self.source
        skeleton = self.skeletons[int(rng.integers(len(self.skeletons)))]
        x = source.item(rng)
        a = source.like(x, rng)
        b = source.like(x, rng, (a,))
        y = source.like(x, rng, (a, b))
        items = {"x": x, "a": a, "b": b, "y": y, "d": source.related.far(x, rng)}
        slots = source.slots()
        words = {key: slots[key] for key in ("one", "good", "kind")}
        for item, want, single in ((x, "want", "f"), (y, "want2", "f2")):
            wishes = source.wishes(item, rng)
            words[want] = _safe(source.facts.phrase(wishes)) if wishes else slots["good"]
            words[single] = _safe(wishes[0].words) if wishes else "good"
        return skeleton.fill(f"{self.name}-{n}", items, words)


class SmallTalk(_OfItems):
    """Greetings, thanks and other talk that no item answers."""

    name = "small-talk"

    def turns(self, rng: np.random.Generator) -> tuple[Turn, ...]:
        asked, answer = SMALL_TALK[int(rng.integers(len(SMALL_TALK)))]
        return Turn("user", asked), Turn("assistant", answer.format(**self.source.slots()), "chat")


def _safe(text: str) -> str:
    """Words of a catalogue that must not read as a mention."""
    return text.replace("<item:", "< item:")
