"""Fine-tuning on whole dialogues against the paper's instance a target: the same replies learnt from, in seconds.

Both layouts train the same adapter on the same base by the same trainer, in bucketed batches of as many tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.bench.limits import Limit, forwarding
from gcrs.toolkit.bench.measure import Row, pairs
from gcrs.toolkit.bench.simulated import TURNS, dialogue

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import Workbench
    from gcrs.toolkit.dialogue.corpus import Corpus
    from gcrs.toolkit.model.trainer import Trainer

BATCH = 2048  # padded tokens a step, as `gcrs finetune` takes them


def finetune(bench: Workbench) -> list[Row]:
    """One pass over the same dialogues in either layout; replies a second are inverse to the seconds."""
    import tempfile

    from gcrs.toolkit.dialogue.corpus import build_corpus

    bundle = bench.bundle
    talks = [dialogue(bundle.book, seed, bench.pick(TURNS, TURNS // 2)) for seed in range(bench.pick(8, 1))]
    replies = sum(turn.role == "assistant" for talk in talks for turn in talk.turns)
    whole, _ = build_corpus(talks, bundle.tokens, bundle.book)
    single, _ = build_corpus(talks, bundle.tokens, bundle.book, layout="instance")
    with tempfile.TemporaryDirectory(prefix="gcrs-bench-") as scratch:
        model = _model(bench)
        passes = [_Pass(_trainer(model, corpus, bench, Path(scratch))) for corpus in (whole, single)]
        passes[0].trainer.step()  # warm
        ratio, theirs, ours = pairs(passes[1], passes[0], bench.pick(2, 1))
    padded = [(len(rows), int(whole.lengths[rows].max())) for _, rows in passes[0].batches()]
    limit: Limit = forwarding(bench.rates(), model.get_base_model(), padded, passes=3)
    details = {
        "replies": replies, "replies per second": replies / ours.median, "by instances": replies / theirs.median,
        "tokens": int(whole.lengths.sum()), "tokens by instances": int(single.lengths.sum()),
    }  # fmt: skip
    what = f"supervised replies a second, LoRA, {len(talks)} dialogues of {len(talks[0])} turns"
    baseline = "bucketed instance per target"
    return [Row("finetune", what, "ratio", ratio, 3.5, "higher", baseline, ours, theirs, limit, details)]


class _Pass:
    """One epoch of a trainer."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.steps = trainer.plans[0].steps_per_epoch

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.trainer.step()

    def batches(self) -> list[Any]:
        return [self.trainer.plans[0].at(step) for step in range(self.steps)]


def _model(bench: Workbench) -> Any:
    """The bundle's base with a fresh adapter."""
    import torch

    from gcrs.toolkit.model.adapter import AdapterShape, attach
    from gcrs.toolkit.model.base import find_base, load_model
    from gcrs.toolkit.model.device import pick_dtype

    tokens = bench.bundle.tokens
    base: Any = load_model(find_base(bench.bundle.manifest["base"]["name"]), pick_dtype("cpu"), rows=tokens.size)
    rows = base.get_input_embeddings().weight
    with torch.no_grad():
        rows[tokens.base_rows :] = rows[: tokens.base_rows].mean(dim=0)
    return attach(base, tokens.new_ids, AdapterShape(), seed=0)


def _trainer(model: Any, corpus: Corpus, bench: Workbench, directory: Path) -> Trainer:
    from gcrs.toolkit.dialogue.encode import Kind
    from gcrs.toolkit.model.schedule import Schedule
    from gcrs.toolkit.model.trainer import Phase, RunSettings, Trainer

    weights = tuple(float(kind != Kind.CONTEXT) for kind in Kind)
    named = {name: part for name, part in model.named_parameters() if part.requires_grad}
    tokens = bench.bundle.tokens
    settings = RunSettings(Schedule(10**6, None, 1, 0.0), bench.pick(BATCH, BATCH // 2), 0, tokens.rec,
                           bench.bundle.book.levels + 2)  # fmt: skip
    groups = [{"params": list(named.values()), "lr": 1e-4}]
    return Trainer(model, groups, named, [Phase("bench", corpus, weights, 1.0)], settings, directory)
