"""Fine-tuning against what it replaces: the paper's instance a target, and PEFT's own layers.

Both layouts train the same adapter on the same base by the same trainer, in bucketed batches of as many tokens; both
kinds of layers compute the loss and the gradients of the same batch.
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


def step(bench: Workbench) -> list[Row]:
    """Loss and gradients of one batch of whole dialogues, both ways from the same weights."""
    import torch

    from gcrs.toolkit.dialogue.corpus import build_corpus
    from gcrs.toolkit.model.batches import BatchPlan, pad_right
    from gcrs.toolkit.model.loss import SupervisedLoss
    from gcrs.toolkit.model.probe import precision

    bundle, most = bench.bundle, bench.pick(BATCH, BATCH // 4)
    talks = [dialogue(bundle.book, seed, bench.pick(TURNS, TURNS // 2)) for seed in range(bench.pick(8, 2))]
    corpus, _ = build_corpus(talks, bundle.tokens, bundle.book)
    found = [corpus[int(row)] for row in BatchPlan(corpus.lengths, most, 0).at(0)[1]]
    ids = torch.from_numpy(pad_right([one for one, _ in found], 0))
    weights = torch.from_numpy(pad_right([kinds > 0 for _, kinds in found], 0)).float()
    ours, theirs = SupervisedLoss(_model(bench)), _TheirLoss(_model(bench))

    def passes(loss: Any) -> Any:
        with precision("cpu"):
            value = loss(ids, weights)[0]
        value.backward()
        return float(value.detach())

    values = [passes(ours), passes(theirs)]  # warm
    ratio, mine, other = pairs(lambda: passes(ours), lambda: passes(theirs), bench.pick(5, 1))
    limit: Limit = forwarding(bench.rates(), ours.model.get_base_model(), [(len(ids), ids.shape[1])], passes=2)
    details = {
        "tokens": ids.numel(), "supervised": int(weights[:, 1:].sum()), "loss": values[0], "their loss": values[1],
        "same": abs(values[0] - values[1]) <= 0.01 * abs(values[1]),
    }  # fmt: skip
    what = f"loss and gradients of {ids.numel():,} padded tokens in {len(ids)} dialogues, LoRA"
    return [Row("finetune-step", what, "ratio", ratio, 0.9, "lower", "PEFT's layers, torch's attention, all logits",
                mine, other, limit, details)]  # fmt: skip


class _TheirLoss:
    """The loss as PEFT, transformers and torch compute it, on a model whose layers are put back."""

    def __init__(self, model: Any) -> None:
        for layer in model.modules():
            vars(layer).pop("forward", None)
        self.causal = model.get_base_model()

    def __call__(self, ids: Any, weights: Any) -> tuple[Any, None]:
        import torch

        hidden = self.causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        chosen = weights[:, 1:] > 0
        logits = self.causal.get_output_embeddings()(hidden[:, :-1][chosen]).float()
        return torch.nn.functional.cross_entropy(logits, ids[:, 1:][chosen]), None


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
