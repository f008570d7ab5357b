"""What written replies are worth: are they there, faithful to their target, fluent, new, and true to the catalogue?

Pure functions over replies that were written. Knows nothing of how.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gcrs.toolkit.dialogue.turns import MENTION
from gcrs.toolkit.eval.claims import Claim, count_claims
from gcrs.toolkit.eval.metrics import share
from gcrs.toolkit.eval.text_metrics import bleu, distinct, longest_copies, masked, tokens_of


@dataclass(frozen=True)
class Written:
    """One reply: to which turn, what was decided, its text with item spans, and what stands against it.

    `gold` are the gold reply's items and `reference` its text; `spoken_of` the dialogue's items; `withheld` titles that
    were kept from being shown, `leaked` those that were shown although nothing licensed them.
    """

    dialogue: str
    turn: int
    intent: str
    targets: tuple[str, ...]
    text: str
    gold: tuple[str, ...]
    reference: str
    spoken_of: tuple[str, ...]
    withheld: int
    leaked: int
    claims: tuple[Claim, ...] = ()

    @property
    def items(self) -> tuple[str, ...]:
        """The items that the reply names."""
        return tuple(dict.fromkeys(MENTION.findall(self.text)))

    @property
    def strangers(self) -> tuple[str, ...]:
        """Those that are neither its target nor the dialogue's: there must be none."""
        return tuple(item for item in self.items if item not in (*self.targets, *self.spoken_of))


def measure(replies: Sequence[Written], training: Sequence[Sequence[str]], *, seed: int) -> dict[str, Any]:
    """All figures of one set of replies; `training` are the tokens of the training turns, none: copies are not told."""
    told = [reply for reply in replies if reply.intent == "recommend" and reply.targets]
    aimed = [reply for reply in told if reply.gold]
    right = [reply for reply in aimed if reply.targets[0] in reply.gold]
    wrong = [reply for reply in aimed if reply.targets[0] not in reply.gold]

    def over(chosen: Sequence[Written], values: Sequence[bool]) -> dict[str, Any]:
        return share(values, [reply.dialogue for reply in chosen], seed=seed)

    def lands(chosen: Sequence[Written]) -> dict[str, Any]:
        return over(chosen, [bool(set(reply.items) & set(reply.gold)) for reply in chosen])

    shown = [" ".join(masked(reply.text).lower().split()) for reply in replies]
    tokens = [tokens_of(masked(reply.text)) for reply in replies]
    pairs = [distinct(tokens, n) for n in (1, 2, 3, 4)]
    claims = [claim for reply in replies for claim in reply.claims]
    out: dict[str, Any] = {
        "n": len(replies),
        "recommend": len(told),
        "non_empty": sum(bool(reply.text.strip()) for reply in replies),
        "repeat_another": sum(count - 1 for count in Counter(reply.text.casefold() for reply in replies).values()),
        "repeat_another_but_for_items": sum(count - 1 for count in Counter(shown).values()),
        "mean_tokens": sum(map(len, tokens)) / max(1, len(tokens)),
        "target_precision": over(aimed, [reply in right for reply in aimed]),
        "lands_when_target_right": lands(right),
        "lands_when_target_wrong": lands(wrong),
        "names_its_target": over(told, [reply.targets[0] in reply.items for reply in told]),
        "names_another_of_the_dialogue": sum(any(i not in reply.targets for i in reply.items) for reply in told),
        "recommends_another_item": sum(bool(reply.strangers) for reply in told),
        "titles_withheld": sum(reply.withheld for reply in replies),
        "titles_leaked": sum(reply.leaked for reply in replies),
        "bleu": bleu(shown, [" ".join(masked(reply.reference).lower().split()) for reply in replies]),
        "distinct_per_ngram": {str(n): pair[0] for n, pair in enumerate(pairs, 1)},
        "distinct_per_reply": {str(n): pair[1] for n, pair in enumerate(pairs, 1)},
        "claims": {"stated": len(claims), "wrong": sum(not c.holds for c in claims), "by_kind": count_claims(claims)},
    }
    if training:
        copies = longest_copies(tokens, training)
        whole = sum(length == len(own) > 0 for length, own in zip(copies, tokens, strict=True))
        out["copied"] = {
            "longest": max(copies, default=0),
            "mean_longest": sum(copies) / max(1, len(copies)),
            "whole_replies": whole,
            "example": shown[copies.index(max(copies))] if copies else "",
        }
    return out


def over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, least and most over several seeds of the figures that are one number."""
    picked = {
        "bleu": [one["bleu"]["value"] for one in found],
        "names_its_target": [one["names_its_target"]["value"] or 0.0 for one in found],
        "mean_tokens": [one["mean_tokens"] for one in found],
        "titles_withheld": [one["titles_withheld"] for one in found],
    }
    for way in ("distinct_per_ngram", "distinct_per_reply"):
        picked |= {f"{way}-{n}": [one[way][n] for one in found] for n in ("1", "2", "3", "4")}
    return {name: {"mean": sum(v) / len(v), "least": min(v), "most": max(v)} for name, v in picked.items()}
