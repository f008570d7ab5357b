"""`tune`: search the shares of a data mixture with short proxy runs; a mixture file, a report and a plot out.

The order: the tasks and data are checked; the warm start is trained once; the anchors (the paper's point, uniform
shares) and a space-filling design are run; then the response surface proposes, until the trials, the minutes or the
gain to be had are used up. Knows nothing of DSPy or of terminals.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrs.programs.mixture_proof import standard_error
from gcrs.programs.mixture_space import Space
from gcrs.programs.mixture_study import (
    again,
    distributions,
    make_sampler,
    observations,
    open_study,
    proposal,
    queue,
    revive,
    sign_of_life,
)
from gcrs.programs.objective import DEFAULT, Objective
from gcrs.programs.proxy_runs import Progress, ProxyRuns, Stopped
from gcrs.programs.response_surface import LEAST_RUNS
from gcrs.toolkit.dialogue.mixture import MAX_REPEATS
from gcrs.toolkit.dialogue.task_registry import check_task, make_task
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import sha256_file

if TYPE_CHECKING:
    import optuna

    from gcrs.toolkit.model.finetune_config import FinetuneConfig

SEARCHED = ("dialogue", "excerpts", "own-mentions", "item-to-id", "facts-to-item")  # with ratings, ratings-to-id too
PROXY_TOKENS, START_TIMES = 20_000, 2  # the start has so many times the tokens of a proxy run
RUNG = 1 / 3  # of a proxy run: where it is looked at first
ETA = 2  # of the runs that got to a rung one in so many goes on
NOTHING = 0.02  # a promised gain below this share of the scores' spread is none
PATIENCE = 2  # so many times in a row


@dataclass(frozen=True)
class TuneConfig:
    """Everything that decides a search."""

    base: FinetuneConfig
    """Catalogue, data, model and rates of the proxy runs; `out` is where a final bundle would go."""
    trials: int
    """Proxy runs in the study, those of other machines and earlier sessions included."""
    study: Path
    """Directory of the study: storage, warm start, runs."""
    max_minutes: float | None = None
    """Minutes of this session: no run begins that would not end in time, judged by the runs before."""
    objective: Objective = field(default_factory=lambda: Objective.parse(DEFAULT))
    """What is maximised."""
    tasks: tuple[str, ...] = ()
    """Tasks to share the tokens out to; none: the usual ones."""
    tokens: int = PROXY_TOKENS
    """Tokens of one proxy run."""
    start_tokens: int | None = None
    """Tokens of the warm start, when it has to be trained; None: twice a proxy run's."""
    start: str | None = None
    """Bundle that all proxy runs start from; None: one is trained."""
    storage: str | None = None
    """Optuna's storage; None: SQLite in the study's directory."""
    sampler: str = "surface"
    """surface, tpe or random."""
    halving: bool = True
    """Stop the worse half of the runs after a third of their tokens."""
    max_repeats: float | Mapping[str, float] = MAX_REPEATS
    """As a mixture's."""
    seed: int = 0
    """Seed of the search; that of the runs is the base's."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("tokens", 1), ("start_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}, expected at least {least}.")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise UsageError(f"max_minutes is {self.max_minutes}, expected more than 0.")
        if self.sampler not in ("surface", "tpe", "random"):
            raise UsageError(f"The sampler is {self.sampler!r}, expected surface, tpe or random.")

    @property
    def named(self) -> tuple[str, ...]:
        """The tasks that are searched, each once."""
        usual = (*SEARCHED, "ratings-to-id") if self.base.ratings else SEARCHED
        return tuple(dict.fromkeys(self.tasks or usual))


@dataclass
class Found:
    """A search as it stands: its study, space and runs, why it ended, and what of it was done in this session."""

    config: TuneConfig
    study: optuna.Study
    space: Space
    runs: ProxyRuns
    ended: str = "trials"
    session_trials: int = 0
    session_minutes: float = 0.0
    trained_start: bool = False


Score = Callable[[Path], float]


def search(config: TuneConfig, *, progress: Progress | None = None, use: Score | None = None) -> Found:
    """Run the search to its end. `use` scores a bundle in place of the objective (and then no run is stopped early).

    Raises DataError for tasks that are unknown or have no data and for a study of other data, Stopped on SIGTERM.
    """
    began = time.monotonic()
    found = open_search(config, progress=progress, judged_by="a metric function" if use else None)
    study, space = found.study, found.space
    _queue_anchors(study, space)
    spent: list[float] = []
    quiet = 0
    while True:
        revive(study)
        now = (time.monotonic() - began) / 60
        if _counted(study) >= config.trials:
            found.ended = "trials"
            break
        if config.max_minutes is not None and now + (np.mean(spent) if spent else 0.0) > config.max_minutes:
            found.ended = "minutes"
            break
        quiet = quiet + 1 if _nothing_to_gain(study, space, config) else 0
        if quiet >= PATIENCE:
            found.ended = "nothing left to gain"
            break
        one = time.monotonic()
        _trial(found, use)
        found.session_trials += 1
        spent.append((time.monotonic() - one) / 60)
    found.session_minutes = round((time.monotonic() - began) / 60, 2)
    return found


def open_search(config: TuneConfig, *, progress: Progress | None = None, judged_by: str | None = None) -> Found:
    """The study, opened; the start, there or trained."""
    tell = progress or (lambda done, total, what: None)
    tell(0, 0, "reading data")
    tasks = check_tasks(config)
    space = Space(tasks)
    rungs = (RUNG,) if config.halving and judged_by is None else ()
    runs = ProxyRuns(
        config.study, config.base, config.tokens, rungs=rungs, max_repeats=config.max_repeats, progress=progress
    )
    config.study.mkdir(parents=True, exist_ok=True)
    storage = config.storage or f"sqlite:///{(config.study / 'study.db').absolute()}"
    what = identity(config, tasks, judged_by)
    startup = startup_trials(config, tasks)
    sampler = make_sampler(config.sampler, space, startup, config.seed)
    study = open_study(storage, what, sampler, _pruner(bool(rungs)))
    there = (config.study / "start" / "gcrs.json").is_file()
    if config.start is not None:
        runs.use_start(config.start)
    else:
        runs.make_start(tasks, config.start_tokens or START_TIMES * config.tokens)
    _same_start(study, runs)
    return Found(config, study, space, runs, trained_start=config.start is None and not there)


def check_tasks(config: TuneConfig) -> tuple[str, ...]:
    """The tasks that are searched; DataError for one that is unknown or has no data, of those named or usual."""
    from gcrs.toolkit.model.training_data import task_data
    from gcrs.toolkit.prepared import PreparedCatalog

    for name in config.named:
        check_task(name, "The search")
    data = task_data(config.base, PreparedCatalog.load(config.base.catalog), Counter())
    for name in config.named:
        make_task(name, data)
    if len(config.named) < 2:
        raise UsageError("There is nothing to share out among one task.", hint="Name two tasks or more with --tasks.")
    if config.base.valid is None:
        raise UsageError("The proxy runs have nothing to be judged by.", hint="Pass --valid FILE.")
    return config.named


def identity(config: TuneConfig, tasks: Sequence[str], judged_by: str | None) -> dict[str, Any]:
    """What a study is a study of: data by hash, settings, tasks, sizes, objective."""
    from gcrs.toolkit.model.finetune import data_files
    from gcrs.toolkit.prepared import PreparedCatalog

    base = config.base
    where = {"catalog", "out", "dialogues", "valid", "extra_items", "ratings", "chat", "warm_start", "mixture"}
    free = {"device", "threads", "save_minutes", "save_steps", "eval_minutes", "memory_check", "licence", "attribution"}
    free |= {"steps", "max_minutes", "tokens"}
    return {
        "catalog": PreparedCatalog.load(base.catalog).hash,
        "training data": sorted(sha256_file(path) for path in data_files(base)),
        "validation data": sha256_file(base.valid) if base.valid else None,
        "tasks": list(tasks),
        "tokens": config.tokens,
        "objective": judged_by or str(config.objective),
        "max_repeats": config.max_repeats,
        "settings": {name: value for name, value in base.resolved().items() if name not in where | free},
    }


def startup_trials(config: TuneConfig, tasks: Sequence[str]) -> int:
    """Anchors and design points before the surface proposes: half of the trials, or two more than there are tasks."""
    return max(LEAST_RUNS, min(config.trials // 2, len(tasks) + 2))


def _pruner(halving: bool) -> optuna.pruners.BasePruner:
    import optuna

    if not halving:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA)


def _same_start(study: optuna.Study, runs: ProxyRuns) -> None:
    """All workers start from the same weights, or their scores do not compare. DataError otherwise."""
    mine, theirs = runs.start_hash(), study.user_attrs.get("start")
    if theirs is None:
        study.set_user_attr("start", mine)
    elif theirs != mine:
        raise DataError(
            f"The study's runs started from the bundle {str(theirs)[:12]}, these would start from {str(mine)[:12]}.",
            hint="Copy the first machine's start directory and pass it with --from.",
        )


def _queue_anchors(study: optuna.Study, space: Space) -> None:
    """The points that every report compares with, queued by whoever comes first."""
    if study.get_trials(deepcopy=False):
        return
    if "dialogue" in space.tasks:
        queue(study, space, space.point({"dialogue": 1.0}), "paper")
    queue(study, space, space.tidy(np.ones(len(space.tasks))), "uniform")


def _counted(study: optuna.Study) -> int:
    """Trials that are done or being done."""
    import optuna

    state = optuna.trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED, state.RUNNING)))


def _nothing_to_gain(study: optuna.Study, space: Space, config: TuneConfig) -> bool:
    """Whether no point promises more than `NOTHING` of the scores' spread."""
    seen = observations(study, space)
    if config.sampler != "surface" or len(seen) < startup_trials(config, space.tasks):
        return False
    try:
        _, gain = proposal(study, space, seen, config.seed + len(seen))
    except ValueError:
        return False
    return gain < NOTHING * float(np.ptp([one.value for one in seen]))


