"""The replies that an evaluation measures: the program's own, one a sampled turn; and another LM's recommendations.

Knows nothing of metrics, rows or files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from gcrs.programs.recommender import Choice, Recommender
from gcrs.programs.reply import derive

import dspy  # isort: skip

from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import DeadEnd, MissingModelError
from gcrs.toolkit.eval.claims import Claims
from gcrs.toolkit.eval.model_scores import ModelSpec, loaded
from gcrs.toolkit.eval.replies import Written
from gcrs.toolkit.model.engine import Sampling

if TYPE_CHECKING:
    from gcrs.toolkit.eval.workers import Progress
    from gcrs.toolkit.model.bundle import Bundle


@dataclass(frozen=True)
class Ask:
    """One reply to write: the turns before it as the model reads them, the gold turn's items and text, an intent.

    `number` is the turn's place among all that could have been sampled: its seed derives from it.
    """

    number: int
    context: Dialogue
    gold: tuple[str, ...]
    reference: str
    intent: Choice


@dataclass(frozen=True)
class Asks:
    """Replies for one process; `seed` is the run's, from which each reply derives its own."""

    model: ModelSpec
    asks: tuple[Ask, ...]
    seed: int


@lru_cache(maxsize=1)
def _program(model: ModelSpec) -> tuple[Recommender, Linker, Claims]:
    bundle, engine = loaded(model)
    linker = Linker(bundle.catalog, bundle.popularity)
    return Recommender.of(bundle, engine, linker=linker), linker, Claims(bundle.catalog)


def write_piece(piece: Asks) -> list[Written]:
    """Each reply, written from an empty cache, so that it does not depend on its neighbours."""
    program, linker, claims = _program(piece.model)
    _, engine = loaded(piece.model)
    out = []
    for ask in piece.asks:
        engine.close()
        sampling = Sampling(seed=derive(piece.seed, ask.number))
        reply = program.reply(ask.context, intent=ask.intent, k=1, sampling=sampling)
        targets = tuple(one.item_id for one in reply.targets)
        named = [item for turn in ask.context.turns for item in (*turn.mentions, *turn.decided_targets)]
        spoken_of = tuple(dict.fromkeys(named))
        licensed = (*targets, *spoken_of)
        linked = linker.link(reply.text, licensed, keep_spans=True)
        leaked = sum(link.item not in licensed for link in linked.links)
        leaked += sum(not set(name.candidates) & set(licensed) for name in linked.ambiguous)
        place = ask.context.id, len(ask.context)
        gold = ask.gold, ask.reference
        said = tuple(claims.of(reply.text))
        written = Written(*place, reply.intent.intent, targets, reply.text, *gold, spoken_of, reply.leaks, leaked, said)
        out.append(written)
    return out


def zero_shot_picks(
    bundle: Bundle, name: str, api_base: str, contexts: Sequence[Dialogue], progress: Progress | None = None
) -> tuple[list[list[str]], int]:
    """The item that another DSPy model recommends to each dialogue, by the same signatures; and how many it failed.

    What it names that the catalogue does not have is no recommendation. The key is $GCRS_API_KEY, else $OPENAI_API_KEY,
    if there is one. MissingModelError when the model does not answer.
    """
    key = os.environ.get("GCRS_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
    lm = dspy.LM(name, api_base=api_base, api_key=key, temperature=0.0, cache=False)
    linker = Linker(bundle.catalog, bundle.popularity)
    program = Recommender(bundle.catalog, bundle.book, bundle.tokens, lm, linker=linker)
    out: list[list[str]] = []
    failed = 0
    for n, context in enumerate(contexts):
        if progress:
            progress(n, len(contexts), "asking the zero-shot model")
        try:
            reply = program.reply(context, intent="recommend", k=1, respond=False)
            out.append([reply.targets[0].item_id])
        except DeadEnd:
            out.append([])
            failed += 1
        except Exception as error:
            raise MissingModelError(
                f"The model {name} at {api_base} does not answer ({type(error).__name__}: {str(error)[:120]}).",
                hint="Check --zero-shot-lm, --api-base and GCRS_API_KEY.",
            ) from error
    return out, failed
