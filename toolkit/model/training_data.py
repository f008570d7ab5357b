"""What a fine-tuning run learns from: a mixture of tasks, or the usual course over the same tasks.

The usual course: dialogues where there are some, dialogues made from the catalogue where not. Knows nothing of weights;
the shares and counts chosen here travel in the bundle's training.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gcrs.toolkit.dialogue.corpus import Corpus, build_corpus
from gcrs.toolkit.dialogue.encode import Kind
from gcrs.toolkit.dialogue.turns import Dialogue, read_dialogues
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.eval.baselines import mention_counts
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.trainer import Phase

if TYPE_CHECKING:
    from gcrs.toolkit.dialogue.mixture import Mixture
    from gcrs.toolkit.dialogue.task_registry import TaskData
    from gcrs.toolkit.dialogue.tasks import Source
    from gcrs.toolkit.model.tokens import TokenSpace
    from gcrs.toolkit.prepared import PreparedCatalog

FEW_BATCH, MANY_BATCH = 512, 2_048  # padded tokens a step, with fewer than so many dialogues and with more
FEW = 1_000  # dialogues below which the catalogue itself is taught as well, and a run starts from `movies`
MADE_PER_ITEM, LEAST_MADE, MOST_MADE = 12, 2_000, 60_000
SHARES = {  # of the dialogues that are made
    "facts-to-item": 0.35,
    "mentions-to-id": 0.15,
    "transferred": 0.25,
    "item-to-id": 0.12,
    "id-to-item": 0.08,
    "small-talk": 0.05,
}
REAL_SHARE, MOST_REPEATS = 0.35, 8  # few dialogues are repeated until they are this share of the tokens
OUTSIDE = "mentions outside the catalogue"
HELD_OUT = 200  # requests that measure a run without validation dialogues


@dataclass(frozen=True)
class TrainingData:
    """Phases in order, validation dialogues, mentions of each item, and counts for the report.

    `baseline` is the recall of the most frequent training targets on the same validation replies; `outside` counts
    the mentions of ids that the catalogue does not have.
    """

    phases: list[Phase]
    valid: list[Dialogue]
    popularity: dict[str, int]
    counts: dict[str, int] = field(default_factory=dict)
    valid_kind: str = "none"
    baseline: dict[str, float] = field(default_factory=dict)
    mixture: Mixture | None = None
    outside: Counter[str] = field(default_factory=Counter)

    def warning(self) -> str | None:
        """One sentence about mentions of items that the catalogue does not have; None without any."""
        if not self.outside:
            return None
        named = ", ".join(item for item, _ in self.outside.most_common(5))
        more = ", …" if len(self.outside) > 5 else ""
        return (
            f"{self.outside.total():,} mentions of {len(self.outside):,} items outside the catalogue are read as the "
            f"word 'it': {named}{more}."
        )


def known_ids(prepared: PreparedCatalog, outside: Counter[str]) -> Callable[[str], str | None]:
    """From any id of an item to the canonical one, None (and counted) for an item outside the catalogue."""
    catalog, book = prepared.catalog, prepared.book

    def rename(item_id: str) -> str | None:
        if item_id in catalog and catalog.canonical(item_id) in book.ids:
            return catalog.canonical(item_id)
        outside[item_id] += 1
        return None

    return rename


def read_known(paths: Sequence[Path], prepared: PreparedCatalog, outside: Counter[str]) -> list[Dialogue]:
    """Dialogues of these files with canonical ids; mentions of items outside the catalogue become words."""
    rename = known_ids(prepared, outside)
    return [dialogue.map_items(rename) for path in paths for dialogue in read_dialogues(path)]


def task_data(config: FinetuneConfig, prepared: PreparedCatalog, outside: Counter[str]) -> TaskData:
    """Everything that tasks may draw from, read. DataError when none of the dialogues' items is in the catalogue."""
    from gcrs.toolkit.dialogue.ratings import read_ratings
    from gcrs.toolkit.dialogue.task_registry import TaskData

    dialogues = read_known(config.dialogues, prepared, outside)
    if outside and not mention_counts(dialogues):
        raise DataError(
            f"None of the {outside.total():,} items that the dialogues mention is in the catalogue {config.catalog}.",
            hint="Mentions are <item:ID> with the ids of the catalogue that is passed with --catalog.",
        )
    rename = known_ids(prepared, outside)
    return TaskData(
        source=catalogue_source(prepared, dialogues, config.noun, config.seed),
        dialogues=dialogues,
        unordered=read_known(config.extra_items, prepared, outside),
        tastes=[taste for path in config.ratings for taste in read_ratings(path, rename)],
        talk=read_known(config.chat, prepared, outside),
        layout=config.layout,
    )


