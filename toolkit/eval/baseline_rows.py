"""The baselines' rankings of every context, by name.

Knows nothing of the model's scores or of metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.eval.baselines import CoMentions, copier_ranking, popularity_ranking
from gcrs.toolkit.eval.retrieval import NEWEST, bm25_rankings, dense_rankings, dialogue_text, newest_text
from gcrs.toolkit.eval.rows import Ground

if TYPE_CHECKING:
    from gcrs.toolkit.prepared import PreparedCatalog

Progress = Callable[[int, int, str], None]
ABOUT = {
    "popularity": "items by their mentions in the training dialogues",
    "copier": "what the dialogue has named, last first",
    "co-mention": "sum over named items i of n(i, item) / (n(i) + 10) in the training dialogues, then popularity",
    "bm25": "BM25 of the dialogue's words and titles over the items' texts",
    "dense": f"cosine of MiniLM vectors: the dialogue's last {NEWEST} characters, the items' texts",
}


def baseline_rankings(
    names: Sequence[str],
    ground: Ground,
    prepared: PreparedCatalog,
    trained: Sequence[Dialogue],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, list[list[str]]]:
    """Rankings of these rows, deep enough in each context; `trained` are training dialogues, ids canonical."""
    from gcrs.toolkit.catalog.text import item_texts

    catalog, split = prepared.catalog, ground.split
    counts: Mapping[str, int] = {item: count for item, count in ground.trained.items() if item in catalog}
    ids = [item.id for item in catalog]
    named = [[item for item in one.named if item in catalog] for one in split.contexts]
    out: dict[str, list[list[str]]] = {}
    if "popularity" in names:
        out["popularity"] = [popularity_ranking(counts, depth) for depth in ground.depths]
    if "copier" in names:
        out["copier"] = [[i for i in copier_ranking(one.dialogue) if i in catalog] for one in split.contexts]
    if "co-mention" in names:
        together = CoMentions(trained)
        out["co-mention"] = [together.ranking(n, d) for n, d in zip(named, ground.depths, strict=True)]
    if {"bm25", "dense"} & set(names):
        titles = {item.id: item.label for item in catalog}
        said = [dialogue_text(one.dialogue, titles) for one in split.contexts]
        texts = item_texts(catalog, prepared.settings["text"]["columns"])
        if "bm25" in names:
            out["bm25"] = bm25_rankings(texts, ids, said, ground.depths)
        if "dense" in names:
            ends = [newest_text(text) for text in said]
            out["dense"] = dense_rankings(texts, ids, ends, ground.depths, progress, device)
    return out
