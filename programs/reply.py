"""Reply: what was decided and said for one turn. Knows nothing of how."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gcrs.toolkit.dialogue.turns import Turn
from gcrs.toolkit.model.engine import IntentDecision, Scored


@dataclass(frozen=True)
class Reply:
    """What was decided and said.

    `forced`: the intent was not the model's own choice. `targets` are the recommended items, `ranking` the k best
    (empty when the targets were given); scores are log-probabilities, 0 for what was given or what another LM chose
    (it states none). `turn` is the assistant turn to append. `leaks` counts titles withheld because nothing licensed
    them. `dropped` says what of the dialogue the model did not see, `stopped` that the caller ended the reply early.
    `seconds` by step.
    """

    intent: IntentDecision
    forced: bool
    targets: tuple[Scored, ...]
    ranking: tuple[Scored, ...]
    text: str
    turn: Turn
    leaks: int
    seconds: dict[str, float]
    dropped: str = ""
    stopped: bool = False


def derive(seed: int, *numbers: int) -> int:
    """A seed for one part of something that has a seed; the same on every machine."""
    text = ":".join(map(str, (seed, *numbers)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
