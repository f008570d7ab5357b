"""The training run: accelerate's device, precision and distribution around one supervised step.

A run is a pure function of (data, config, seed, machine, threads): batches, target order and dropout derive from the
step's number, so a run that was killed and resumed ends with the same bytes. Several processes share each batch and
take the step that one would take. Knows nothing of catalogues, dialogues or files of data: it sees token ids and kinds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gcrs.toolkit.dialogue.corpus import Corpus, shuffle_targets
from gcrs.toolkit.model.batches import BatchPlan, PlannedFeed, pad_right
from gcrs.toolkit.model.checkpoint import latest_checkpoint, save_checkpoint
from gcrs.toolkit.model.device import pick_dtype
from gcrs.toolkit.model.loss import SupervisedLoss
from gcrs.toolkit.model.mixture_stream import MixtureStream
from gcrs.toolkit.model.processes import own_share, summed
from gcrs.toolkit.model.schedule import Schedule

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Phase:
    """A stretch of training on one corpus until `until` (share of the whole budget, 0..1).

    With a `stream` its steps are drawn from that instead, and the corpus is a sample of it for forecasts.
    """

    name: str
    corpus: Corpus
    weights: tuple[float, ...]  # loss weight by Kind
    until: float
    stream: MixtureStream | None = None


@dataclass(frozen=True)
class RunSettings:
    """How a run goes, apart from data and model."""

    schedule: Schedule
    batch_tokens: int
    seed: int
    rec_id: int
    span: int
    clip: float = 1.0
    save_minutes: float = 5.0
    save_steps: int | None = None
    eval_minutes: float = 15.0
    eval_steps: int | None = None
    eval_at: tuple[float, ...] = ()  # shares of the budget, in place of eval_steps and eval_minutes
    batch_sequences: int | None = None  # in place of batch_tokens
    micro_tokens: int | None = None  # padded tokens forwarded at once; None: the whole batch


@dataclass
class RunState:
    """What a checkpoint holds beside tensors."""

    step: int = 0
    elapsed: float = 0.0  # seconds of training, over all sessions
    tokens: int = 0
    phase: int = 0
    phase_start: int = 0
    decay_start: int | None = None
    best: float | None = None
    best_step: int | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    drawn: int = 0  # tokens of the sequences read, without padding
    stream: dict[str, Any] | None = None  # where the phase's stream stands
    unvalidated: bool = False  # a stop was asked for in a validation: it is made up for first


class Trainer:
    """Runs phases over a model's trainable parameters, with checkpoints, validation and a clean stop on SIGTERM.

    `groups` are optimiser groups [{"params": [...], "lr": …}]; `named` maps stable names to the same parameters.
    `evaluate()` returns validation metrics, the first of which decides what is best (higher is better); None when it
    gave up because of `hurried`.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        named: dict[str, nn.Parameter],
        phases: Sequence[Phase],
        settings: RunSettings,
        directory: Path,
        *,
        device: str = "cpu",
        evaluate: Callable[[], dict[str, float] | None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.settings = settings
        self.phases = list(phases)
        self.directory = directory
        self.evaluate = evaluate
        self.report = progress
        self.named = named
        precision = "bf16" if pick_dtype(device) == torch.bfloat16 else "no"  # emulated bf16 is 20 times slower
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
        self.base_rates = [group["lr"] for group in groups]
        self.loss, self.optimizer = self.accelerator.prepare(SupervisedLoss(model), optimizer)
        batch = settings.batch_tokens, settings.seed, settings.batch_sequences
        self.plans = [BatchPlan(phase.corpus.lengths, *batch) for phase in self.phases]
        self.feeds = [
            phase.stream or PlannedFeed(phase.corpus, plan) for phase, plan in zip(self.phases, self.plans, strict=True)
        ]
        self.state = RunState()
        self.stop_requested = False
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes

    def _optimizer_tensors(self) -> dict[str, torch.Tensor]:
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        out: dict[str, torch.Tensor] = {}
        for name, parameter in self.named.items():
            out[f"param.{name}"] = parameter
            for key, value in inner.state.get(parameter, {}).items():
                out[f"optim.{key}.{name}"] = torch.as_tensor(value)
        return out

    def save(self) -> None:
        """Write a checkpoint of everything that the next step depends on."""
        self.state.stream = self.feeds[self.state.phase].state()
        if self.accelerator.is_main_process:
            save_checkpoint(self.directory, self.state.step, self._optimizer_tensors(), vars(self.state))

    def resume(self) -> bool:
        """Take up the newest whole checkpoint; False when there is none."""
        found = latest_checkpoint(self.directory)
        if found is None:
            return False
        _, tensors, state = found
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(tensors[f"param.{name}"].to(parameter.device))
                moments = {
                    key.split(".", 2)[1]: value.to(parameter.device) if value.dim() else value
                    for key, value in tensors.items()
                    if key.startswith("optim.") and key.split(".", 2)[2] == name
                }
                if moments:
                    inner.state[parameter] = moments
        self.state = RunState(**state)
        if self.state.stream is not None:
            self.feeds[self.state.phase].restore(self.state.stream)
        return True

    def _batch(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(ids, loss weights), each [sequences, longest], of each pass; together this process's part."""
        feed: Any = self.feeds[self.state.phase]
        epoch, rows = feed.at(self.state.step - self.state.phase_start)
        self.state.drawn += int(feed.lengths[rows].sum())
        rows, counts = own_share(rows, self.rank, self.world)
        return [self._padded(part, epoch, counts) for part in feed.parts(rows, self.settings.micro_tokens)]

    def _padded(self, rows: np.ndarray, epoch: int, counts: bool) -> tuple[torch.Tensor, torch.Tensor]:
        phase, feed = self.phases[self.state.phase], self.feeds[self.state.phase]
        ids, kinds = [], []
        for row in rows:
            sequence, kind = feed.sequence(int(row))
            rng = np.random.default_rng([self.settings.seed, 2, self.state.phase, epoch, int(row)])
            ids.append(shuffle_targets(sequence, kind, self.settings.rec_id, self.settings.span, rng))
            kinds.append(kind)
        weights = np.asarray(phase.weights, dtype=np.float32)
        padded = pad_right(kinds, 0)
        device = self.accelerator.device
        loss_weights = torch.from_numpy(weights[padded]).to(device)
        for n, kind in enumerate(kinds):
            loss_weights[n, len(kind) :] = 0
        if not counts:
            loss_weights *= 1e-6  # next to nothing, yet every parameter gets its gradient
        return torch.from_numpy(pad_right(ids, 0)).to(device), loss_weights

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        state = self.state
        return self.settings.schedule.progress(state.step, state.elapsed / 60, state.drawn)

    def _advance_phase(self) -> None:
        used = self.progress
        while self.state.phase + 1 < len(self.phases) and used >= self.phases[self.state.phase].until:
            self.state.phase += 1
            self.state.phase_start = self.state.step

    def _backward(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float, int, float]:
        """Gradients of one step: the mean over all of its supervised tokens, however it is split and shared out.

        Returns this process's loss and plain cross-entropy, the padded tokens of all processes, and this process's
        share of the loss weight times their number.
        """
        self.loss.train()
        masses = [float(weights[:, 1:].sum()) for _, weights in parts]
        mine, tokens, share = sum(masses), sum(ids.numel() for ids, _ in parts), 1.0
        if self.world > 1:  # the mean over all supervised tokens, not the mean of the processes' means
            total, all_tokens = summed([mine, tokens], self.accelerator.device, self.world)
            tokens, share = int(all_tokens), self.world * mine / max(total, 1e-6)
        shown = plain = 0.0
        count = 0
        for n, ((ids, weights), mass) in enumerate(zip(parts, masses, strict=True)):
            part = mass / max(mine, 1e-12)
            last = n + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self.loss):  # processes meet once a step
                with self.accelerator.autocast():
                    loss, losses = self.loss(ids, weights)
                alone = self.world == 1 and len(parts) == 1
                self.accelerator.backward(loss if alone else loss * (share * part))
            shown += float(loss.detach()) * part
            plain += float(losses.sum())
            count += len(losses)
            del loss, losses  # else a step would hold its logits beside the next one's
        return shown, plain / max(1, count), tokens, share

    def step(self) -> dict[str, float]:
        """One optimiser step; returns what the log keeps of it."""
        began = time.monotonic()
        self._advance_phase()
        schedule, state = self.settings.schedule, self.state
        minutes = state.elapsed / 60
        factor = schedule.factor(state.step, minutes, state.drawn)
        if state.decay_start is None and schedule.decaying(state.step, minutes, state.drawn):
            state.decay_start = state.step
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed((self.settings.seed * 1_000_003 + state.step + 7_919 * self.rank) % 2**63)
        shown, plain, tokens, share = self._backward(self._batch())
        norm = self.accelerator.clip_grad_norm_(list(self.named.values()), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.tokens += tokens
        spent = time.monotonic() - began
        if self.world > 1:  # the first process's clock is everyone's; a stop asked of one is asked of all
            asked = [shown * share, plain, spent if self.rank == 0 else 0.0, float(self.stop_requested)]
            shown, plain, spent, stop = summed(asked, self.accelerator.device, self.world)
            shown, plain = shown / self.world, plain / self.world
            self.stop_requested = stop > 0
        state.elapsed += spent
        return {
            "step": state.step,
            "loss": round(shown, 4),
            "plain_loss": round(plain, 4),
            "grad_norm": round(float(norm), 3),
            "lr_factor": round(factor, 4),
            "tokens_per_second": round(tokens / spent, 1),
            "phase": state.phase,
        }

    def _validate(self, on_best: Callable[[], None] | None) -> None:
        if self.evaluate is None or self.rank:
            return
        metrics = self.evaluate()
        self.state.unvalidated = metrics is None
        if metrics is None:
            return
        self.state.log.append({"step": self.state.step, **metrics})
        first = next(iter(metrics.values()))
        if self.state.best is None or first >= self.state.best:
            self.state.best, self.state.best_step = first, self.state.step
            if on_best is not None:
                on_best()

    @property
    def hurried(self) -> bool:
        """Whether a validation shall give up: a stop was asked for, and no other process waits for this one's step."""
        return self.stop_requested and self.world == 1

    def _eval_due(self, before: float, seconds: float) -> bool:
        """Whether to validate now: `before` is the progress before this step, `seconds` those since the last time."""
        every, at = self.settings.eval_steps, self.settings.eval_at
        if at:
            return any(before < share <= self.progress < 1 for share in at)
        return self.state.step % every == 0 if every else seconds > self.settings.eval_minutes * 60

    def run(self, on_step: Callable[[dict[str, float]], None], on_best: Callable[[], None] | None = None) -> bool:
        """Train until the budget is spent or a stop is asked for; True when the budget is spent."""
        schedule, state = self.settings.schedule, self.state
        last_save = last_eval = time.monotonic()
        previous = _catch_sigterm(self)
        try:
            if state.unvalidated:
                self._validate(on_best)
            while not (self.hurried or schedule.done(state.step, state.elapsed / 60, state.drawn)):
                before = self.progress
                row = self.step()
                if self.rank == 0:
                    on_step(row)
                now = time.monotonic()
                if self._eval_due(before, now - last_eval):
                    self._validate(on_best)
                    last_eval = time.monotonic()
                every = self.settings.save_steps
                due = now - last_save > self.settings.save_minutes * 60 or (every and state.step % every == 0)
                if due or self.stop_requested:
                    self.save()
                    last_save = time.monotonic()
                if self.stop_requested:
                    return False
            if not state.log or state.log[-1]["step"] != state.step:  # else these weights have just been validated
                self._validate(on_best)
            self.save()
            return not state.unvalidated and schedule.done(state.step, state.elapsed / 60, state.drawn)
        finally:
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)


def _catch_sigterm(trainer: Trainer) -> Any:
    """On SIGTERM finish the step, write a checkpoint, stop. None where signals cannot be set (not the main thread)."""

    def ask(*_: object) -> None:
        trainer.stop_requested = True

    try:
        return signal.signal(signal.SIGTERM, ask)
    except ValueError:
        return None
