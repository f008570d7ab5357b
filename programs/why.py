"""Why an item was recommended, or was not: the numbers the decision rests on, and no story on top of them.

`Why` holds them; `tell` makes lines of them. A chat and a dialogue from elsewhere both come as a `Case`. Knows nothing
of how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from gcrs.programs.influence import Moved, influence
from gcrs.programs.session_file import Exchange, Mark
from gcrs.toolkit.dialogue.turns import Dialogue, Feedback
from gcrs.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gcrs.programs.recommender import Recommender
    from gcrs.programs.rules import Rules
    from gcrs.programs.session import ChatSession
    from gcrs.programs.session_file import Decision
    from gcrs.toolkit.catalog.item import Catalog, Item

MOST_RELATED = 3
LONGEST_SHARED = 60
LEAST_MOVED = 0.01  # of log P; less is the arithmetic of another order of additions


@dataclass(frozen=True)
class Case:
    """What an explanation is drawn from: a conversation, its rules, and the reply that ranked the item, if one did.

    `context` is what that reply answered (without one, all that was said); `targets` are its items. `spoken` are items
    that the person mentioned or judged, oldest first; `mentioned` by either side. `permitted` says whether rules and
    exclusions admit the item.
    """

    recommender: Recommender
    rules: Rules
    k: int
    context: Dialogue
    decision: Decision | None
    targets: tuple[str, ...]
    spoken: tuple[str, ...]
    mentioned: Collection[str]
    feedback: Mapping[str, Feedback]
    permitted: bool
    left_out: int

    @property
    def catalog(self) -> Catalog:
        """The items, retired ones included."""
        return self.recommender.parts.catalog

    @property
    def retired(self) -> frozenset[str]:
        """Items that the catalogue no longer offers."""
        return self.recommender.parts.edition.retired


@dataclass(frozen=True)
class Shared:
    """Facts that the item has in common with one that the person mentioned or liked."""

    item: str
    how: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Why:
    """The numbers behind an item: its place (from 1) among the ranked, None when it is not; log P where it is known.

    `near` are its neighbours in the ranking (place, item, log P); `moved` says what each mention did to log P; `barred`
    is the sentence that says why it is not recommended, None when nothing bars it.
    """

    item: str
    place: int | None
    score: float | None
    near: tuple[tuple[int, str, float], ...]
    moved: tuple[Moved, ...]
    shared: tuple[Shared, ...]
    related: bool
    barred: str | None


def explain(session: ChatSession, item_id: str | None = None) -> tuple[str, ...]:
    """Lines that explain the newest reply that ranked the item; without one, the last recommendation's first target.

    UsageError when nothing was recommended yet and no item is named.
    """
    exchanges = session.exchanges
    if item_id is None:
        asked = next((e for e in reversed(exchanges) if e.assistant.decided_targets), None)
        if asked is None:
            raise UsageError("Nothing was recommended yet.", hint="Ask for something first.")
        item_id = asked.assistant.decided_targets[0]
    case = case_of(session, session.catalog[item_id].id)
    return tell(case, why(case, session.catalog[item_id].id))


def case_of(session: ChatSession, item: str) -> Case:
    """The case of an item in a chat."""
    exchanges = session.exchanges
    place = _ranked(exchanges, item)
    found = None if place is None else exchanges[place]
    turns = session.dialogue.turns if place is None else session.dialogue.turns[: 2 * place + 1]
    liked = [i for i, value in session.feedback.items() if value == "liked"]
    mine = [i for e in exchanges for i in (*e.user.mentions, *e.user.feedback)]
    return Case(
        session.recommender,
        session.rules,
        session.k,
        Dialogue(session.dialogue.id, turns),
        None if found is None else found.decision,
        () if found is None else found.assistant.decided_targets,
        tuple(dict.fromkeys([*mine, *liked])),
        frozenset(session.mentioned),
        session.feedback,
        session.permits(item),
        len(_said_before(session, found)),
    )


def _said_before(session: ChatSession, found: Exchange | None) -> set[str]:
    """Items that were mentioned, given or judged before a reply was given; without one, until now."""
    steps = list(takewhile(lambda step: step is not found, session.steps))
    turns = [turn for step in steps if isinstance(step, Exchange) for turn in (step.user, step.assistant)]
    turns += [] if found is None else [found.user]
    marked = {step.item for step in steps if isinstance(step, Mark)}
    return marked.union(*([*turn.mentions, *turn.decided_targets] for turn in turns))


def why(case: Case, item_id: str, *, moved: bool = True, stop: Callable[[], bool] | None = None) -> Why:
    """The numbers behind one item; `moved` scores it again without each mention, a pass each, until `stop` ends it."""
    item = case.catalog[item_id]
    ranking = () if case.decision is None else case.decision.ranking
    place = next((n for n, (other, _) in enumerate(ranking) if other == item.id), None)
    score = None if place is None else ranking[place][1]
    changes: tuple[Moved, ...] = ()
    if moved and case.context.turns and (case.decision is None or item.id not in case.decision.given):
        asked, changes = influence(case.recommender, case.context, item.id, case.rules.where, stop)
        score = asked if score is None else score
    near = [n for n in (place - 1, place + 1) if 0 <= n < len(ranking)] if place is not None else []
    related = [i for i in reversed(case.spoken) if i != item.id]
    return Why(
        item.id,
        None if place is None else place + 1,
        score,
        tuple((n + 1, *ranking[n]) for n in near),
        changes,
        _shared(case, item, related),
        bool(related),
        _barred(case, item),
    )


def tell(case: Case, found: Why) -> tuple[str, ...]:
    """The same as lines for a person."""
    item, told = case.catalog[found.item], case.decision
    lines = []
    if told is not None and (found.place is not None or item.id in (*case.targets, *told.given)):
        lines += [_intent_line(told), *_rank_lines(case, told, found, item)]
        if item.id in case.retired:
            lines.append(f"{item.label} has been retired since: it is not recommended again.")
    else:
        lines.append(f"{item.label} was not among the {case.k} best.")
        lines.append(found.barred or f"{item.label} could have been recommended: others were more probable.")
    for one in found.moved:
        if abs(one.change) >= LEAST_MOVED and found.score is not None:
            label = case.catalog[one.item].label
            lines.append(f"Without {label} in the conversation: {_percent(one.without)}, now {_percent(found.score)}.")
    for near in found.shared:
        label = case.catalog[near.item].label
        lines.append(f"It shares with {label}, which you {near.how}: {'; '.join(near.facts).rstrip('.')}.")
    if found.related and not found.shared:
        lines.append("It shares no listed fact with what you mentioned or liked.")
    lines.append(_rules_line(case))
    lines.append("The model states no reasons: these are the numbers and facts that the choice can be checked against.")
    return tuple(lines)


def _ranked(exchanges: Sequence[Exchange], item: str) -> int | None:
    """The newest exchange that recommended the item, else the newest that ranked it."""
    places = range(len(exchanges) - 1, -1, -1)
    for place in places:
        if item in exchanges[place].assistant.decided_targets:
            return place
    return next((p for p in places if any(item == one for one, _ in exchanges[p].decision.ranking)), None)


def _intent_line(told: Decision) -> str:
    chance = f"{100 * told.probabilities.get('recommend', 0):.0f} %"
    if told.forced:
        return f"A recommendation was asked for; by itself the model would have made one with {chance}."
    return f"The model chose to {told.intent}: recommending had {chance}."


def _rank_lines(case: Case, told: Decision, found: Why, item: Item) -> list[str]:
    if item.id in told.given:
        return [f"{item.label} was given as the target, not chosen by the model."]
    if found.place is None or found.score is None:
        return [f"{item.label} was chosen after the reply's first item."]
    total = f"{told.allowed:,} allowed of {len(case.catalog):,} items"
    lines = [f"{item.label} came {_ordinal(found.place)} of {total}, with P = {_percent(found.score)}."]
    for place, other, value in found.near:
        side = "ahead of it" if place < found.place else "behind it"
        lines.append(f"Next {side}: {case.catalog[other].label}, {_percent(value)}.")
    return lines


def _barred(case: Case, item: Item) -> str | None:
    if item.id in case.retired:
        return f"{item.label} is retired: the catalogue no longer offers it."
    if item.id in {case.catalog.canonical(one) for one in case.rules.exclude}:
        return f"{item.label} is excluded for this session."
    if not case.permitted:
        return f"{item.label} does not satisfy {', '.join(case.rules.spelled)}."
    if (value := case.feedback.get(item.id)) is not None:
        return f"You said of {item.label}: {value}; so it is not recommended."
    if item.id in case.mentioned:
        return f"{item.label} was mentioned before; so it is not recommended unless you ask for it again."
    return None


def _shared(case: Case, item: Item, related: Sequence[str]) -> tuple[Shared, ...]:
    """Facts that the item shares with what the person mentioned or liked, newest first."""
    found: list[Shared] = []
    for other_id in [i for i in related if case.feedback.get(i) != "disliked"]:
        if facts := shared_facts(item, case.catalog[other_id]):
            how = "liked" if case.feedback.get(other_id) == "liked" else "mentioned"
            found.append(Shared(other_id, how, tuple(facts)))
        if len(found) == MOST_RELATED:
            break
    return tuple(found)


def shared_facts(one: Item, other: Item) -> list[str]:
    """`column: value` of each fact that both items have; of lists, the entries in common."""
    out = []
    for key, value in one.facts.items():
        theirs = other.facts.get(key)
        if isinstance(value, list) and isinstance(theirs, list):
            if common := [entry for entry in value if entry in theirs]:
                out.append(f"{key}: {', '.join(common)}")
        elif theirs == value and len(str(value)) <= LONGEST_SHARED and not isinstance(value, list):
            out.append(f"{key}: {value}")
    return out


def _rules_line(case: Case) -> str:
    rules = ", ".join(case.rules.spelled) or "none"
    excluded = f"; {len(case.rules.exclude)} excluded by you" if case.rules.exclude else ""
    return f"Rules in force: {rules}{excluded}; {case.left_out} left out because mentioned, given or judged."


def _percent(score: float) -> str:
    return f"{100 * math.exp(score):.2g} %"


def _ordinal(n: int) -> str:
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{({1: 'st', 2: 'nd', 3: 'rd'}).get(n % 10, 'th')}"
