"""The model card that every bundle carries: what it is, from what it was made, how to use it.

Knows nothing of weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcrs.toolkit.prepared import PreparedCatalog


def model_card(prepared: PreparedCatalog, base: str, training: dict[str, Any]) -> str:
    """Markdown with a Hugging Face header."""
    config = training.get("config", {})
    validation = training.get("validation") or []
    data = "\n".join(f"- `{name}` SHA-256 `{digest}`" for name, digest in training.get("data", {}).items())
    rows = "\n".join(
        f"- step {row.get('step')}: "
        + ", ".join(f"{key} {100 * value:.1f} %" for key, value in row.items() if key.startswith("recall"))
        for row in validation
    )
    return f"""---
library_name: peft
base_model: {base}
tags: [recommender, conversational, semantic-ids, gcrs]
---
# A gcrs bundle

A conversational recommender over {len(prepared.catalog):,} items: an adapter for `{base}`, the rows of the tokens that
spell semantic IDs ({" x ".join(str(k) for k in prepared.book.codes)} codes), the items and their IDs. Every
recommendation is decoded under a grammar that admits exactly these items.

Use it: `gcrs chat --bundle DIR`, `gcrs recommend TEXT --bundle DIR`.

## How it was trained

{training.get("steps", 0)} steps, {training.get("tokens", 0):,} tokens (padding included), {training.get("minutes", 0)}
minutes; method {config.get("method")}, rank {config.get("rank")}, seed {config.get("seed")}. The whole configuration is
in `training.json`.

Data:
{data or "- none"}

Recall during training (a sample of the validation replies, forced mode, repeats counted; not the final evaluation):
{rows or "- no validation"}
"""