def _trial(found: Found, use: Score | None) -> None:
    """One trial from asking to telling; a stopped process leaves its point in the queue."""
    import optuna

    config, study, space = found.config, found.study, found.space
    trial = study.ask(distributions(space))
    point = space.of_parameters(trial.params)
    trial.set_user_attr("shares", space.shares(point))
    earlier: list[tuple[float, float]] = []
    startup = startup_trials(config, space.tasks)

    def watch(validation: Any, used: float) -> None:
        if used >= 1 or not found.runs.rungs:
            return
        value = config.objective.score(validation.metrics())
        earlier.append((max(rung for rung in found.runs.rungs if rung <= used), value))
        trial.set_user_attr("earlier", earlier)
        trial.set_user_attr("error", standard_error(validation.to_json(), config.objective))
        trial.report(value, len(earlier))
        if trial.should_prune() and trial.number >= startup:  # what the surface is first made of is finished
            raise optuna.TrialPruned()

    label = f"trial {trial.number + 1} of {config.trials}"
    began = time.monotonic()
    try:
        with sign_of_life(trial):
            result, value = found.runs.run(space.shares(point), label=label, watch=watch, use=use)
        score = value if value is not None else config.objective.score(result.metrics)
        if value is None:
            trial.set_user_attr("error", standard_error(result.cases, config.objective))
        for attribute in ("metrics", "tokens", "minutes", "wall_minutes", "drawn"):
            trial.set_user_attr(attribute, getattr(result, attribute))
        if found.runs.rungs:
            trial.report(score, 2 * ETA)
        study.tell(trial, score, skip_if_finished=True)  # thought dead by another machine: its point runs again
    except optuna.TrialPruned:
        trial.set_user_attr("wall_minutes", round((time.monotonic() - began) / 60, 2))
        study.tell(trial, state=optuna.trial.TrialState.PRUNED, skip_if_finished=True)
    except (Stopped, KeyboardInterrupt):
        again(study, study.trials[trial.number])
        raise
    except BaseException:
        study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        raise
