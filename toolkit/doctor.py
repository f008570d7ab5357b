"""What this machine can do: versions, caches, weights, a bundle, a GPU, and the forecast of a fine-tuning run.

Looks and computes, fetches nothing. Knows nothing of terminals: it yields findings, each with the exit code that it
stands for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import GcrsError

if TYPE_CHECKING:
    from gcrs.toolkit.model.finetune_config import FinetuneConfig
    from gcrs.toolkit.model.outlook import Outlook

Progress = Callable[[int, int, str], None]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "outlines", "dspy", "chromadb")
TIGHT = 0.9  # of what is free: from here on a forecast that fits is called tight


@dataclass(frozen=True)
class Check:
    """One finding. `exit_code` is 0 when there is nothing to do."""

    name: str
    found: str
    exit_code: int = 0


@contextmanager
def _looking() -> Iterator[None]:
    """No downloads meanwhile."""
    before = os.environ.get("GCRS_OFFLINE")
    os.environ["GCRS_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["GCRS_OFFLINE"]
        else:
            os.environ["GCRS_OFFLINE"] = before


def examine(bundle: str) -> Iterator[Check]:
    """Versions, machine, caches, pinned weights, and whether a bundle loads."""
    import platform
    from importlib import metadata

    from gcrs import __version__

    yield Check("gcrs", f"{__version__} on Python {platform.python_version()}, {os.cpu_count()} cores{_memory()}")
    for package in PACKAGES:
        try:
            yield Check(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(package, "not installed; run: make install", 1)
    yield Check("GPU", _gpu())
    yield _cache()
    from gcrs.toolkit.weights import PINNED, fetch

    with _looking():
        for name in PINNED:
            try:
                yield Check(f"weights {name}", f"{fetch(name)}, SHA-256 as pinned")
            except GcrsError as error:
                yield Check(f"weights {name}", f"{error.message} They are fetched at first use.", error.exit_code)
    from gcrs.toolkit.model.bundle import Bundle

    try:
        loaded = Bundle.load(bundle)
        yield Check(f"bundle {bundle}", f"{len(loaded.catalog)} items, hash {loaded.hash[:12]}")
    except GcrsError as error:
        yield Check(f"bundle {bundle}", str(error), error.exit_code)
        return
    from gcrs.toolkit.live import LiveCatalog

    try:
        live = LiveCatalog.of(loaded)
        edition = live.edition
        told = f"version {edition.version}, {live.added} added, {len(edition.retired)} retired"
        yield Check("live changes", f"{told if edition.version else 'none'} ({live.journal.path})")
    except GcrsError as error:
        yield Check("live changes", str(error), error.exit_code)


def _memory() -> str:
    from gcrs.toolkit.model.machine import free_memory

    free = free_memory()
    return "" if free is None else f", {free / 1e9:.1f} GB of memory free"


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "unknown without torch"
    if not torch.cuda.is_available():
        return "none that this torch can use"
    found = []
    for n in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(n)
        found.append(f"{torch.cuda.get_device_name(n)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    return "; ".join(found)


def _cache() -> Check:
    import shutil

    from gcrs.toolkit.files import cache_dir

    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free / 1e9
        writable = os.access(cache, os.W_OK)
    except OSError as error:
        return Check("cache", f"{cache}: {error.strerror}", 1)
    return Check("cache", f"{cache}, {free:.1f} GB free{'' if writable else ', not writable'}", 0 if writable else 1)


def run_config(values: Mapping[str, Any]) -> FinetuneConfig:
    """A fine-tuning config from settings that may lack the catalogue and the place of the bundle."""
    from gcrs.toolkit.model.finetune_config import FinetuneConfig

    there = {"dialogues": "dialogues"} if "catalog" not in values else {}  # no data is read then
    return FinetuneConfig.from_mapping({"catalog": ".", "out": "bundle"} | there | dict(values))


def foresee(config: FinetuneConfig, *, data: bool, progress: Progress | None = None) -> Outlook:
    """The outlook of a run as `gcrs finetune` would see it; with `data` its catalogue and dialogues are read.

    Raises MissingModelError when the base's config.json, or with `data` its tokenizer, is not at hand, DataError for
    broken data.
    """
    from gcrs.toolkit.model.base_config import base_config
    from gcrs.toolkit.model.outlook import Outlook, work_of
    from gcrs.toolkit.model.tokens import CONTROLS, TokenSpace

    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    settings = base_config(config.base)
    if not data:
        return Outlook.of(config, settings, None, len(CONTROLS) + 4 * 64, validates=config.valid is not None)
    from gcrs.toolkit.model.base import find_base
    from gcrs.toolkit.model.finetune import fitted
    from gcrs.toolkit.model.training_data import training_data
    from gcrs.toolkit.prepared import PreparedCatalog

    prepared = PreparedCatalog.load(config.catalog).shown(config.shape)
    with _looking():
        base = find_base(config.base)
    tokens = TokenSpace(base.tokenizer_json, base.rows, prepared.book.codes, config.shape)
    if progress:
        progress(0, 0, "reading and making dialogues")
    found = training_data(config, prepared, tokens)
    config = fitted(config, found)
    return Outlook.of(config, settings, work_of(config, found.phases), len(tokens.new_ids), validates=bool(found.valid))


def absent_device(config: FinetuneConfig) -> Iterator[Check]:
    """A failed check when the run asks for a GPU that is not here: said before gigabytes are fetched for it."""
    import torch

    if config.device.startswith("cuda") and not torch.cuda.is_available():
        yield Check("device", f"the run asks for {config.device}, but torch finds no GPU here: --set device=cpu, or "
                              "another machine", 2)  # fmt: skip


def missing(config: FinetuneConfig, outlook: Outlook | None) -> list[Check]:
    """What has to be fetched or installed before the run."""
    import importlib.util

    from gcrs.toolkit.model.base_config import is_here
    from gcrs.toolkit.weights import PINNED

    out = []
    if config.quantize == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
        out.append(Check("package", "bitsandbytes is not installed, which quantize: 4bit needs: "
                                    "pip install 'gcrs[qlora]'", 4))  # fmt: skip
    if config.base not in PINNED and not is_here(config.base):  # `examine` looks after the pinned ones
        size = ""
        if outlook is not None:
            size = f", about {2 * (outlook.shape.linear + outlook.shape.table()) / 1e9:.1f} GB in bf16"
        out.append(Check("weights", f"{config.base} is not here{size}; gcrs finetune fetches it at first use", 4))
    return out


def forecast(values: Mapping[str, Any], progress: Progress | None = None) -> tuple[list[Check], dict[str, Any] | None]:
    """(findings, the outlook as JSON) of a fine-tuning run with these settings; None when it cannot be forecast.

    Its data is read when `values` names a catalogue. Raises UsageError or DataError for settings that do not fit.
    """
    config = run_config(values)
    checks: list[Check] = []
    outlook = None
    try:
        outlook = foresee(config, data="catalog" in values, progress=progress)
        checks += forecast_checks(outlook)
    except GcrsError as error:
        checks.append(Check("forecast", str(error), error.exit_code))
    checks[:0] = [*(absent_device(config) if outlook is None else ()), *missing(config, outlook)]
    wrong = [check.name for check in checks if check.exit_code]
    checks.append(Check("verdict", f"{config.base} by {config.method} on {config.device}: "
                        + (f"see {', '.join(wrong)}" if wrong else "it can start")))  # fmt: skip
    return checks, None if outlook is None else outlook.to_json()


def forecast_checks(outlook: Outlook) -> Iterator[Check]:
    """The forecast as findings: the step, memory against what is free, time, disk."""
    import shutil

    work, config = outlook.work, outlook.config
    basis = "assumed: pass --catalog and --dialogues for your own" if outlook.assumed else "from the data"
    yield Check("step", f"{work.tokens:,.0f} tokens, {work.supervised:,.0f} of them with a loss, {work.at_once:,} at "
                        f"once ({basis})")  # fmt: skip
    if outlook.absent:
        yield Check("memory", f"{outlook.sentence()}: THERE IS NO SUCH DEVICE HERE", 2)
        return
    tight = outlook.fits and outlook.needed > TIGHT * (outlook.free or 0)
    verdict = {True: "it is tight" if tight else "it fits", False: "IT DOES NOT FIT", None: "unknown"}[outlook.fits]
    yield Check("memory", f"{outlook.sentence()}: {verdict}", 2 if outlook.fits is False else 0)
    if outlook.fits is False:
        return  # a machine without the memory is not measured either: that could end it
    told = outlook.expected()
    steps = outlook.steps
    budget = "no budget: pass --steps, --max-minutes, or the data" if steps is None else (
        f"{told['minutes']:,.1f} minutes for {steps:,} steps, {steps * work.tokens / 1e6:,.2f} M tokens"
    )  # fmt: skip
    yield Check(
        "time", f"{budget}; {told['tokens_per_second']:,.0f} tokens/s, measured just now; validation not counted"
    )
    disk = outlook.disk
    place = next(path for path in (config.out.absolute(), *config.out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    short = free < disk["checkpoints"] + disk["bundle"]
    sizes = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in disk.items())
    yield Check("disk", f"GB: {sizes}; {free / 1e9:.1f} free at {Path(place)}", 1 if short else 0)
