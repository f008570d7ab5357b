"""Retrieve, then generate: what a base model without our training makes of retrieved candidates.

The encoder retrieves candidates; the base model reads the dialogue as a plain transcript with titles and picks among
them by how likely it is to go on with each title. All titles of a dialogue are forwarded at once, as branches of one
tree behind the transcript. Knows nothing of semantic IDs, protocols or metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.eval.model_scores import ModelSpec

if TYPE_CHECKING:
    from gcrs.toolkit.model.cache import PrefixCache
    from gcrs.toolkit.model.tokens import TokenSpace

RETRIEVED = 20  # candidates with, and as many without, what the dialogue has named
CUE = "Recommender: You should try"
LONGEST = 600  # tokens of a transcript; the newest stay
TASK = "A conversation in which a recommender helps a person to find something they will like."
ABOUT = (
    f"MiniLM retrieves {RETRIEVED} candidates, the base model without adapter orders them by the mean log-probability "
    "of the title's tokens after the dialogue's transcript"
)


@dataclass(frozen=True)
class Picks:
    """Dialogues for one process, each with the titles to choose from."""

    model: ModelSpec
    dialogues: tuple[Dialogue, ...]
    titles: tuple[tuple[str, ...], ...]
    names: dict[str, str]


def transcript(dialogue: Dialogue, names: dict[str, str]) -> str:
    """The dialogue as any language model reads it, up to where a title would follow."""
    who = {"user": "User", "assistant": "Recommender"}
    lines = []
    for turn in dialogue.turns:
        said = "".join(value if what == "text" else names.get(value, "it") for what, value in turn.segments())
        lines.append(f"{who[turn.role]}: {' '.join(said.split())}")
    return "\n".join([TASK, "", *lines, CUE])


@lru_cache(maxsize=1)
def _base(model: ModelSpec) -> tuple[TokenSpace, PrefixCache]:
    """The bundle's base without its adapter, once a process."""
    from gcrs.toolkit.model.base import find_base, load_model
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.cache import PrefixCache
    from gcrs.toolkit.model.device import pick_dtype

    bundle = Bundle.load(model.directory)
    base = find_base(bundle.manifest["base"]["name"])
    loaded = load_model(base, pick_dtype(model.device, model.dtype)).to(model.device)  # type: ignore[arg-type]
    return bundle.tokens, PrefixCache(loaded, 0)


def pick_piece(picks: Picks) -> list[list[float]]:
    """The mean log-probability of each title of each dialogue."""
    tokens, cache = _base(picks.model)
    out = []
    for dialogue, titles in zip(picks.dialogues, picks.titles, strict=True):
        ids = tokens.encode_text(transcript(dialogue, picks.names))[-LONGEST:]
        spelled = [tokens.encode_text(f" {title}") for title in titles]
        out.append(continuations(cache, ids, spelled))
    return out


def continuations(cache: PrefixCache, prompt: Sequence[int], endings: Sequence[Sequence[int]]) -> list[float]:
    """The mean log-probability of each ending's tokens after the prompt."""
    import torch

    from gcrs.toolkit.model.along import losses

    held = [list(ending) for ending in endings]
    if not held:
        return []
    root = cache.read(prompt)[-1:]
    nodes = [token for ending in held for token in ending[:-1]]
    depths = np.array([depth for ending in held for depth in range(len(ending) - 1)], dtype=np.int64)
    deepest = max(len(ending) for ending in held)
    ancestors = np.full((len(nodes), max(1, deepest - 1)), -1, dtype=np.int64)
    for node, depth in enumerate(depths):
        ancestors[node, :depth] = np.arange(node - depth, node)
    hidden = root
    if nodes:
        hidden = torch.cat([root, cache.branch(np.asarray(nodes, dtype=np.int64), depths, ancestors)])
        cache.cut(0)
    said, behind = [], []  # each token, and the row of `hidden` that is behind it
    at = 1
    for ending in held:
        said += ending
        behind += [0, *range(at, at + len(ending) - 1)]
        at += len(ending) - 1
    spent = losses(cache, hidden[torch.tensor(behind)], [0, *said], range(1, len(said) + 1))
    ends = np.cumsum([len(ending) for ending in held])
    return [-float(part.mean()) for part in np.split(spent, ends[:-1])]


def reordered(ranking: Sequence[str], chosen: Sequence[str], scores: Sequence[float]) -> list[str]:
    """The candidates best first (ties as they were retrieved), then the rest of the retrieved ranking."""
    best = sorted(range(len(chosen)), key=lambda n: -scores[n])
    front = [chosen[n] for n in best]
    return front + [item for item in ranking if item not in set(front)]


def candidates_of(ranking: Sequence[str], named: Sequence[str]) -> list[str]:
    """The retrieved candidates of a dialogue: the first with, and the first without, what it has named."""
    fresh = [item for item in ranking if item not in set(named)][:RETRIEVED]
    first = set(ranking[:RETRIEVED]) | set(fresh)
    return [item for item in ranking if item in first]
