"""The model's part of an evaluation, for worker processes: which model, and a batch of dialogues scored by it.

Knows nothing of metrics or protocols.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from gcrs.toolkit.dialogue.budget import BUDGET
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.eval.one_pass import TurnScore, score_dialogue

if TYPE_CHECKING:
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.engine import Engine


@dataclass(frozen=True)
class ModelSpec:
    """Which bundle is evaluated, and where it computes."""

    directory: str
    device: str = "cpu"
    dtype: str = "auto"


@dataclass(frozen=True)
class Piece:
    """Dialogues for one process; `wanted[n]` says how many items the turns of dialogue n rank."""

    model: ModelSpec
    dialogues: tuple[Dialogue, ...]
    wanted: tuple[dict[int, int], ...]
    beams: int


@lru_cache(maxsize=1)
def loaded(model: ModelSpec) -> tuple[Bundle, Engine]:
    """The bundle and its engine, once a process."""
    from gcrs.toolkit.model.bundle import Bundle, load_engine

    bundle = Bundle.load(model.directory)
    return bundle, load_engine(bundle, device=model.device, dtype=model.dtype, cache_bytes=0)


def score_piece(piece: Piece) -> list[list[TurnScore]]:
    """The scores of each dialogue's assistant turns."""
    _, engine = loaded(piece.model)
    out = []
    for dialogue, wanted in zip(piece.dialogues, piece.wanted, strict=True):
        out.append(score_dialogue(engine, dialogue, wanted, budget=BUDGET, beams=piece.beams))
    engine.close()
    return out
