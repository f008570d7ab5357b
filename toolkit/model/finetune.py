"""`finetune`: a catalogue with semantic IDs and dialogues in, a bundle out.

Knows nothing of terminals or of the file formats of data sets: dialogues come in gcrs' own format.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import atomic_write, sha256_file, sha256_json
from gcrs.toolkit.model.finetune_config import FinetuneConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.tokens import TokenSpace

Progress = Callable[[int, int, str], None]


def _known_items(dialogues: list[Dialogue], prepared: Any, counts: dict[str, int]) -> list[Dialogue]:
    """Dialogues with canonical ids; mentions of items outside the catalogue become words."""
    catalog, book = prepared.catalog, prepared.book

    def rename(item_id: str) -> str | None:
        if item_id in catalog and catalog.canonical(item_id) in book.ids:
            return str(catalog.canonical(item_id))
        counts["mentions outside the catalogue"] = counts.get("mentions outside the catalogue", 0) + 1
        return None

    return [dialogue.map_items(rename) for dialogue in dialogues]


def _trainable(
    model: Any, config: FinetuneConfig, tokens: TokenSpace
) -> tuple[list[dict[str, Any]], dict[str, torch.nn.Parameter]]:
    """(optimiser groups, named parameters): the adapter or all linear layers, and the new rows at their own rate."""
    named: dict[str, Any] = {}
    rows: list[Any] = []
    rest: list[Any] = []
    if config.method == "lora":
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                named[name] = parameter
                (rows if "trainable_tokens_delta" in name else rest).append(parameter)
    else:
        from gcrs.toolkit.model.adapter import linear_names

        linear = {f"{name}.weight" for name in linear_names(model)}
        embedding = model.get_input_embeddings().weight
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in linear or parameter is embedding
            if parameter.requires_grad:
                named[name] = parameter
                (rows if parameter is embedding else rest).append(parameter)
        first = tokens.base_rows

        def only_new_rows(grad: torch.Tensor) -> torch.Tensor:
            grad = grad.clone()
            grad[:first] = 0
            return grad

        embedding.register_hook(only_new_rows)
    return [{"params": rest, "lr": config.lr}, {"params": rows, "lr": config.id_lr}], named


def _adapter_tensors(model: Any, config: FinetuneConfig, tokens: TokenSpace, start: dict[str, Any]) -> dict[str, Any]:
    """The adapter as it would ship, whatever was trained."""
    from gcrs.toolkit.model.adapter import PREFIX, ROWS_SUFFIX, AdapterShape, adapter_state, extract_low_rank

    if config.method == "lora":
        return adapter_state(model)
    weights = {name: module.weight.detach() for name, module in model.named_modules() if name in start}
    out = extract_low_rank(start, weights, AdapterShape(config.rank, config.alpha, 0.0))
    where = next(name for name, part in model.named_modules() if part is model.get_input_embeddings())
    rows = model.get_input_embeddings().weight.detach()[tokens.base_rows : tokens.size]
    out[f"{PREFIX}{where}.{ROWS_SUFFIX}"] = rows.clone().contiguous()
    return out


def validation_metrics(
    model: PreTrainedModel, tokens: TokenSpace, book: Codebook, dialogues: Sequence[Dialogue], limit: int
) -> dict[str, float]:
    """recall@10, @1, @50 over the first `limit` replies with items: forced mode, repeats counted."""
    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.eval.cases import contexts
    from gcrs.toolkit.eval.metrics import rank_of
    from gcrs.toolkit.model.engine import Engine

    engine = Engine(model, tokens, book)
    ranks: list[int] = []
    for n, context in enumerate(contexts(dialogues)):
        if n >= limit:
            break
        prompt = [*encode_prompt(context.dialogue, tokens, book), tokens.rec][-1024:]
        ranking = [scored.item_id for scored in engine.targets(prompt, k=50)]
        ranks.extend(rank_of(gold, ranking) for gold in context.gold)
    engine.close()
    return {f"recall@{k}": round(sum(0 < r <= k for r in ranks) / max(1, len(ranks)), 4) for k in (10, 1, 50)}


def finetune(config: FinetuneConfig, *, resume: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Fine-tune and write the bundle; returns a report.

    Checkpoints, the resolved config and the metrics log go to `OUT.run`. Raises DataError on broken inputs, UsageError
    when `OUT.run` holds a different run. A SIGTERM writes a checkpoint and returns a report with "finished": false.
    """
    import torch

    from gcrs.toolkit.dialogue.corpus import build_corpus
    from gcrs.toolkit.dialogue.encode import Kind
    from gcrs.toolkit.dialogue.requests import request_dialogues
    from gcrs.toolkit.dialogue.turns import read_dialogues
    from gcrs.toolkit.eval.baselines import mention_counts
    from gcrs.toolkit.model.adapter import AdapterShape, apply_adapter, attach, linear_names
    from gcrs.toolkit.model.base import find_base, load_model
    from gcrs.toolkit.model.bundle import write_bundle
    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.rows import initial_rows
    from gcrs.toolkit.model.schedule import Schedule
    from gcrs.toolkit.model.tokens import TokenSpace
    from gcrs.toolkit.model.trainer import Phase, RunSettings, Trainer
    from gcrs.toolkit.prepared import PreparedCatalog

    if config.threads:
        torch.set_num_threads(config.threads)
    tell = progress or (lambda done, total, what: None)
    prepared = PreparedCatalog.load(config.catalog)
    book = prepared.book
    counts: dict[str, int] = {}
    dialogues = _known_items([d for path in config.dialogues for d in read_dialogues(path)], prepared, counts)
    extra = _known_items([d for path in config.extra_items for d in read_dialogues(path)], prepared, counts)
    valid = _known_items(list(read_dialogues(config.valid)), prepared, {}) if config.valid else []
    base = find_base(config.base, progress)
    tokens = TokenSpace(base.tokenizer_json, base.rows, book.codes)

    run_dir = config.out.with_name(config.out.name + ".run")
    hashes = {str(path.name): sha256_file(path) for path in (*config.dialogues, *config.extra_items)}
    same = config.resolved() | {"out": "", "catalog": prepared.hash, "data": hashes, "base_sha256": base.sha256}
    free = {"dialogues", "extra_items", "valid", "device", "eval_minutes", "save_minutes", "eval_limit"}
    if config.max_minutes is not None:  # such a run promises completion, not equal bytes
        free |= {"threads", "max_minutes"}
    fingerprint = sha256_json({key: value for key, value in same.items() if key not in free})
    _claim(run_dir, fingerprint, config, resume)

    text_kinds = {Kind.INTENT: config.intent_weight, Kind.TARGET: config.target_weight, Kind.TEXT: config.text_weight,
                  Kind.MENTION: config.mention_weight, Kind.USER_ITEM: config.user_item_weight}  # fmt: skip
    weights = tuple(float(text_kinds.get(kind, 0.0)) for kind in Kind)
    made = request_dialogues(
        prepared.catalog,
        config.requests,
        popularity=mention_counts(dialogues),
        baskets=[[item for turn in dialogue.turns for item in turn.mentions] for dialogue in dialogues],
        seed=config.seed,
    )
    length = config.max_length
    corpus, corpus_counts = build_corpus([*dialogues, *made], tokens, book, layout=config.layout, max_length=length)
    phases = [Phase("dialogues", corpus, weights, 1.0)]
    if config.item_share > 0:
        excerpts, _ = build_corpus([*dialogues, *extra], tokens, book, layout="items", max_length=length)
        phases.insert(0, Phase("items", excerpts, weights, config.item_share))

    dtype = pick_dtype(config.device)
    model: Any = load_model(base, dtype if config.method == "lora" else torch.float32, rows=tokens.size)
    texts = [prepared.words(item_id) for item_id in book]
    with torch.no_grad():
        rows = initial_rows(model.get_input_embeddings().weight, tokens, book, texts, seed=config.seed)
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            weight[tokens.base_rows :] = rows.to(weight.dtype)
    start = {name: module.weight.detach().clone() for name, module in model.named_modules()
             if config.method == "full" and name in set(linear_names(model))}  # fmt: skip
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_names(model)})
    shape = AdapterShape(config.rank, config.alpha, config.dropout)
    trained: Any = attach(model, tokens.new_ids, shape, config.seed) if config.method == "lora" else model
    groups, named = _trainable(trained, config, tokens)

    best = run_dir / "best"

    def plain() -> PreTrainedModel:
        copy: Any = load_model(base, dtype, rows=tokens.size)
        state = {k: v.to("cpu") for k, v in _adapter_tensors(trained, config, tokens, start).items()}
        apply_adapter(copy, state, config.alpha / config.rank, tokens.new_ids)
        return copy.to(config.device)  # type: ignore[no-any-return]

    def evaluate() -> dict[str, float]:
        tell(0, 0, "validating")
        trained.eval()
        with torch.inference_mode():
            return validation_metrics(plain(), tokens, book, valid, config.eval_limit)

    settings = RunSettings(
        schedule=Schedule(config.steps, config.max_minutes, config.warmup, config.decay),
        batch_tokens=config.batch_tokens,
        seed=config.seed,
        rec_id=tokens.rec,
        span=book.levels + 2,
        save_minutes=config.save_minutes,
        save_steps=config.save_steps if config.steps else None,
        eval_minutes=config.eval_minutes,
        eval_steps=max(1, config.steps // 10) if config.steps else None,
    )
    trainer = Trainer(trained, groups, named, phases, settings, run_dir / "checkpoints", device=config.device,
                      evaluate=evaluate if valid else None, progress=progress)  # fmt: skip
    resumed = resume and trainer.resume()
    log_path = run_dir / "metrics.jsonl"
    _trim_log(log_path, trainer.state.step)
    began = time.monotonic()

    def write(directory: Path, finished: bool) -> str:
        state = trainer.state
        training = {
            "config": config.shareable(), "data": hashes, "counts": counts | corpus_counts, "finished": finished,
            "steps": state.step, "tokens": state.tokens, "minutes": round(state.elapsed / 60, 2),
            "decay_start": state.decay_start, "validation": state.log, "best": state.best,
        }  # fmt: skip
        tensors = {k: v.to(torch.bfloat16) for k, v in _adapter_tensors(trained, config, tokens, start).items()}
        popularity = mention_counts(dialogues)
        return write_bundle(directory, prepared, tokens, base, tensors, shape, targets, training, popularity, log_path)

    def on_step(row: dict[str, float]) -> None:
        with open(log_path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        minutes = trainer.state.elapsed / 60
        done = int(1000 * settings.schedule.progress(trainer.state.step, minutes))
        name = phases[trainer.state.phase].name
        tell(done, 1000, f"step {row['step']} {name} loss {row['loss']:.3f} {row['tokens_per_second']:.0f} tok/s")

    finished = trainer.run(on_step, (lambda: _discard(write(best, False))) if valid else None)
    if not finished:
        return {"finished": False, "steps": trainer.state.step, "resume": f"{run_dir} holds the checkpoint: --resume"}
    if valid and (best / "gcrs.json").is_file() and trainer.state.best_step != trainer.state.step:
        from gcrs.toolkit.files import atomic_directory

        with atomic_directory(config.out) as staged:
            for path in best.rglob("*"):
                if path.is_file():
                    target = staged / path.relative_to(best)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
        bundle_hash = sha256_file(config.out / "gcrs.json")
    else:
        bundle_hash = write(config.out, True)
    return {
        "finished": True,
        "out": str(config.out),
        "bundle": bundle_hash,
        "resumed": bool(resumed),
        "steps": trainer.state.step,
        "best_step": trainer.state.best_step,
        "tokens": trainer.state.tokens,
        "minutes": round(trainer.state.elapsed / 60, 2),
        "session_minutes": round((time.monotonic() - began) / 60, 2),
        "validation": trainer.state.log,
        "counts": counts | corpus_counts,
    }


def _trim_log(path: Path, step: int) -> None:
    """Drop what a killed session logged after its last checkpoint: those steps are taken again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()[:step]
        with atomic_write(path) as handle:
            handle.writelines(f"{line}\n" for line in lines)


def _discard(_: object) -> None:
    """Turn a value into nothing."""


def _claim(run_dir: Path, fingerprint: str, config: FinetuneConfig, resume: bool) -> None:
    """Make the run directory ours, or refuse one that holds another run."""
    mark = run_dir / "run.json"
    if mark.is_file():
        try:
            held = json.loads(mark.read_text(encoding="utf-8")).get("fingerprint")
        except ValueError:
            held = None
        if not resume:
            raise UsageError(f"{run_dir} holds an earlier run.", hint="Pass --resume to go on with it, or remove it.")
        if held != fingerprint:
            raise UsageError(
                f"{run_dir} holds a run with other settings or data.",
                hint="Repeat its settings, or choose another --out.",
            )
    elif resume and run_dir.exists() and any(run_dir.iterdir()):
        raise DataError(f"{run_dir} has no run.json: it is no run of gcrs.", hint="Choose another --out.")
    with atomic_write(mark) as handle:
        json.dump({"fingerprint": fingerprint, "config": config.resolved()}, handle, indent=1)
