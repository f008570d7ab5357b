"""The model card that every bundle carries: what it is, from what it was made, how good it is, how to use it.

Its header is what a model hub reads. Knows nothing of weights, and no score that it was not given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.weights import PINNED

if TYPE_CHECKING:
    from gcrs.toolkit.prepared import PreparedCatalog

# Licences that a hub knows by these identifiers; another one is `other` with its name beside it.
LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-3.0", "cc-by-sa-3.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense",
    "openrail", "odc-by",
}  # fmt: skip
PROTOCOLS = {
    "all": "repeats of items that the dialogue has named are counted",
    "new": "new items only: repeats are no cases, and what the dialogue has named is no candidate",
}
ROWS = {"model": "this bundle", "popularity": "popularity", "copier": "copier (last mentioned first)"}
SHOWN = (1, 10, 50)
INTERVAL = "95 %, bootstrap over dialogues"


def model_card(
    prepared: PreparedCatalog, base: str, training: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None
) -> str:
    """Markdown with a Hugging Face header.

    `training` is the bundle's training.json: the scores of the run, `licence` and `attribution` come from it;
    `evaluation` its evaluation.json, if it has one.
    """
    sections = (
        _about(prepared, base),
        _use(),
        _scores(training, evaluation),
        _data(base, training),
        _training(training),
    )
    header = card_header(base, training, evaluation)
    return f"---\n{header}\n---\n" + "\n".join("\n".join(section) + "\n" for section in sections)


def card_header(base: str, training: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None) -> str:
    """The header's YAML, without its fences."""
    from huggingface_hub import ModelCardData

    config = training.get("config", {})
    licence = _line(config.get("licence"))
    known = licence.lower() if licence.lower() in LICENCES else "other" if licence else None
    results = list(_results(evaluation)) if evaluation else []
    data = ModelCardData(
        license=known,
        license_name=_slug(licence) if known == "other" else None,
        base_model=_hub_id(base),
        library_name="gcrs",
        tags=["recommender", "conversational", "semantic-ids", "gcrs"],
        datasets=[_slug(Path(name).stem) for name in training.get("data", {})] or None,
        model_name=_slug(str(config.get("out") or "bundle")) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _results(evaluation: Mapping[str, Any]) -> Iterator[Any]:
    """The model's rows as a hub's evaluation results, one a protocol and cut-off."""
    from huggingface_hub import EvalResult

    name, digest = next(iter(evaluation["data"].items()), ("unnamed", None))
    for table in evaluation["tables"]:
        if table["name"] != "model":
            continue
        for key, found in table.items():
            if key.startswith("recall@"):
                yield EvalResult(
                    task_type="conversational-recommendation",
                    task_name=f"Conversational recommendation, {evaluation['mode']} mode",
                    dataset_type=_slug(Path(name).stem),
                    dataset_name=name,
                    dataset_config=table["protocol"],
                    dataset_args={"sha256": digest, "n": table["n"]},
                    metric_type=key,
                    metric_name=f"{key.capitalize()}, protocol {table['protocol']}",
                    metric_value=round(found["value"], 4),
                    metric_args={"lo": round(found["lo"], 4), "hi": round(found["hi"], 4), "interval": INTERVAL},
                )


def _about(prepared: PreparedCatalog, base: str) -> Iterator[str]:
    codes = " x ".join(str(k) for k in prepared.book.codes)
    yield f"""# A gcrs bundle

A conversational recommender over {len(prepared.catalog):,} items: an adapter for `{base}`, the rows of the tokens that
spell semantic IDs ({codes} codes), the items, their facts and their IDs.

**What is promised.** Recommendations are decoded under a grammar that admits exactly the items of this catalogue, and
of these only what the rules of the moment allow: an item that does not exist, or that is excluded, cannot be decoded.
That holds inside gcrs; another engine that loads the adapter has to bring the constraint itself, from
`semantic_ids.json`.

**What it is for.** Recommending from this catalogue in conversation, in the language of its training data, with a
person who decides.

**What it is not for.** Facts and advice: the words around a recommendation are a small model's and can be wrong, item
cards hold the facts. It learnt what people mentioned when the data was collected, so it prefers what was popular then,
and knows little of items that nobody mentioned. Nobody has examined it for fairness or for use by children; put such
rules into `--where` and `--exclude`, which cannot be talked away."""


def _use() -> Iterator[str]:
    yield """## How to use it

```
gcrs pull OWNER/NAME          # or a directory that holds this bundle
gcrs chat --bundle NAME
gcrs recommend "something for tonight" --bundle NAME --json
```"""


def _scores(training: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Scores"
    if evaluation:
        data = ", ".join(f"`{name}` (SHA-256 `{digest}`)" for name, digest in evaluation["data"].items())
        yield f"""
Recall in percent with its interval ({INTERVAL}); {evaluation["mode"]} mode; one case an item of a reply; the same
cases for every row. Evaluated on {data}."""
        for protocol in dict.fromkeys(table["protocol"] for table in evaluation["tables"]):
            rows = [table for table in evaluation["tables"] if table["protocol"] == protocol]
            cuts = [k for k in SHOWN if all(f"recall@{k}" in row for row in rows)]
            yield f"\nProtocol `{protocol}` ({PROTOCOLS.get(protocol, 'as named')}), n = {rows[0]['n']:,}:\n"
            yield "| |" + "".join(f" R@{k} |" for k in cuts)
            yield "|---|" + "---|" * len(cuts)
            for row in rows:
                cells = (row[f"recall@{k}"] for k in cuts)
                shown = (f" {100 * c['value']:.2f} [{100 * c['lo']:.2f}, {100 * c['hi']:.2f}] |" for c in cells)
                yield f"| {ROWS.get(row['name'], row['name'])} |" + "".join(shown)
    else:
        yield "\nNo evaluation was added to this bundle."
    validation = [*(training.get("validation") or [])]
    if not validation:
        yield "\nThe run was not validated on the way."
        return
    limit = training.get("config", {}).get("eval_limit", "some")
    yield f"""
On the way, on at most {limit} validation replies ({training.get("validated_on") or "dialogues"}), forced mode, repeats
counted, no intervals; the best of these checkpoints was kept, so its score is flattered:

| | R@1 | R@10 | R@50 |
|---|---|---|---|"""
    rows = [(f"step {row.get('step')}", row) for row in validation]
    for name, row in [*rows, *([("popularity", training["popularity"])] if training.get("popularity") else [])]:
        cells = (f"{100 * row[key]:.1f}" if key in row else "-" for key in (f"recall@{k}" for k in SHOWN))
        yield f"| {name} | {' | '.join(cells)} |"


def _data(base: str, training: Mapping[str, Any]) -> Iterator[str]:
    config = training.get("config", {})
    licence, attribution = _line(config.get("licence")), _line(config.get("attribution"))
    yield "## Data and licences\n"
    stated = f"`{licence}`" if licence else "none stated: ask whoever made the bundle before you use or share it"
    yield f"- licence of this bundle: {stated}"
    if attribution:
        yield f"- attribution: {attribution}"
    pinned = PINNED.get(base)
    terms = pinned.licence if pinned else "its own, see its card"
    where = f" (`{pinned.hub_repo}`)" if pinned else ""
    yield f"- base model: `{base}`{where}, licence: {terms}; it is not in this bundle"
    for name, digest in training.get("data", {}).items():
        yield f"- learnt from `{name}`, SHA-256 `{digest}`"
    for name, digest in (training.get("data_before") or {}).items():
        yield f"- what it was started from learnt from `{name}`, SHA-256 `{digest}`"
    if made := (training.get("counts") or {}).get("dialogues made"):
        yield f"- learnt from {made:,} dialogues made from the catalogue itself"
    if training.get("warm_start"):
        yield f"- started from `{config.get('warm_start')}`, hash `{training['warm_start']}`; its licence holds as well"


def _training(training: Mapping[str, Any]) -> Iterator[str]:
    config = training.get("config", {})
    yield f"""## How it was trained

- {training.get("steps", 0):,} steps in {training.get("minutes", 0)} minutes
- {training.get("tokens", 0):,} tokens, padding included
- method {config.get("method")}, rank {config.get("rank")}, seed {config.get("seed")}

The whole configuration is in `training.json`; `gcrs.json` holds the SHA-256 of every part and of the base weights."""


def _hub_id(base: str) -> str | None:
    """The base as a hub names it; None for a directory or file of one machine."""
    name = PINNED[base].hub_repo if base in PINNED else base.split(":", 1)[0]
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else None


def _line(value: object) -> str:
    return " ".join(str(value or "").split())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "unnamed"
