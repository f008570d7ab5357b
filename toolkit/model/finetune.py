"""`finetune`: a catalogue with semantic IDs and dialogues in, a bundle out.

Knows nothing of terminals or of the file formats of data sets: dialogues come in gcrs' own format.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    from gcrs.toolkit.model.adapter import AdapterShape
    from gcrs.toolkit.model.tokens import TokenSpace
    from gcrs.toolkit.model.training_data import TrainingData

Progress = Callable[[int, int, str], None]
LEAST_STEPS, MOST_STEPS = 100, 5_000  # of a run that is given no budget


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
        from gcrs.toolkit.model.adapter import linear_names, row_modules

        linear = {f"{name}.weight" for name in linear_names(model)}
        heads = {f"{name}.weight" for name in row_modules(model)}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in linear or name in heads
            if parameter.requires_grad:
                named[name] = parameter
                (rows if name in heads else rest).append(parameter)
        first = tokens.base_rows

        def only_new_rows(grad: torch.Tensor) -> torch.Tensor:
            grad = grad.clone()
            grad[:first] = 0
            return grad

        for parameter in rows:
            parameter.register_hook(only_new_rows)
    return [{"params": rest, "lr": config.lr}, {"params": rows, "lr": config.id_lr}], named


def _adapter_tensors(
    model: Any, method: str, shape: AdapterShape, tokens: TokenSpace, start: dict[str, Any]
) -> dict[str, Any]:
    """The adapter as it would ship, whatever was trained."""
    from gcrs.toolkit.model.adapter import PREFIX, ROWS_SUFFIX, adapter_state, extract_low_rank, row_modules

    if method == "lora":
        return adapter_state(model)
    weights = {name: module.weight.detach() for name, module in model.named_modules() if name in start}
    out = extract_low_rank(start, weights, shape)
    for where, part in row_modules(model).items():
        rows = part.weight.detach()[tokens.base_rows : tokens.size]
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

    engine = Engine(model, tokens, book, cache_bytes=0)  # the replies of one dialogue follow one another
    ranks: list[int] = []
    for n, context in enumerate(contexts(dialogues)):
        if n >= limit:
            break
        prompt = [*encode_prompt(context.dialogue, tokens, book), tokens.rec][-1024:]
        ranking = [scored.item_id for scored in engine.targets(prompt, k=50)]
        ranks.extend(rank_of(gold, ranking) for gold in context.gold)
    engine.close()
    return {f"recall@{k}": round(sum(0 < r <= k for r in ranks) / max(1, len(ranks)), 4) for k in (10, 1, 50)}


def fitted(config: FinetuneConfig, data: TrainingData) -> FinetuneConfig:
    """The config with what it leaves open decided by what there is to learn: start, batch and budget."""
    from gcrs.toolkit.model.base import DEFAULT_BASE
    from gcrs.toolkit.model.training_data import FEW

    few = data.counts["dialogues read"] < FEW
    batch = config.batch_tokens or (512 if few else 2048)
    start = config.warm_start or ("movies" if few and config.base == DEFAULT_BASE else "none")
    steps = config.steps
    if steps is None and config.max_minutes is None:  # one pass over the last phase, within bounds
        steps = min(MOST_STEPS, max(LEAST_STEPS, data.phases[-1].corpus.ids.size // batch))
    return replace(config, batch_tokens=batch, warm_start=start, steps=steps)


def finetune(config: FinetuneConfig, *, resume: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Fine-tune and write the bundle; returns a report.

    Checkpoints, the resolved config and the metrics log go to `OUT.run`. Raises DataError on broken inputs, UsageError
    when `OUT.run` holds a different run. A SIGTERM writes a checkpoint and returns a report with "finished": false.
    """
    import torch

    from gcrs.toolkit.model.adapter import apply_adapter, attach, linear_names, row_modules
    from gcrs.toolkit.model.base import find_base, load_model
    from gcrs.toolkit.model.bundle import write_bundle
    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.processes import join
    from gcrs.toolkit.model.rows import initial_rows
    from gcrs.toolkit.model.schedule import Schedule
    from gcrs.toolkit.model.tokens import TokenSpace
    from gcrs.toolkit.model.trainer import RunSettings, Trainer
    from gcrs.toolkit.model.training_data import training_data
    from gcrs.toolkit.model.warm_start import NONE, WarmStart, shape_of
    from gcrs.toolkit.prepared import PreparedCatalog

    if config.threads:
        torch.set_num_threads(config.threads)
    process = join(config.device)
    progress = progress if process.is_main_process else None
    tell = progress or (lambda done, total, what: None)
    prepared = PreparedCatalog.load(config.catalog)
    book = prepared.book
    with process.main_process_first():  # one of them fetches and converts
        base = find_base(config.base, progress)
    tokens = TokenSpace(base.tokenizer_json, base.rows, book.codes)
    tell(0, 0, "reading and making dialogues")
    data = training_data(config, prepared, tokens)
    config = fitted(config, data)
    warm = WarmStart(config.warm_start, base) if config.warm_start not in (None, NONE) else None

    run_dir = config.out.with_name(config.out.name + ".run")
    hashes = {str(path.name): sha256_file(path) for path in (*config.dialogues, *config.extra_items)}
    same = config.resolved() | {
        "out": "",
        "catalog": prepared.hash,
        "data": hashes,
        "base_sha256": base.sha256,
        "warm": warm.hash if warm else None,
    }
    free = {"dialogues", "extra_items", "valid", "device", "eval_minutes", "save_minutes", "eval_limit"}
    if config.max_minutes is not None:  # such a run promises completion, not equal bytes
        free |= {"threads", "max_minutes"}
    fingerprint = sha256_json({key: value for key, value in same.items() if key not in free})
    if process.is_main_process:
        _claim(run_dir, fingerprint, config, resume)
    process.wait_for_everyone()

    dtype = pick_dtype(config.device)
    model: Any = load_model(base, dtype if config.method == "lora" else torch.float32, rows=tokens.size,
                            quantize=config.quantize, device=str(process.device))  # fmt: skip
    texts = [prepared.words(item_id) for item_id in book]
    with torch.no_grad():
        for name, part in row_modules(model).items():  # an untied head starts from its own rows of the same words
            rows = initial_rows(part.weight.cpu(), tokens, book, texts, seed=config.seed)
            if warm is not None:
                rows = warm.kept_rows(name, rows, tokens, book)
            part.weight[tokens.base_rows :] = rows.to(part.weight)
    start = {name: module.weight.detach().clone() for name, module in model.named_modules()
             if config.method == "full" and name in set(linear_names(model))}  # fmt: skip
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_names(model)})
    shape = shape_of(warm, config.rank, config.alpha, config.dropout)
    trained: Any = attach(model, tokens.new_ids, shape, config.seed) if config.method == "lora" else model
    if warm is not None:
        warm.adapter_into(trained) if config.method == "lora" else warm.merge_into(trained)
    groups, named = _trainable(trained, config, tokens)

    best = run_dir / "best"

    def plain() -> PreTrainedModel:
        copy: Any = load_model(base, dtype, rows=tokens.size)
        state = {k: v.to("cpu") for k, v in _adapter_tensors(trained, config.method, shape, tokens, start).items()}
        apply_adapter(copy, state, shape.alpha / shape.rank, tokens.new_ids)
        return copy.to(config.device)  # type: ignore[no-any-return]

    def evaluate() -> dict[str, float]:
        tell(0, 0, "validating")
        trained.eval()
        with torch.inference_mode():
            return validation_metrics(plain(), tokens, book, data.valid, config.eval_limit)

    settings = RunSettings(
        schedule=Schedule(config.steps, config.max_minutes, config.warmup, config.decay),
        batch_tokens=config.batch_tokens or 2048,
        seed=config.seed,
        rec_id=tokens.rec,
        span=book.levels + 2,
        save_minutes=config.save_minutes,
        save_steps=config.save_steps if config.steps else None,
        eval_minutes=config.eval_minutes,
        eval_steps=max(1, config.steps // (10 if config.valid else 3)) if config.steps else None,
    )
    trainer = Trainer(trained, groups, named, data.phases, settings, run_dir / "checkpoints", device=config.device,
                      evaluate=evaluate if data.valid else None, progress=progress)  # fmt: skip
    resumed = resume and trainer.resume()
    log_path = run_dir / "metrics.jsonl"
    if process.is_main_process:
        _trim_log(log_path, trainer.state.step)
    began = time.monotonic()

    def write(directory: Path, finished: bool) -> str:
        state = trainer.state
        training = {
            "config": config.shareable(), "data": hashes, "counts": data.counts, "finished": finished,
            "steps": state.step, "tokens": state.tokens, "minutes": round(state.elapsed / 60, 2),
            "decay_start": state.decay_start, "validation": state.log, "best": state.best,
            "validated_on": data.valid_kind, "popularity": data.baseline, "warm_start": warm.hash if warm else None,
        }  # fmt: skip
        tensors = {
            k: v.to(torch.bfloat16) for k, v in _adapter_tensors(trained, config.method, shape, tokens, start).items()
        }
        return write_bundle(
            directory, prepared, tokens, base, tensors, shape, targets, training, data.popularity, log_path
        )

    def on_step(row: dict[str, float]) -> None:
        with open(log_path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        minutes = trainer.state.elapsed / 60
        done = int(1000 * settings.schedule.progress(trainer.state.step, minutes))
        name = data.phases[trainer.state.phase].name
        tell(done, 1000, f"step {row['step']} {name} loss {row['loss']:.3f} {row['tokens_per_second']:.0f} tok/s")

    finished = trainer.run(on_step, (lambda: _discard(write(best, False))) if data.valid else None)
    if not process.is_main_process:
        return {"finished": finished, "main": False, "steps": trainer.state.step}
    if not finished:
        return {"finished": False, "steps": trainer.state.step, "resume": f"{run_dir} holds the checkpoint: --resume"}
    if data.valid and (best / "gcrs.json").is_file() and trainer.state.best_step != trainer.state.step:
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
        "validated_on": data.valid_kind,
        "popularity": data.baseline,
        "validation": trainer.state.log,
        "counts": data.counts,
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
    """Make the run directory ours, or refuse one that holds another run's checkpoint."""
    from gcrs.toolkit.model.checkpoint import latest_checkpoint

    mark = run_dir / "run.json"
    if mark.is_file():
        try:
            held = json.loads(mark.read_text(encoding="utf-8")).get("fingerprint")
        except ValueError:
            held = None
        begun = latest_checkpoint(run_dir / "checkpoints") is not None  # else it never got anywhere
        if begun and not resume:
            raise UsageError(f"{run_dir} holds an earlier run.", hint="Pass --resume to go on with it, or remove it.")
        if begun and held != fingerprint:
            raise UsageError(
                f"{run_dir} holds a run with other settings or data.",
                hint="Repeat its settings, or choose another --out.",
            )
    elif resume and run_dir.exists() and any(run_dir.iterdir()):
        raise DataError(f"{run_dir} has no run.json: it is no run of gcrs.", hint="Choose another --out.")
    with atomic_write(mark) as handle:
        json.dump({"fingerprint": fingerprint, "config": config.resolved()}, handle, indent=1)
