"""A run's outlook: the forecast of forecast.py over this run's data and this machine, and whether it fits.

Knows nothing of terminals; `to_json` is what a report and `gcrs doctor --json` hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.forecast import (
    Shape,
    Speed,
    Work,
    disk_bytes,
    memory_parts,
    step_seconds,
)
from gcrs.toolkit.model.machine import free_memory, held_memory

if TYPE_CHECKING:
    from gcrs.toolkit.model.trainer import Phase

GB = 1e9
TYPICAL, SUPERVISED = 300, 0.6  # of a dialogue, where no data is given: tokens, and the share of them with a loss
SMALLER = "Smaller: micro_tokens=768, recompute=true, quantize=4bit; memory_check=off tries it all the same."


def work_of(config: FinetuneConfig, phases: Sequence[Phase], processes: int = 1) -> Work:
    """What one process holds and works through, from the batches of the first epoch of every phase."""
    import numpy as np

    from gcrs.toolkit.model.batches import BatchPlan, pieces

    tokens = supervised = length = begun = 0.0
    most = most_supervised = 0
    for phase in phases:
        lengths = phase.corpus.lengths
        counted = np.asarray(phase.weights, dtype=np.float32)[phase.corpus.kinds] > 0
        losses = np.add.reduceat(counted, phase.corpus.offsets[:-1])
        plan = BatchPlan(lengths, config.batch_tokens or 2048, config.seed, config.batch_sequences)
        share, begun = phase.until - begun, phase.until
        padded, seen = 0, 0
        for batch in plan.first_epoch:
            for part in pieces(batch[::processes], lengths, config.micro_tokens):
                size = int(lengths[part].max()) * len(part)
                padded, seen = padded + size, seen + int(losses[part].sum())
                most, most_supervised = max(most, size), max(most_supervised, int(losses[part].sum()))
        tokens += share * padded / len(plan.first_epoch)
        supervised += share * seen / len(plan.first_epoch)
        length += share * float(lengths.mean())
    return Work(tokens, supervised, most, most_supervised, round(length), config.steps)


def assumed_work(config: FinetuneConfig) -> Work:
    """The same without data: batches that are full, dialogues of a typical length."""
    length = min(TYPICAL, config.max_length)
    step = config.batch_sequences * length if config.batch_sequences else config.batch_tokens or 2048
    longest = config.max_length * (config.batch_sequences or 1)
    at_once = max(step if config.batch_sequences is None else longest, config.max_length)
    if config.micro_tokens:
        at_once = min(at_once, max(config.micro_tokens, config.max_length))
    share = SUPERVISED if config.layout == "dialogue" else SUPERVISED / 4
    return Work(step, share * step, at_once, int(share * at_once), length, config.steps)


@dataclass(frozen=True)
class Outlook:
    """What one run needs on one machine. `free` and `held` are bytes now, None where the system does not say."""

    config: FinetuneConfig
    settings: Mapping[str, Any]
    work: Work
    new_rows: int
    validates: bool
    bf16: bool
    free: int | None
    held: int | None
    assumed: bool = False  # whether the work is a guess, because there was no data
    absent: bool = False  # whether the device is not here: memory can be forecast, time cannot

    @classmethod
    def of(
        cls,
        config: FinetuneConfig,
        settings: Mapping[str, Any],
        work: Work | None,
        new_rows: int,
        *,
        validates: bool,
        processes: int = 1,
    ) -> Outlook:
        """For this machine as it is now; `settings` is the base's config.json, `work` None where no data is known."""
        import torch

        from gcrs.toolkit.model.device import pick_dtype

        free, held = free_memory(config.device), held_memory()
        if free is not None and not config.device.startswith("cuda"):
            free //= processes  # they share the machine's
        absent = config.device.startswith("cuda") and not torch.cuda.is_available()
        bf16 = absent or pick_dtype(config.device) == torch.bfloat16
        return cls(config, settings, work or assumed_work(config), new_rows, validates, bf16, free, held,
                   work is None, absent)  # fmt: skip

    @cached_property
    def shape(self) -> Shape:
        return Shape.of(self.settings)

    @cached_property
    def parts(self) -> dict[str, int]:
        """Bytes of memory by part, beside the running program."""
        return memory_parts(self.shape, self.config, self.work, self.new_rows, bf16=self.bf16, validates=self.validates)

    @property
    def needed(self) -> int:
        """Bytes that the run takes beyond what the process holds now."""
        return sum(self.parts.values())

    @property
    def peak(self) -> int:
        """Bytes at the most: of the process in RAM, or of the run on a GPU."""
        return self.needed + (0 if self.config.device.startswith("cuda") else self.held or 0)

    @property
    def fits(self) -> bool | None:
        """Whether that much is free; None where the system does not say."""
        return None if self.free is None else self.needed <= self.free

    @cached_property
    def speed(self) -> Speed:
        """Measured on first use: a few seconds."""
        from gcrs.toolkit.model.probe import measure_speed

        return measure_speed(self.settings, self.config, self.work)

    @cached_property
    def step_seconds(self) -> float:
        return step_seconds(self.shape, self.config, self.work, self.new_rows, self.speed)

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None where neither a budget nor data says."""
        if self.config.max_minutes is not None:
            return None if not self.timed else max(1, round(self.config.max_minutes * 60 / self.step_seconds))
        if self.config.tokens is not None:
            return max(1, round(self.config.tokens / max(1.0, self.work.tokens)))
        return self.config.steps

    @property
    def timed(self) -> bool:
        """Whether this machine can be measured: the device is here and its memory suffices."""
        return not self.absent and self.fits is not False

    @property
    def disk(self) -> dict[str, int]:
        return disk_bytes(self.shape, self.config, self.new_rows, validates=self.validates)

    def sentence(self) -> str:
        """What it needs against what is free."""
        parts = ", ".join(f"{name} {size / GB:.2f}" for name, size in self.parts.items() if size > 0.005 * self.needed)
        free = "" if self.free is None else f", where {self.free / GB:.1f} GB are free"
        return f"{self.needed / GB:.1f} GB of memory ({parts}) on {self.config.device}{free}"

    def check(self) -> str | None:
        """A warning when it does not fit; UsageError (exit 2) instead where memory_check is "stop"."""
        if self.fits is not False or self.config.memory_check == "off":
            return None
        sentence = f"The run is forecast to need {self.sentence()}."
        if self.config.memory_check == "stop":
            raise UsageError(sentence, hint=SMALLER)
        return sentence

    def expected(self) -> dict[str, Any]:
        """What a report compares with what came: minutes of training, tokens a second, peak memory."""
        steps = self.steps
        seconds = self.step_seconds if self.timed else None
        return {
            "minutes": None if steps is None or seconds is None else round(steps * seconds / 60, 2),
            "tokens_per_second": None if seconds is None else round(self.work.tokens / seconds, 1),
            "memory_gb": round(self.peak / GB, 3),
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, in bytes, seconds and tokens."""
        steps = self.steps
        return {
            "base": self.config.base,
            "device": self.config.device,
            "assumed": self.assumed,
            "memory": self.parts,
            "memory_needed": self.needed,
            "memory_free": self.free,
            "fits": self.fits,
            "steps": steps,
            "tokens": None if steps is None else round(steps * self.work.tokens),
            "step_seconds": round(self.step_seconds, 4) if self.timed else None,
            **self.expected(),
            "disk": self.disk,
        }


def refuse_early(config: FinetuneConfig, new_rows: int) -> None:
    """Stop before a hub id's weights are fetched when not even they and the optimiser fit; UsageError says so.

    Looks at config.json alone; without it nothing is refused.
    """
    from gcrs.toolkit.errors import DataError, MissingModelError
    from gcrs.toolkit.model.base_config import base_config, is_here

    if config.memory_check != "stop" or is_here(config.base):
        return
    try:
        settings = base_config(config.base, fetch=True)
        nothing = Work(1, 1, 1, 1, 1, config.steps)
        Outlook.of(replace(config, recompute=True), settings, nothing, new_rows, validates=False).check()
    except (MissingModelError, DataError):
        return  # find_base says it better
