"""The training tasks by name: those of gcrs, and those that others register. What a run learns from is a list of these.

    @register_task("trailers", "what a trailer says -> the item")
    def trailers(data: TaskData) -> Task: ...

A package may offer tasks instead as entry points of the group `gcrs.tasks`, each such a function. Knows nothing of
shares, tokens or weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from gcrs.toolkit.dialogue.corpus import Layout
from gcrs.toolkit.dialogue.dialogue_tasks import (
    Baskets,
    Excerpts,
    HistoryToId,
    OwnMentions,
    PlainChat,
    WholeDialogues,
)
from gcrs.toolkit.dialogue.ratings import Contrast, RatingsToId, Taste, tastes_of
from gcrs.toolkit.dialogue.tasks import (
    FactsToItem,
    IdToItem,
    ItemToId,
    MentionsToId,
    SmallTalk,
    Source,
    Task,
    Transferred,
)
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import DataError

ENDLESS = 10**9  # examples of a task that makes them: they never repeat in a run
GROUP = "gcrs.tasks"


@dataclass(frozen=True)
class TaskData:
    """What tasks may draw from. Items are canonical ids of the catalogue everywhere."""

    source: Source
    """The catalogue: items by weight, facts as words, neighbours, seeded random numbers."""
    dialogues: Sequence[Dialogue] = ()
    """Training dialogues."""
    unordered: Sequence[Dialogue] = ()
    """Dialogues whose message order is unreliable (`extra_items`)."""
    tastes: Sequence[Taste] = ()
    """Ratings (`ratings`), by person."""
    talk: Sequence[Dialogue] = ()
    """Talk without items (`chat`)."""
    layout: Layout = field(default="dialogue")
    """How whole dialogues are laid out."""


Maker = Callable[[TaskData], Task]


@dataclass(frozen=True)
class Entry:
    """A registered task: how it is made and what it teaches, in a few words."""

    name: str
    teaches: str
    make: Maker
    needs: str = ""
    """What it draws from, if not from the catalogue alone: the flag or setting that brings it."""


_REGISTERED: dict[str, Entry] = {}


def register_task(name: str, teaches: str, *, needs: str = "") -> Callable[[Maker], Maker]:
    """Register a function that makes a task from TaskData under a name that mixtures can use.

    A second registration of a name replaces the first.
    """

    def keep(make: Maker) -> Maker:
        _REGISTERED[name] = Entry(name, teaches, make, needs)
        return make

    return keep


def known_tasks() -> dict[str, Entry]:
    """All tasks by name: those registered here and by others, and the entry points that are installed."""
    return _offered() | _REGISTERED


@cache
def _offered() -> dict[str, Entry]:
    from importlib.metadata import entry_points

    def later(point: object) -> Maker:
        return lambda data: point.load()(data)  # type: ignore[attr-defined, no-any-return]

    return {
        point.name: Entry(point.name, f"of {getattr(point.dist, 'name', 'another package')}", later(point))
        for point in entry_points(group=GROUP)
    }


def check_task(name: str, where: str = "The mixture") -> Entry:
    """The task of that name; DataError names the nearest known one."""
    known = known_tasks()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
        raise DataError(f"{where} names the task {name!r}, which is not known.", hint=hint)
    return known[name]


def make_task(name: str, data: TaskData) -> Task:
    """The task over this data. DataError for an unknown name and for a task that has nothing to draw from."""
    entry = check_task(name)
    task = entry.make(data)
    if task.num_examples < 1:
        needs = f"It draws from {entry.needs}." if entry.needs else "Leave it out of the mixture."
        raise DataError(f"The task {name!r} has no data: not one example could be made.", hint=needs)
    return task


def has_data(name: str, data: TaskData) -> bool:
    """Whether the task has an example over this data."""
    return check_task(name).make(data).num_examples > 0


DIALOGUES, RATINGS = "--dialogues FILE", "--ratings FILE"


@register_task("dialogue", "whole dialogues, every reply: the paper's recipe", needs=DIALOGUES)
def _dialogue(data: TaskData) -> Task:
    return WholeDialogues(data.dialogues, data.layout)


@register_task("excerpts", "the dialogues' lines with items, replies without their words", needs=DIALOGUES)
def _excerpts(data: TaskData) -> Task:
    return Excerpts([*data.dialogues, *data.unordered])


@register_task("own-mentions", "which items the person names", needs=DIALOGUES)
def _own_mentions(data: TaskData) -> Task:
    return OwnMentions([*data.dialogues, *data.unordered])


@register_task("history-to-id", "the items named so far, without words -> the next reply's", needs=DIALOGUES)
def _history(data: TaskData) -> Task:
    return HistoryToId(data.dialogues)


@register_task("baskets", "the dialogues' items in ever new orders -> each second one", needs=DIALOGUES)
def _baskets(data: TaskData) -> Task:
    return Baskets([*data.dialogues, *data.unordered], data.source)


@register_task("chat", "talk without items, against forgetting how to talk")
def _chat(data: TaskData) -> Task:
    return PlainChat(data.talk, data.dialogues, data.source, ENDLESS)


@register_task("item-to-id", "an item's title or text -> its ID")
def _item_to_id(data: TaskData) -> Task:
    return ItemToId(data.source, ENDLESS)


@register_task("id-to-item", "an ID -> its title or facts")
def _id_to_item(data: TaskData) -> Task:
    return IdToItem(data.source, ENDLESS)


@register_task("facts-to-item", "some facts as a request -> an ID")
def _facts(data: TaskData) -> Task:
    return FactsToItem(data.source, ENDLESS)


@register_task("mentions-to-id", "liked items in a request -> an ID that goes with them")
def _mentions(data: TaskData) -> Task:
    return MentionsToId(data.source, ENDLESS)


@register_task("ratings-to-id", "items that a person rated -> another that they rated high", needs=RATINGS)
def _ratings(data: TaskData) -> Task:
    return RatingsToId(data.source, data.tastes)


@register_task("contrast", "one item liked, one disliked -> an ID that goes with the first; and turned round")
def _contrast(data: TaskData) -> Task:
    return Contrast(data.source, [*data.tastes, *tastes_of(data.dialogues)], ENDLESS)


@register_task("transferred", "whole small dialogues from skeletons, with items that go together")
def _transferred(data: TaskData) -> Task:
    return Transferred(data.source, ENDLESS)


@register_task("small-talk", "greetings, thanks and other talk that comes with gcrs")
def _small_talk(data: TaskData) -> Task:
    return SmallTalk(data.source, ENDLESS)
