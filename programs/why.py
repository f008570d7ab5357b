"""Why an item was recommended, or was not: the numbers the decision rests on, and no story on top of them.

Knows nothing of how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gcrs.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gcrs.programs.session import ChatSession
    from gcrs.programs.session_file import Exchange
    from gcrs.toolkit.catalog.item import Item

MOST_RELATED = 3
LONGEST_SHARED = 60


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
    item = session.catalog[item_id]
    found = _ranked(exchanges, item.id)
    lines = []
    if found is not None:
        lines += [_intent_line(found), *_rank_lines(session, found, item)]
        if item.id in session.retired:
            lines.append(f"{item.label} has been retired since: it is not recommended again.")
    else:
        lines.append(f"{item.label} was never among the {session.k} best of a reply.")
        lines += _barred(session, item)
    lines += _shared_lines(session, item)
    lines.append(_rules_line(session))
    lines.append("The model states no reasons: these are the numbers and facts that the choice can be checked against.")
    return tuple(lines)


def _ranked(exchanges: Sequence[Exchange], item: str) -> Exchange | None:
    for exchange in reversed(exchanges):
        if item in exchange.assistant.decided_targets:
            return exchange
    for exchange in reversed(exchanges):
        if any(item == other for other, _ in exchange.decision.ranking):
            return exchange
    return None


def _intent_line(exchange: Exchange) -> str:
    told = exchange.decision
    chance = f"{100 * told.probabilities.get('recommend', 0):.0f} %"
    if told.forced:
        return f"A recommendation was asked for; by itself the model would have made one with {chance}."
    return f"The model chose to {told.intent}: recommending had {chance}."


def _rank_lines(session: ChatSession, exchange: Exchange, item: Item) -> list[str]:
    told = exchange.decision
    if item.id in told.given:
        return [f"{item.label} was given as the target, not chosen by the model."]
    ranking = list(told.ranking)
    place = [other for other, _ in ranking].index(item.id) if item.id in dict(ranking) else None
    if place is None:
        return [f"{item.label} was chosen after the reply's first item."]
    score = ranking[place][1]
    total = f"{told.allowed:,} allowed of {len(session.catalog):,} items"
    lines = [f"{item.label} came {_ordinal(place + 1)} of {total}, with P = {100 * math.exp(score):.2g} %."]
    near = [n for n in (place - 1, place + 1) if 0 <= n < len(ranking)]
    for n in near:
        other, value = ranking[n]
        side = "ahead of it" if n < place else "behind it"
        lines.append(f"Next {side}: {session.catalog[other].label}, {100 * math.exp(value):.2g} %.")
    return lines


def _barred(session: ChatSession, item: Item) -> list[str]:
    if item.id in session.retired:
        return [f"{item.label} is retired: the catalogue no longer offers it."]
    if item.id in session.exclude:
        return [f"{item.label} is excluded for this session."]
    if not session.permits(item.id):
        return [f"{item.label} does not satisfy {', '.join(session.rules.spelled)}."]
    if (value := session.feedback.get(item.id)) is not None:
        return [f"You said of {item.label}: {value}; so it is not recommended."]
    if item.id in session.mentioned:
        return [f"{item.label} was mentioned before; so it is not recommended unless you ask for it again."]
    return [f"{item.label} could have been recommended: others were more probable."]


def _shared_lines(session: ChatSession, item: Item) -> list[str]:
    """Facts that the item shares with what the person mentioned or liked, newest first."""
    feedback = session.feedback
    mine = [i for e in session.exchanges for i in (*e.user.mentions, *e.user.feedback)]
    liked = [i for i, value in feedback.items() if value == "liked"]
    related = [i for i in reversed(list(dict.fromkeys([*mine, *liked]))) if i != item.id]
    lines = []
    for other_id in [i for i in related if feedback.get(i) not in ("disliked",)]:
        other = session.catalog[other_id]
        if shared := shared_facts(item, other):
            how = "liked" if feedback.get(other_id) == "liked" else "mentioned"
            lines.append(f"It shares with {other.label}, which you {how}: {'; '.join(shared)}.")
        if len(lines) == MOST_RELATED:
            break
    if related and not lines:
        lines.append("It shares no listed fact with what you mentioned or liked.")
    return lines


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


def _rules_line(session: ChatSession) -> str:
    rules = ", ".join(session.rules.spelled) or "none"
    left_out = len({*session.given, *session.mentioned, *session.feedback})
    excluded = f"; {len(session.exclude)} excluded by you" if session.exclude else ""
    return f"Rules in force: {rules}{excluded}; {left_out} left out because mentioned, given or judged."


def _ordinal(n: int) -> str:
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{({1: 'st', 2: 'nd', 3: 'rd'}).get(n % 10, 'th')}"
