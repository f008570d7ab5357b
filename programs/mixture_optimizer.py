"""MixtureOptimizer: the search for a data mixture as a DSPy optimizer; the program returns with its fine-tuned model.

    optimizer = MixtureOptimizer(catalog="films", trials=12, tokens=20_000, final_tokens=200_000, study="tuning")
    better = optimizer.compile(recommender, trainset=dialogue_examples(train), valset=dialogue_examples(valid))

Composes as any Teleprompter does: `dspy.BetterTogether(metric=m, mix=optimizer)`. Knows nothing of flags or terminals;
the search is gcrs.programs.mixture_search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gcrs.programs.lm import LocalEngine, is_local, local_lm  # first: it settles DSPy's environment

import dspy  # isort: skip
from dspy.teleprompt import Teleprompter

from gcrs.programs.examples import dialogues_of
from gcrs.programs.mixture_final import final_bundle
from gcrs.programs.mixture_report import write_report
from gcrs.programs.mixture_search import PROXY_TOKENS, TuneConfig, search
from gcrs.programs.objective import DEFAULT, Objective
from gcrs.programs.proxy_runs import Progress
from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.finetune_config import FinetuneConfig

Metric = Callable[..., Any]
HELD = 0.1  # of the training dialogues, where there are no validation examples


class MixtureOptimizer(Teleprompter):
    """Chooses the shares of the training tasks by proxy runs, then fine-tunes the program's model with them.

    `objective` is a weighted sum of validation metrics; `metric`, any DSPy metric, takes its place: each proxy's
    program is then scored with `dspy.Evaluate` over the validation examples. `catalog` and `start` default to the
    bundle that the program runs on: its model is trained further. `settings` are fine-tuning settings (docs/cli.md).
    Everything is kept in `study`; the same call goes on where an earlier one ended.
    """

    def __init__(
        self,
        metric: Metric | None = None,
        *,
        objective: str | Objective = DEFAULT,
        study: str | Path = "mixture.study",
        catalog: str | Path | None = None,
        start: str | Path | None = None,
        tasks: Sequence[str] = (),
        trials: int = 12,
        max_minutes: float | None = None,
        tokens: int = PROXY_TOKENS,
        final_tokens: int | None = None,
        storage: str | None = None,
        sampler: str = "surface",
        halving: bool = True,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.objective = objective if isinstance(objective, Objective) else Objective.parse(objective)
        self.study, self.catalog, self.start = Path(study), catalog, start
        self.tasks, self.trials, self.max_minutes, self.tokens = tuple(tasks), trials, max_minutes, tokens
        self.final_tokens, self.storage, self.sampler, self.halving = final_tokens, storage, sampler, halving
        self.seed, self.settings, self.progress = seed, dict(settings or {}), progress

    def compile(
        self,
        student: dspy.Module,
        *,
        trainset: list[dspy.Example],
        valset: list[dspy.Example] | None = None,
        teacher: dspy.Module | None = None,
        **kwargs: Any,
    ) -> dspy.Module:
        """The program over the bundle fine-tuned with the mixture found; its `mixture_report` says how it was chosen.

        Examples are those of `gcrs.programs.examples.dialogue_examples`. Without `valset` a tenth of the training
        dialogues is held out. Raises UsageError for a program that no bundle of gcrs runs, unless `catalog` is given.
        """
        if not trainset:
            raise UsageError("The training set is empty.", hint="Pass dialogue_examples(dialogues).")
        near = next((one.lm.engine for one in student.predictors() if is_local(one.lm)), None)
        source = near.source if isinstance(near, LocalEngine) else None
        catalog = self.catalog or source
        if catalog is None:
            raise UsageError(
                "The program runs on no bundle of gcrs, so there is no catalogue to teach.", hint="Pass catalog=DIR."
            )
        config = self._config(Path(catalog), trainset, valset, str(self.start) if self.start else source)
        use = None if self.metric is None else self._scored(student, list(valset or trainset))
        found = search(config, progress=self.progress, use=use)
        out = self.study / "mixture.yaml"
        told = write_report(found, out, self.final_tokens)
        bundle = final_bundle(found, out, self.final_tokens or 4 * self.tokens, self.study / "final", self.progress)
        program = over_bundle(student, bundle)
        program.mixture_report = told  # type: ignore[attr-defined]
        program._compiled = True
        return program

    def _config(
        self, catalog: Path, trainset: list[dspy.Example], valset: list[dspy.Example] | None, start: str | None
    ) -> TuneConfig:
        """The search over the examples, written into the study's directory as dialogues."""
        train, valid = dialogues_of(trainset), dialogues_of(valset or [])
        if not valid:
            count = max(1, round(HELD * len(train)))
            train, valid = train[:-count], train[-count:]
        self.study.mkdir(parents=True, exist_ok=True)
        for name, dialogues in (("train", train), ("valid", valid)):
            write_dialogues(dialogues, self.study / f"{name}.jsonl")
        base = FinetuneConfig.from_mapping(
            self.settings | {"catalog": catalog, "out": self.study / "final", "valid": self.study / "valid.jsonl",
                             "dialogues": [self.study / "train.jsonl"]}
        )  # fmt: skip
        return TuneConfig(
            base, self.trials, self.study, self.max_minutes, self.objective, self.tasks, self.tokens,
            start=start, storage=self.storage, sampler=self.sampler, halving=self.halving, seed=self.seed,
        )  # fmt: skip

    def _scored(self, student: dspy.Module, examples: list[dspy.Example]) -> Callable[[Path], float]:
        """A bundle's score: the metric's mean over the examples, of the program over that bundle."""
        metric = self.metric
        assert metric is not None

        def judged(example: Any, prediction: Any) -> float:
            return float(metric(example, prediction))

        def score(bundle: Path) -> float:
            evaluate = dspy.Evaluate(devset=examples, metric=judged, num_threads=1, display_progress=False)
            return float(evaluate(over_bundle(student, bundle)).score) / 100

        return score


def over_bundle(program: dspy.Module, directory: Path) -> dspy.Module:
    """A copy of the program whose predictors run on this bundle."""
    from gcrs.toolkit.model.bundle import Bundle, merge
    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.engine import Engine

    bundle = Bundle.load(directory)
    engine = Engine(merge(bundle, pick_dtype("cpu")), bundle.tokens, bundle.book)
    copy: dspy.Module = program.deepcopy()
    copy._compiled = False
    copy.set_lm(local_lm(engine, bundle.hash, str(bundle.directory)))
    return copy