def catalogue_source(prepared: PreparedCatalog, dialogues: Sequence[Dialogue], noun: str, seed: int) -> Source:
    """What the tasks over this catalogue draw from; `dialogues` weigh its items and say which go together."""
    from gcrs.toolkit.dialogue.fact_words import FactWords
    from gcrs.toolkit.dialogue.related import Related
    from gcrs.toolkit.dialogue.tasks import Source

    columns = prepared.settings["text"]["columns"]
    codes = prepared.book.array()
    related = Related(prepared.catalog, prepared.quantizer.reconstruct(codes), codes[:, 0], columns, seed=seed)
    return Source(
        prepared.catalog,
        FactWords(prepared.catalog, columns, noun),
        related,
        {item.id: prepared.words(item.id) for item in prepared.catalog},
        popularity=mention_counts(dialogues),
        baskets=[list(dict.fromkeys(item for turn in d.turns for item in turn.mentions)) for d in dialogues],
        seed=seed,
    )


def made_dialogues(source: Source, count: int) -> list[Dialogue]:
    """`count` dialogues made from the catalogue, by `SHARES`."""
    from gcrs.toolkit.dialogue.task_registry import TaskData

    drawn_from = TaskData(source)
    return [one for name, share in SHARES.items() for one in examples(name, drawn_from, round(count * share))]


def examples(name: str, data: TaskData, count: int | None = None) -> list[Dialogue]:
    """The first `count` examples of a task, or all of them; [] where it has no data."""
    from gcrs.toolkit.dialogue.task_registry import check_task

    task = check_task(name).make(data)
    return [task.get_example(n) for n in range(task.num_examples if count is None else count)]


def held_out_requests(source: Source, count: int) -> list[Dialogue]:
    """Requests by facts in words that training never uses, each with the item whose facts they are."""
    from gcrs.toolkit.dialogue.tasks import FactsToItem

    task = FactsToItem(source, count, held_out=True)
    return [task.get_example(n) for n in range(count)]


