"""`finetune`: a catalogue with semantic IDs and dialogues in, a bundle out.

Knows nothing of terminals or of the file formats of data sets: dialogues come in gcrs' own format.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.files import sha256_file, sha256_json
from gcrs.toolkit.model.finetune_config import FinetuneConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from gcrs.toolkit.model.adapter import AdapterShape
    from gcrs.toolkit.model.tokens import TokenSpace
    from gcrs.toolkit.model.training_data import TrainingData
    from gcrs.toolkit.model.validation import Validation

Progress = Callable[[int, int, str], None]
Watch = Callable[["Validation", float], None]
LEAST_STEPS, MOST_STEPS = 100, 5_000  # of a run that is given no budget

LEAST_BETWEEN = 20  # steps between validations where the budget is in steps: each costs as much as a dozen of them


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


def fitted(config: FinetuneConfig, data: TrainingData) -> FinetuneConfig:
    """The config with what it leaves open decided by what there is to learn: start, batch and budget."""
    from gcrs.toolkit.model.base import DEFAULT_BASE
    from gcrs.toolkit.model.training_data import FEW, batch_size

    few = data.counts["dialogues read"] < FEW
    batch = None if config.batch_sequences else batch_size(config, few)
    start = config.warm_start or ("movies" if few and config.base == DEFAULT_BASE else "none")
    steps, budget = config.steps, config.tokens
    given = any(one is not None for one in (steps, config.max_minutes, budget))
    if data.mixture is not None and not given:
        if (budget := data.mixture.tokens) is None:
            raise UsageError(
                f"{config.mixture} says no total of tokens, and no budget was given.",
                hint="Write tokens: N into it, or pass --steps N or --max-minutes M.",
            )
    elif not given:  # one pass over the last phase, within bounds
        corpus = data.phases[-1].corpus
        epoch = corpus.ids.size // batch if batch else len(corpus) // (config.batch_sequences or 1)
        steps = min(MOST_STEPS, max(LEAST_STEPS, epoch))
    return replace(config, batch_tokens=batch, warm_start=start, steps=steps, tokens=budget)


def finetune(
    config: FinetuneConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
    watch: Watch | None = None,
    eval_at: tuple[float, ...] = (),
    forecast: bool = True,
    keep_best: bool = True,
) -> dict[str, Any]:
    """Fine-tune and write the bundle; returns a report.

    `watch` gets each validation, case by case, with the share of the budget that is used; what it raises ends the
    run. `eval_at` are such shares at which to validate, beside the end, in place of the config's times. Without
    `forecast` the machine is not measured first; without `keep_best` the last weights become the bundle.

    Checkpoints, the resolved config and the metrics log go to `OUT.run`. Raises DataError on broken inputs, UsageError
    when `OUT.run` holds a different run or the memory forecast does not fit (`memory_check`; `warn` gets the sentence
    when it only warns). A SIGTERM writes a checkpoint and returns a report with "finished": false.
    """
    import torch

    from gcrs.toolkit.model.adapter import apply_adapter, attach, linear_names, row_modules
    from gcrs.toolkit.model.base import find_base, load_model, text_settings
    from gcrs.toolkit.model.bundle import bundle_hash, write_bundle
    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.machine import forget_peak, peak_memory
    from gcrs.toolkit.model.outlook import GB, Outlook, refuse_early, work_of
    from gcrs.toolkit.model.probe import recompute
    from gcrs.toolkit.model.processes import join
    from gcrs.toolkit.model.rows import initial_rows
    from gcrs.toolkit.model.run_directory import claim, trim_log
    from gcrs.toolkit.model.schedule import Schedule
    from gcrs.toolkit.model.tokens import CONTROLS, TokenSpace
    from gcrs.toolkit.model.trainer import RunSettings, Trainer
    from gcrs.toolkit.model.training_data import training_data
    from gcrs.toolkit.model.validation import validate
    from gcrs.toolkit.model.warm_start import NONE, WarmStart, shape_of
    from gcrs.toolkit.prepared import PreparedCatalog

    if config.threads:
        torch.set_num_threads(config.threads)
    process = join(config.device)
    progress = progress if process.is_main_process else None
    tell = progress or (lambda done, total, what: None)
    prepared = PreparedCatalog.load(config.catalog).shown(config.shape)
    book = prepared.book
    refuse_early(config, len(CONTROLS) + sum(book.codes))
    with process.main_process_first():  # one of them fetches and converts
        base = find_base(config.base, progress)
    tokens = TokenSpace(base.tokenizer_json, base.rows, book.codes, config.shape)
    tell(0, 0, "reading and making dialogues")
    data = training_data(config, prepared, tokens)
    config = fitted(config, data)
    if (strangers := data.warning()) and warn is not None and process.is_main_process:
        warn(strangers)
    warm = WarmStart(config.warm_start, base) if config.warm_start not in (None, NONE) else None
    before = warm.data if warm else {}
    if warm and warm.bundle.shape.titles != config.titles and warn is not None and process.is_main_process:
        shown, value = ("no titles", "false") if config.titles else ("titles before the person's items", "true")
        warn(f"{config.warm_start} shows {shown}, this run does the opposite: titles={value} goes on as it was.")
    work, world = work_of(config, data.phases, process.num_processes), process.num_processes
    outlook = Outlook.of(config, text_settings(base.directory), work, len(tokens.new_ids), validates=bool(data.valid),
                         processes=world)  # fmt: skip
    if (warning := outlook.check()) and warn is not None and process.is_main_process:
        warn(warning)
    expected: dict[str, Any] | None = None
    if forecast:
        tell(0, 0, "measuring how fast this machine is")
        expected = outlook.expected()

    run_dir = config.out.with_name(config.out.name + ".run")
    hashes = {str(path.name): sha256_file(path) for path in data_files(config)}
    same = config.deciding() | {
        "out": "",
        "catalog": prepared.hash,
        "data": hashes,
        "base_sha256": base.sha256,
        "warm": warm.hash if warm else None,
    }
    if data.mixture is not None:
        same |= {"mixture": data.mixture.to_mapping() | {"shares": list(data.mixture.shares.items())}}
    free = {"dialogues", "extra_items", "ratings", "chat", "valid", "device", "eval_minutes", "save_minutes"}
    free |= {"eval_limit", "licence", "attribution"}
    if config.max_minutes is not None:  # such a run promises completion, not equal bytes
        free |= {"threads", "max_minutes"}
    fingerprint = sha256_json({key: value for key, value in same.items() if key not in free})
    if process.is_main_process:
        claim(run_dir, fingerprint, config, resume)
    process.wait_for_everyone()

    forget_peak(config.device)
    dtype = pick_dtype(config.device)
    model: Any = load_model(base, dtype if config.method == "lora" else torch.float32, rows=tokens.size,
                            quantize=config.quantize, device=str(process.device))  # fmt: skip
    texts = [prepared.words(item_id) for item_id in book]
    with torch.no_grad():
        for name, part in row_modules(model).items():  # an untied head starts from its own rows of the same words
            rows = initial_rows(
                part.weight.cpu(), tokens, book, texts, seed=config.seed, words=config.id_init == "words"
            )
            if warm is not None:
                rows = warm.kept_rows(name, rows, tokens, book)
            part.weight[tokens.base_rows :] = rows.to(part.weight)
    start = {name: module.weight.detach().clone() for name, module in model.named_modules()
             if config.method == "full" and name in set(linear_names(model))}  # fmt: skip
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_names(model)})
    shape = shape_of(warm, config.rank, config.alpha, config.dropout)
    trained_ids = range(tokens.size) if config.embeddings == "all" else tokens.new_ids
    trained: Any = attach(model, trained_ids, shape, config.seed) if config.method == "lora" else model
    if warm is not None:
        warm.adapter_into(trained) if config.method == "lora" else warm.merge_into(trained)
    if config.recompute:
        recompute(trained)
    groups, named = _trainable(trained, config, tokens)

    best = run_dir / "best"

    def plain() -> PreTrainedModel:
        copy: Any = load_model(base, dtype, rows=tokens.size)
        state = {k: v.to("cpu") for k, v in _adapter_tensors(trained, config.method, shape, tokens, start).items()}
        apply_adapter(copy, state, shape.alpha / shape.rank, tokens.new_ids)
        return copy.to(config.device)  # type: ignore[no-any-return]

    def evaluate() -> dict[str, float] | None:
        tell(0, 0, "validating")
        trained.eval()
        with torch.inference_mode():
            found = validate(plain(), tokens, book, data.valid, config.eval_limit, lambda: trainer.hurried)
        if found is None:
            return None
        if watch is not None:
            watch(found, trainer.progress)
        return found.metrics()

    steps = config.steps or (config.tokens and max(1, config.tokens // batch_of(config)))

    settings = RunSettings(
        schedule=Schedule(config.steps, config.max_minutes, config.warmup, config.decay, config.tokens),
        batch_tokens=batch_of(config),
        batch_sequences=config.batch_sequences,
        micro_tokens=config.micro_tokens,
        seed=config.seed,
        rec_id=tokens.rec,
        span=book.levels + 2,
        save_minutes=config.save_minutes,
        save_steps=config.save_steps if steps else None,
        eval_minutes=config.eval_minutes,
        eval_steps=max(LEAST_BETWEEN, steps // (10 if config.valid else 3)) if steps else None,
        eval_at=eval_at,
    )
    trainer = Trainer(trained, groups, named, data.phases, settings, run_dir / "checkpoints", device=config.device,
                      evaluate=evaluate if data.valid else None, progress=progress)  # fmt: skip
    resumed = resume and trainer.resume()
    if resume and not resumed and warn is not None and process.is_main_process:
        warn(f"There is no checkpoint in {run_dir}: starting at step 1.")
    log_path = run_dir / "metrics.jsonl"
    if process.is_main_process:
        trim_log(log_path, trainer.state.step)
    began = time.monotonic()

    def measured() -> dict[str, float | None]:
        state, peak = trainer.state, peak_memory(config.device)
        return {
            "minutes": round(state.elapsed / 60, 2),
            "tokens_per_second": round(state.tokens / max(state.elapsed, 1e-9) / world, 1),
            "memory_gb": None if peak is None else round(peak / GB, 3),
        }

    def drawn() -> dict[str, Any]:
        """What each task of a mixture gave."""
        streams = [phase.stream for phase in data.phases if phase.stream is not None]
        return {"mixture": streams[0].counts()} if streams else {}

    def write(directory: Path, finished: bool) -> str:
        state = trainer.state
        training = {
            "config": config.shareable(), "data": hashes, "counts": data.counts, "finished": finished,
            "steps": state.step, "tokens": state.tokens, "minutes": round(state.elapsed / 60, 2),
            "decay_start": state.decay_start, "validation": state.log, "best": state.best,
            "validated_on": data.valid_kind, "popularity": data.baseline, "warm_start": warm.hash if warm else None,
            "data_before": before,
            "forecast": expected, "measured": measured(), **drawn(),
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
        done = int(1000 * trainer.progress)
        name = data.phases[trainer.state.phase].name
        tell(done, 1000, f"step {row['step']} {name} loss {row['loss']:.3f} {row['tokens_per_second']:.0f} tok/s")

    keeps = bool(data.valid) and keep_best
    finished = trainer.run(on_step, (lambda: _discard(write(best, False))) if keeps else None)
    if not process.is_main_process:
        return {"finished": finished, "main": False, "steps": trainer.state.step}
    if not finished:
        return {"finished": False, "steps": trainer.state.step, "resume": f"{run_dir} holds the checkpoint: --resume"}
    if keeps and (best / "gcrs.json").is_file() and trainer.state.best_step != trainer.state.step:
        from gcrs.toolkit.files import atomic_directory

        with atomic_directory(config.out) as staged:
            for path in best.rglob("*"):
                if path.is_file():
                    target = staged / path.relative_to(best)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
        bundle = bundle_hash(config.out)
    else:
        bundle = write(config.out, True)
    return {
        "finished": True,
        "out": str(config.out),
        "bundle": bundle,
        "resumed": bool(resumed),
        "steps": trainer.state.step,
        "best_step": trainer.state.best_step,
        "tokens": trainer.state.tokens,
        "tokens_read": trainer.state.drawn,
        "minutes": round(trainer.state.elapsed / 60, 2),
        "session_minutes": round((time.monotonic() - began) / 60, 2),
        "forecast": expected,
        "measured": measured(),
        "validated_on": data.valid_kind,
        "popularity": data.baseline,
        "validation": trainer.state.log,
        "counts": data.counts,
        **drawn(),
    }


def data_files(config: FinetuneConfig) -> tuple[Path, ...]:
    """The files that a run learns from."""
    return (*config.dialogues, *config.extra_items, *config.ratings, *config.chat)


def batch_of(config: FinetuneConfig) -> int:
    """Padded tokens a step of a config whose batch is decided."""
    return config.batch_tokens or 2048


def _discard(_: object) -> None:
    """Turn a value into nothing."""
