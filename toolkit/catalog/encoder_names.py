"""What gcrs knows of sentence encoders by their names: families and short names.

It serves where a directory does not describe itself; what a directory says of itself wins. Knows nothing of files,
weights or vectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MINILM = "minilm"


@dataclass(frozen=True)
class Family:
    """Encoders that were trained alike: how token vectors become one, and what stands before a document."""

    name: str
    pattern: str
    """Regular expression for the last part of a hub id or directory."""
    pooling: str
    """`mean` or `cls` (the first token)."""
    max_tokens: int
    """Tokens of a text that are read."""
    prefix: str = ""
    """Text before each document; what the family puts before queries is of no use for items."""
    projection: str | None = None
    """Folder of the linear layer behind the pooling; the encoder is wrong without it."""
    english: bool = True
    """Trained on English alone."""


FAMILIES = (
    Family("all-MiniLM-L6", r"minilm(-l6-v2)?|all-minilm-l6-v2", "mean", 256),
    Family("sentence-t5", r"sentence-t5-(base|large|xl|xxl)", "mean", 256, projection="2_Dense"),
    Family("bge", r"bge-(small|base|large)-en(-v1\.5)?", "cls", 512),
    Family("e5", r"e5-(small|base|large)(-v2)?", "mean", 512, prefix="passage: "),
    Family("multilingual-e5", r"multilingual-e5-(small|base|large)", "mean", 512, prefix="passage: ", english=False),
    Family("mxbai", r"mxbai-embed-large-v1", "cls", 512),
    Family("gte", r"gte-(small|base|large)", "mean", 512),
)

_OWNERS = {
    "sentence-transformers": ("sentence-t5-base", "sentence-t5-large", "sentence-t5-xl", "sentence-t5-xxl"),
    "BAAI": ("bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5"),
    "intfloat": (
        *("e5-small-v2", "e5-base-v2", "e5-large-v2"),
        *("multilingual-e5-small", "multilingual-e5-base", "multilingual-e5-large"),
    ),
    "mixedbread-ai": ("mxbai-embed-large-v1",),
    "thenlper": ("gte-small", "gte-base", "gte-large"),
}
HUB_IDS = {name: f"{owner}/{name}" for owner, names in _OWNERS.items() for name in names}
"""Short name -> hub id."""


def family_of(name: str) -> Family | None:
    """The family of a hub id, a directory's path or a short name, by its last part; None for an unknown one.

    A folder of the hub's own cache (`models--owner--name/snapshots/…`) counts by the name in it.
    """
    parts = [part for part in re.split(r"[/\\]+", name.lower()) if part]
    candidates = parts[-1:] + [part.rsplit("--", 1)[-1] for part in parts if part.startswith("models--")]
    for family in FAMILIES:
        if any(re.fullmatch(family.pattern, candidate) for candidate in candidates):
            return family
    return None