def training_data(config: FinetuneConfig, prepared: PreparedCatalog, tokens: TokenSpace) -> TrainingData:
    """Read, make and encode everything that the run needs. Raises DataError on broken files."""
    outside: Counter[str] = Counter()
    drawn_from = task_data(config, prepared, outside)
    counts = {OUTSIDE: outside.total()} if outside else {}
    dialogues, source = drawn_from.dialogues, drawn_from.source
    valid = read_known([config.valid] if config.valid else [], prepared, Counter())
    few = len(dialogues) < FEW
    kind = "dialogues" if valid else "none"
    if few and not valid:
        valid, kind = held_out_requests(source, HELD_OUT), "held-out requests made from facts"
    part = config.loss_weights()
    by_kind = {Kind.INTENT: part["intent"], Kind.TARGET: part["target"], Kind.TEXT: part["text"],
               Kind.MENTION: part["mention"], Kind.USER_ITEM: part["user_item"]}  # fmt: skip
    weights = tuple(float(by_kind.get(kind, 0.0)) for kind in Kind)
    if config.mixture is not None:
        phase, mixture = _mixed(config, drawn_from, prepared, tokens, weights, few, counts)
        counts["dialogues read"] = len(dialogues)
        baseline = popularity_recall(valid[: config.eval_limit], dialogues)
        return TrainingData([phase], valid, mention_counts(dialogues), counts, kind, baseline, mixture, outside)
    count = config.made
    if count is None:
        count = min(MOST_MADE, max(LEAST_MADE, MADE_PER_ITEM * len(prepared.catalog))) if few else 0
    made = made_dialogues(source, count)

    def corpus(dialogues: Sequence[Dialogue], layout: str) -> tuple[Corpus, dict[str, int]]:
        return build_corpus(dialogues, tokens, prepared.book, layout=layout, max_length=config.max_length)  # type: ignore[arg-type]

    if few and made:
        main, numbers = corpus(made, config.layout)
        if dialogues:
            real, real_numbers = corpus(examples("dialogue", drawn_from), config.layout)
            wanted = REAL_SHARE / (1 - REAL_SHARE) * len(main.ids) / max(1, len(real.ids))
            repeats = int(min(MOST_REPEATS, max(1, round(wanted))))
            main = Corpus.join([main, *[real] * repeats])
            numbers = {key: numbers[key] + real_numbers[key] for key in numbers} | {"repeats of a dialogue": repeats}
            numbers |= {"sequences": len(main), "tokens": len(main.ids)}
        phases = [Phase("catalogue", main, weights, 1.0)]
    else:
        main, numbers = corpus([*examples("dialogue", drawn_from), *made], config.layout)
        phases = [Phase("dialogues", main, weights, 1.0)]
        if config.item_share > 0:
            excerpts, _ = corpus(examples("excerpts", drawn_from), "items")
            phases.insert(0, Phase("items", excerpts, weights, config.item_share))
    counts |= numbers | {"dialogues read": len(dialogues), "dialogues made": len(made)}
    baseline = popularity_recall(valid[: config.eval_limit], [*dialogues, *made])
    return TrainingData(phases, valid, mention_counts(dialogues), counts, kind, baseline, outside=outside)


def batch_size(config: FinetuneConfig, few: bool) -> int:
    """Padded tokens a step."""
    return config.batch_tokens or (FEW_BATCH if few else MANY_BATCH)


def _mixed(
    config: FinetuneConfig, data: TaskData, prepared: PreparedCatalog, tokens: TokenSpace,
    weights: tuple[float, ...], few: bool, counts: dict[str, int],
) -> tuple[Phase, Mixture]:  # fmt: skip
    """The one phase of a run over a mixture."""
    from gcrs.toolkit.dialogue.mixture import Mixture
    from gcrs.toolkit.model.mixture_data import mixture_stream

    assert config.mixture is not None
    mixture = Mixture.load(config.mixture)
    stream = mixture_stream(
        mixture, data, tokens, prepared.book, max_length=config.max_length, batch_tokens=batch_size(config, few),
        seed=config.seed, counts=counts, sequences=config.batch_sequences,
    )  # fmt: skip
    counts |= {"cut": 0, "dropped": 0}
    sample = stream.sample()
    counts |= {"cut": 0, "dropped": 0}  # what the sample met will be met again
    return Phase("mixture", sample, weights, 1.0, stream), mixture


def popularity_recall(valid: Sequence[Dialogue], trained: Sequence[Dialogue]) -> dict[str, float]:
    """recall@10, @1, @50 of always recommending what the training dialogues recommend most; {} without cases."""
    from gcrs.toolkit.eval.cases import contexts
    from gcrs.toolkit.eval.metrics import rank_of

    targets = Counter(item for dialogue in trained for turn in dialogue.turns for item in turn.decided_targets)
    top = [item for item, _ in sorted(targets.items(), key=lambda pair: (-pair[1], pair[0]))[:50]]
    ranks = [rank_of(gold, top) for context in contexts(valid) for gold in context.gold]
    return {f"recall@{k}": round(sum(0 < r <= k for r in ranks) / len(ranks), 4) for k in (10, 1, 50)} if ranks else {}
