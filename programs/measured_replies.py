"""Which replies an evaluation writes, and what it says of them.

Knows nothing of how a reply is written or measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gcrs.programs.reply import derive
from gcrs.toolkit.eval.model_scores import ModelSpec
from gcrs.toolkit.eval.replies import Written, over_seeds
from gcrs.toolkit.eval.split import Split
from gcrs.toolkit.eval.workers import Workers

if TYPE_CHECKING:
    from gcrs.programs.write_replies import Ask
    from gcrs.toolkit.eval.config import EvalConfig

AT_ONCE = 5
SAMPLE = 0x5E  # what tells the sample's random numbers from others of the same seed
HOW = {
    "forced": "intents as the gold replies have them, targets and words the model's own",
    "free": "intents, targets and words the model's own",
}


def sample_of(total: int, size: int, seed: int) -> list[int]:
    """`size` of `total` places drawn without repeats, in order; all of them where there are no more."""
    import numpy as np

    rng = np.random.default_rng([seed, SAMPLE])
    return sorted(int(n) for n in rng.choice(total, size=min(size, total), replace=False))


def written_replies(config: EvalConfig, split: Split, spec: ModelSpec, crew: Workers) -> list[list[Written]]:
    """The sampled replies, once a seed."""
    if not config.replies:
        return []
    from gcrs.programs.write_replies import Asks, write_piece

    every = _asks(config, split)
    asks = [every[n] for n in sample_of(len(every), config.replies, config.seed)]
    seeds = [derive(config.seed, n) for n in range(config.seeds)]
    pieces = [Asks(spec, tuple(asks[n : n + AT_ONCE]), seed) for seed in seeds for n in range(0, len(asks), AT_ONCE)]
    done = crew.map(write_piece, pieces, "writing replies")
    flat = [reply for part in done for reply in part]
    return [flat[n * len(asks) : (n + 1) * len(asks)] for n in range(config.seeds)]


def _asks(config: EvalConfig, split: Split) -> list[Ask]:
    """Every assistant turn that answers something."""
    from gcrs.programs.write_replies import Ask

    out: list[Ask] = []
    for read, named in zip(split.read, split.named, strict=True):
        for n, turn in enumerate(named.turns):
            if turn.role == "assistant" and n > 0:
                intent = turn.decided_intent if config.mode == "forced" else "free"
                out.append(Ask(len(out), read[:n], turn.mentions, turn.text, intent))
    return out


def replies_report(config: EvalConfig, found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The first seed's figures, the others' spread beside them; None where no reply was written."""
    if not found:
        return None
    out = {"sample": f"{found[0]['n']} turns drawn with the run's seed", "mode": HOW[config.mode], **found[0]}
    return out | {"seeds": {"n": len(found), **over_seeds([dict(one) for one in found])}} if len(found) > 1 else out
