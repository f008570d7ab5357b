"""Ratings of items by people as data: a file of user, item, rating; and the training tasks that draw from tastes.

Knows nothing of tokens, weights or budgets.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from gcrs.toolkit.dialogue.corpus import Layout
from gcrs.toolkit.dialogue.encode import Kind
from gcrs.toolkit.dialogue.request_words import ANSWERS, CONTRAST, RATED, RATED_NOT
from gcrs.toolkit.dialogue.tasks import REPLY, Source, pick
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import DataError

COLUMNS = ("user", "item", "rating")
MOST_LIKED, MOST_DISLIKED = 6, 2  # of one example's history


@dataclass(frozen=True)
class Taste:
    """What one person liked and disliked, in the order of the data."""

    liked: tuple[str, ...]
    disliked: tuple[str, ...]


def read_ratings(path: Path, rename: Callable[[str], str | None]) -> list[Taste]:
    """Tastes from a CSV file with the columns user, item and rating, in the order in which people come first.

    `rename` gives an item's own id, None for one outside the catalogue (left out). Liked is what a person rates above
    their own mean, disliked what they rate below it; of someone who rates all alike everything is liked. DataError
    names the line with what was found and expected.
    """
    by_user: dict[str, list[tuple[str, float]]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path} has no column {missing[0]!r}; its first line is {','.join(reader.fieldnames or ())!r}.",
                    hint="Expected a CSV file with the columns user,item,rating.",
                )
            for row in reader:
                try:
                    rating = float(row["rating"])
                except (TypeError, ValueError):
                    raise DataError(
                        f"{path}, line {reader.line_num}: rating is {row['rating']!r}, expected a number."
                    ) from None
                if (item := rename(row["item"])) is not None:
                    by_user.setdefault(row["user"], []).append((item, rating))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}.") from error
    return [_taste(rated) for rated in by_user.values()]


def _taste(rated: Sequence[tuple[str, float]]) -> Taste:
    latest = dict(rated)  # a second rating of an item counts
    values = list(latest.values())
    mean, flat = sum(values) / len(values), max(values) == min(values)
    liked = tuple(item for item, value in latest.items() if value > mean or flat)
    return Taste(liked, tuple(item for item, value in latest.items() if value < mean))


def tastes_of(dialogues: Sequence[Dialogue]) -> list[Taste]:
    """What people said in dialogues that they liked and disliked, of those who said both."""
    out = []
    for dialogue in dialogues:
        said = {item: value for turn in dialogue.turns for item, value in turn.feedback.items()}
        taste = Taste(*(tuple(item for item, value in said.items() if value == one) for one in ("liked", "disliked")))
        if len(taste.liked) > 1 and taste.disliked:
            out.append(taste)
    return out


class RatingsToId:
    """Some items that a person rated high and low -> another one that they rated high."""

    name: ClassVar[str] = "ratings-to-id"
    layout: Layout = "dialogue"
    supervises: frozenset[Kind] = REPLY

    def __init__(self, source: Source, tastes: Sequence[Taste]) -> None:
        self.source = source
        self.tastes = [taste for taste in tastes if len(taste.liked) > 1]
        self._ends = np.cumsum([len(taste.liked) for taste in self.tastes])

    @property
    def num_examples(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def get_example(self, n: int) -> Dialogue:
        row = int(np.searchsorted(self._ends, n, side="right"))
        taste, rng = self.tastes[row], self.source.rng(self.name, n)
        target = taste.liked[n - int(self._ends[row])]
        liked = _some([item for item in taste.liked if item != target], MOST_LIKED, rng)
        disliked = _some(taste.disliked, MOST_DISLIKED, rng)
        asked = pick(RATED, rng).format(liked=_listed(liked), **self.source.slots())
        if disliked and rng.random() < 0.5:
            asked = f"{asked} {pick(RATED_NOT, rng).format(disliked=_listed(disliked))}"
        return _recommended(f"{self.name}-{n}", asked, target, rng)


class Contrast:
    """The same two items, one liked and one disliked -> the ID that goes with the liked one; then the other way round.

    Examples 2 i and 2 i + 1 differ in nothing but which one is liked, so that only the words decide. Every other pair
    comes from people who liked and disliked something, where there are any (the second of it is made).
    """

    name: ClassVar[str] = "contrast"
    layout: Layout = "dialogue"
    supervises: frozenset[Kind] = REPLY

    def __init__(self, source: Source, tastes: Sequence[Taste], num_examples: int) -> None:
        self.source, self._count = source, num_examples
        self.tastes = [taste for taste in tastes if len(taste.liked) > 1 and taste.disliked]

    @property
    def num_examples(self) -> int:
        return self._count

    def get_example(self, n: int) -> Dialogue:
        pair, turned = divmod(n, 2)
        source, rng = self.source, self.source.rng(self.name, pair)
        if self.tastes and pair % 2:
            taste = self.tastes[int(rng.integers(len(self.tastes)))]
            target, liked = (str(item) for item in rng.permutation(list(taste.liked))[:2])
            disliked = pick(taste.disliked, rng)
        else:
            target = source.item(rng)
            liked = source.like(target, rng)
            disliked = source.related.far(target, rng)
        if turned:
            liked, disliked = disliked, liked
            target = source.like(liked, rng, (disliked,))
        words = pick(CONTRAST, source.rng(self.name, pair))
        asked = words.format(a=f"<item:{liked}>", d=f"<item:{disliked}>", **source.slots())
        return _recommended(f"{self.name}-{n}", asked, target, rng)


def _recommended(name: str, asked: str, item: str, rng: np.random.Generator) -> Dialogue:
    answer = pick(ANSWERS, rng).format(x=f"<item:{item}>")
    return Dialogue(name, (Turn("user", asked), Turn("assistant", answer, "recommend", (item,))))


def _some(items: Sequence[str], most: int, rng: np.random.Generator) -> list[str]:
    """Between one and `most` of them in a random order; [] of none."""
    count = min(len(items), int(rng.integers(1, most + 1)))
    return [items[n] for n in rng.permutation(len(items))[:count]]


def _listed(items: Sequence[str]) -> str:
    spans = [f"<item:{item}>" for item in items]
    return spans[0] if len(spans) == 1 else f"{', '.join(spans[:-1])} and {spans[-1]}"
