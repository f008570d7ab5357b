"""EvalConfig: everything that decides an evaluation; its flags, and what its report states.

Knows nothing of how an evaluation is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.eval.cases import MODES, PROTOCOLS, Mode, Protocol

CHEAP = ("popularity", "copier")
BASELINES = (*CHEAP, "co-mention", "bm25", "dense", "retrieve-then-generate")
ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class EvalConfig:
    """What is evaluated, on what, beside what."""

    bundle: str
    """Directory or name of the bundle."""
    dialogues: Path
    """JSON Lines file of the dialogues."""
    protocol: Protocol = "all"
    """The protocol of the printed table and of the JSON's `rows`; the report holds all of them."""
    mode: Mode = "forced"
    """forced: replies are opened as recommendations; free: the model decides."""
    baselines: tuple[str, ...] = CHEAP
    """Rows beside the model."""
    train: tuple[Path, ...] = ()
    """Training dialogues: popularity, co-mentions, verbatim n-grams, and the check for overlap."""
    limit: int | None = None
    """First N dialogues only."""
    replies: int = 200
    """Replies that are written and measured (0: none)."""
    seeds: int = 1
    """How often they are written, each time with the next seed."""
    sampled: int = 200
    """Replies that the slow baselines rank."""
    seed: int = 0
    """Seed of the samples, the replies, the bootstrap and the randomisation."""
    beams: int = 60
    """Least width of the target's beams."""
    skip_unknown: bool = False
    """Leave out gold items outside the catalogue, in place of counting them as misses."""
    force: bool = False
    """Evaluate dialogues that the bundle was trained on."""
    zero_shot_lm: str | None = None
    """A DSPy model's name, which runs the same program without training."""
    api_base: str | None = None
    """Where that model answers."""
    workers: int | None = None
    """Processes; None: one a CPU core, at most 8."""
    device: str = "cpu"
    """cpu or cuda."""
    dtype: str = "auto"
    """auto, bf16 or fp32."""

    def __post_init__(self) -> None:
        for name, known in (("protocol", PROTOCOLS), ("mode", MODES)):
            if (found := getattr(self, name)) not in known:
                raise UsageError(f"The {name} is {found!r}, expected one of: {', '.join(known)}.")
        for name, least in (("limit", 1), ("workers", 1), ("seeds", 1), ("beams", 1), ("replies", 0), ("sampled", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}, expected {least} or more.")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}, expected 0 or more.")
        if (self.zero_shot_lm is None) != (self.api_base is None):
            raise UsageError("A zero-shot model needs a name and a place.", hint="Pass --zero-shot-lm and --api-base.")
        if "co-mention" in self.baselines and not self.train:
            raise UsageError("The baseline co-mention counts training dialogues.", hint="Pass --train FILE.")

    def shareable(self) -> dict[str, Any]:
        """What decides the numbers, without places on this machine."""
        return {
            "limit": self.limit,
            "replies": self.replies,
            "seeds": self.seeds,
            "sampled": self.sampled,
            "seed": self.seed,
            "beams": self.beams,
            "skip_unknown": self.skip_unknown,
            "zero_shot_lm": self.zero_shot_lm,
            "device": self.device,
        }


def baseline_names(text: str, *, has_training: bool) -> tuple[tuple[str, ...], list[str]]:
    """The rows that `all`, `none` or a list with commas names, and a sentence for each that `all` leaves out."""
    if text == "none":
        return (), []
    if text == "all":
        left_out = [] if has_training else ["co-mention is left out: it counts training dialogues (--train FILE)."]
        return tuple(name for name in BASELINES if has_training or name != "co-mention"), left_out
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name == ZERO_SHOT:
            raise UsageError("The row zero-shot needs a model.", hint="Pass --zero-shot-lm NAME and --api-base URL.")
        if name not in BASELINES:
            raise UsageError(f"There is no baseline {name!r}.", hint=f"Known: all, none, {', '.join(BASELINES)}.")
    return tuple(name for name in BASELINES if name in names), []
