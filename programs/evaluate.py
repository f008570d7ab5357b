"""One evaluation: the model and every baseline on the same cases, as one report.

Carries out an EvalConfig; what the parts measure is theirs. Knows nothing of flags, terminals or files to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.programs.measured_replies import replies_report, written_replies
from gcrs.programs.sampled_rows import RETRIEVE_THEN_GENERATE, sampled_rows
from gcrs.programs.shown_examples import missed_in_full, written_in_full
from gcrs.toolkit.dialogue.budget import BUDGET
from gcrs.toolkit.dialogue.turns import Dialogue, read_dialogues
from gcrs.toolkit.eval.baseline_rows import ABOUT, baseline_rankings
from gcrs.toolkit.eval.baselines import mention_counts
from gcrs.toolkit.eval.cases import MODES, PROTOCOLS, TURNS, UNIT
from gcrs.toolkit.eval.measured import Measured
from gcrs.toolkit.eval.model_scores import ModelSpec, Piece, score_piece
from gcrs.toolkit.eval.promises import broken, promised
from gcrs.toolkit.eval.replies import measure
from gcrs.toolkit.eval.report import check_comparable, check_same_cases
from gcrs.toolkit.eval.report import compare as compared
from gcrs.toolkit.eval.rows import Ground, Rankings
from gcrs.toolkit.eval.split import Overlap, Split, check_unseen, overlap, read_split
from gcrs.toolkit.eval.table import Row, table
from gcrs.toolkit.eval.text_metrics import masked, tokens_of
from gcrs.toolkit.eval.workers import Workers, usual_workers, workers
from gcrs.toolkit.files import sha256_file

if TYPE_CHECKING:
    import torch

    from gcrs.toolkit.eval.config import EvalConfig
    from gcrs.toolkit.model.bundle import Bundle

Progress = Callable[[int, int, str], None]
AT_ONCE = 8  # dialogues that a process is given at a time


@dataclass(frozen=True)
class Evaluation:
    """What a run found: its JSON (`report`), one line a case with every row's rank (`lines`), a few written replies and
    a few missed targets in full (`examples`, `missed`), what of the promises does not hold (`broken`), and sentences on
    what was asked for and cannot be (`left_out`).
    """

    report: dict[str, Any]
    lines: list[dict[str, Any]]
    examples: list[dict[str, Any]] = field(default_factory=list)
    missed: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()


def evaluate(config: EvalConfig, progress: Progress | None = None, *, compare: Path | None = None) -> Evaluation:
    """Carry out an evaluation; `compare` is another run's report, whose cases must be the same.

    Raises DataError for broken files, an empty split or one that the bundle was trained on, and for a run that cannot
    be compared; UsageError for a device that is not here; MissingModelError for missing weights.
    """
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.device import check_device

    other = None if compare is None else check_comparable(compare)
    bundle = Bundle.load(config.bundle)
    asked = config
    if not bundle.shape.talks:  # an ablation writes no reply
        able = tuple(name for name in config.baselines if name != RETRIEVE_THEN_GENERATE)
        config = replace(config, replies=0, baselines=able)
    split = read_split(config.dialogues, bundle.catalog, limit=config.limit, skip_unknown=config.skip_unknown)
    raw = [dialogue for path in config.train for dialogue in read_dialogues(path)]
    if compare is not None and other is not None:
        check_same_cases(split.cases_hash(item.id for item in bundle.catalog), other, compare)
    seen = overlap(split, bundle.training, config.train, raw)
    if not config.force:
        check_unseen(split, seen)
    check_device(config.device)  # an engine does so too, but after the rows that are ranked before it
    trained = [dialogue.map_items(_known(bundle)) for dialogue in raw]
    counts = mention_counts(trained) if trained else bundle.popularity
    ground = Ground(split, counts, _merged_ids(bundle, raw))
    count = config.workers or usual_workers(config.device, len(split.read))
    spec = ModelSpec(str(bundle.directory), config.device, config.dtype)
    if count > 1:
        _make_merged(bundle, config, progress)  # once, before several processes want it at the same moment
    names = [name for name in config.baselines if name != RETRIEVE_THEN_GENERATE]
    if RETRIEVE_THEN_GENERATE in config.baselines and "dense" not in names:
        names.append("dense")  # what it retrieves by
    rankings = baseline_rankings(names, ground, bundle.prepared, trained, device=config.device, progress=progress)
    with workers(count, progress) as crew:
        measured = Measured(ground, _score(config, ground, spec, len(bundle.catalog), crew))
        written = written_replies(config, split, spec, crew)
        few = sampled_rows(config, bundle, ground, rankings.get("dense", []), spec, crew, progress)
    asked_for = {name: found for name, found in rankings.items() if name in config.baselines}
    rows, source_rows = _rows(measured, asked_for, few)
    report = _head(config, bundle, split, seen) | _tables(config, ground, rows, source_rows)
    ranks = {row.name: row.ranks["all"] for row in rows["forced"]}
    recommended: dict[str, Rankings] = {"model": measured.rankings, **asked_for}
    report |= {
        "intent": measured.intents(config.seed),
        "target": measured.targets(bundle.book, config.seed),
        "likelihood": measured.likelihood(),
        "spread": measured.spread(
            {name: (found, [rank or 0 for rank in ranks[name]]) for name, found in recommended.items()},
            len(bundle.catalog),
            config.seed,
        ),
    }
    chosen = report["protocols"][config.protocol]
    report["n"], report["rows"] = chosen["n"], chosen[config.mode]
    turns_trained = [tokens_of(masked(turn.text)) for dialogue in raw for turn in dialogue.turns]
    replies = [measure(some, turns_trained, seed=config.seed) for some in written]
    if bundle.shape.decisions == "none":
        del report["intent"]  # it decides none; turns without an item to rank were not written
    report["written"] = replies_report(config, replies)
    report["promises"] = promised(measured, written, bundle.catalog, split)
    lines = _lines(ground, rows)
    if compare is not None:
        report["compare"] = compared(report, lines, compare, seed=config.seed)
    shown = written_in_full(measured, written[0] if written else [], bundle.catalog)
    missed = missed_in_full(measured, bundle.book, bundle.catalog)
    return Evaluation(report, lines, shown, missed, broken(report["promises"]), _left_out(asked, config))


def _left_out(asked: EvalConfig, done: EvalConfig) -> tuple[str, ...]:
    """Sentences on what was asked for and is not in the report, because the bundle is an ablation."""
    rows = [name for name in asked.baselines if name not in done.baselines]
    out = [f"{name}: left out, an ablation has no replies to compare." for name in rows]
    return (*out, *(["replies: left out, an ablation writes none."] if asked.replies > done.replies else []))


def _known(bundle: Bundle) -> Callable[[str], str | None]:
    catalog = bundle.catalog
    return lambda item: catalog.canonical(item) if item in catalog else None


def _merged_ids(bundle: Bundle, raw: Sequence[Dialogue]) -> dict[str, list[str]]:
    """The original ids of items that have several: those that training mentions most first, then as they stand."""
    counts = mention_counts(raw)
    return {
        item.id: sorted((item.id, *item.aliases), key=lambda one: -counts.get(one, 0))
        for item in bundle.catalog
        if item.aliases
    }


def _make_merged(bundle: Bundle, config: EvalConfig, progress: Progress | None) -> None:
    from gcrs.toolkit.model.bundle import load_merged

    load_merged(bundle, _dtype(config), progress)


def _dtype(config: EvalConfig) -> torch.dtype:
    from gcrs.toolkit.model.device import pick_dtype

    return pick_dtype(config.device, config.dtype)


def _score(config: EvalConfig, ground: Ground, spec: ModelSpec, items: int, crew: Workers) -> list[Any]:
    split = ground.split
    wanted: list[dict[int, int]] = [{} for _ in split.read]
    for one, depth in zip(split.contexts, ground.depths, strict=True):
        wanted[split.place_of[one.dialogue.id]][one.turn] = min(items, depth)
    pieces = [
        Piece(spec, tuple(split.read[n : n + AT_ONCE]), tuple(wanted[n : n + AT_ONCE]), config.beams)
        for n in range(0, len(split.read), AT_ONCE)
    ]
    return [scores for part in crew.map(score_piece, pieces, "scoring replies") for scores in part]


def _rows(
    measured: Measured, rankings: Mapping[str, Any], few: Sequence[Row]
) -> tuple[dict[str, list[Row]], list[Row]]:
    """The rows of each mode, and those by original ids (forced); the model first, rows over a sample last."""
    ground = measured.ground
    about = "this bundle"
    model = {
        "forced": Row("model", "model", about, ground.ranks(measured.rankings)),
        "free": Row("model", "model", about, ground.ranks(measured.rankings, measured.silent)),
    }
    others = [Row(name, "baseline", ABOUT[name], ground.ranks(found)) for name, found in rankings.items()]
    rows = {mode: [row, *others, *few] for mode, row in model.items()}
    source = [Row("model", "model", about, ground.source_ranks(measured.rankings))]
    source += [Row(name, "baseline", ABOUT[name], ground.source_ranks(found)) for name, found in rankings.items()]
    return rows, source


def _tables(
    config: EvalConfig, ground: Ground, rows: Mapping[str, list[Row]], source_rows: Sequence[Row]
) -> dict[str, Any]:
    protocols: dict[str, Any] = {}
    for protocol, what in PROTOCOLS.items():
        groups = ground.groups(protocol)
        held: dict[str, Any] = {"what": what, "n": len(groups), "dialogues": len(set(groups))}
        protocols[protocol] = held | {mode: table(rows[mode], protocol, groups, seed=config.seed) for mode in MODES}
    sources: dict[str, Any] = {}
    for protocol in ground.source_places:
        groups = ground.source_groups(protocol)
        held = {"n": len(groups), "dialogues": len(set(groups))}
        sources[protocol] = held | {"forced": table(source_rows, protocol, groups, seed=config.seed)}
    return {"protocols": protocols, "original_ids": sources}


def _head(config: EvalConfig, bundle: Bundle, split: Split, seen: Overlap) -> dict[str, Any]:
    from gcrs import __version__

    data = {split.path.name: split.sha256}
    for path in config.train:
        data[path.name if path.name not in data else f"train/{path.name}"] = sha256_file(path)
    items = [item.id for item in bundle.catalog]
    return {
        "protocol": config.protocol,
        "mode": config.mode,
        "n": 0,
        "data": data,
        "rows": [],
        "gcrs": __version__,
        "versions": _versions(),
        "bundle": bundle.hash,
        "base": str(bundle.manifest["base"]["name"]).rsplit("/", 1)[-1],
        "settings": config.shareable() | {"forced_on_training_data": bool(seen)},
        "overlap": seen.to_json(),
        "unit": UNIT,
        "turns": TURNS,
        "modes": MODES,
        "items": "canonical: ids that were merged count as the same",
        "candidates": len(items),
        "original_candidates": sum(1 + len(item.aliases) for item in bundle.catalog),
        "popularity": "counted on --train" if config.train else "the bundle's own counts",
        "intervals": "95 %, percentile bootstrap over dialogues, 2,000 draws",
        "differences": "row less the first row on the same cases; p by randomisation over dialogues, 10,000 rounds",
        "prompt_budget": BUDGET,
        "precision": str(_dtype(config)).removeprefix("torch."),
        "cases": split.cases_hash(items),
        "dialogues": len(split.raw),
        "replies": len(split.contexts),
        "unknown_gold": {
            "cases": sum(split.unknown.values()),
            "left_out": config.skip_unknown,
            "items": list(split.unknown)[:50],
        },
    }


def _versions() -> dict[str, str]:
    """Of what numbers depend on, as far as it is here: libraries, and the instructions that a CPU computes with."""
    from importlib.metadata import PackageNotFoundError, version

    from gcrs.toolkit.model.device import cpu_instructions

    found = {"cpu": cpu_instructions()}
    for name in ("torch", "transformers", "numpy", "bm25s", "sacrebleu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _lines(ground: Ground, rows: Mapping[str, list[Row]]) -> list[dict[str, Any]]:
    """One object a case of protocol `all`: what it is, and each row's rank under each protocol that it counts in."""
    split = ground.split
    out: list[dict[str, Any]] = []
    for case in split.cases:
        one = split.contexts[case.context]
        head = {"dialogue": one.dialogue.id, "turn": one.turn, "gold": case.gold, "repeat": case.repeat}
        out.append(head | {"ranks": {}})
    for protocol, places in ground.places.items():
        for at, place in enumerate(places):
            ranks = {row.name: row.ranks[protocol][at] for row in rows["forced"]}
            ranks["model (free)"] = rows["free"][0].ranks[protocol][at]
            out[place]["ranks"][protocol] = ranks
    return out
