"""The study: Optuna's trials of one search in one storage, whoever runs them, and what survives a kill.

A study belongs to one set of data, settings and start, named by hash; another is refused. A trial says who runs it and
that it lives; one whose process is gone counts as failed and its point is queued again. Knows nothing of training.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gcrs.programs.mixture_space import FLOOR, PREFIX, Space
from gcrs.programs.response_surface import LEAST_RUNS, Observation, Surface
from gcrs.toolkit.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import optuna

NAME = "gcrs-mixture"
STALE = 15 * 60.0  # seconds without a sign of life after which another machine's trial counts as dead
SIGN = 60.0  # seconds between signs of life


def worker() -> str:
    """Who runs a trial: machine and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def open_study(
    storage: str, identity: Mapping[str, Any], sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner
) -> optuna.Study:
    """The study in this storage, made if there is none. DataError when it is one of other data or settings."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        options: dict[str, Any] = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
        held = optuna.storages.RDBStorage(storage, engine_kwargs=options)
        study = optuna.create_study(
            study_name=NAME, storage=held, direction="maximize", sampler=sampler, pruner=pruner, load_if_exists=True
        )
        was = study.user_attrs.get("identity")
        if was is None:
            study.set_user_attr("identity", dict(identity))
            was = study.user_attrs["identity"]
    except (SQLAlchemyError, ModuleNotFoundError, optuna.exceptions.OptunaError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"The storage {storage} cannot be opened: {said}.", hint="Pass --storage URL.") from error
    now = json.loads(json.dumps(dict(identity)))
    if differs := sorted(name for name in {*was, *now} if was.get(name) != now.get(name)):
        raise DataError(
            f"The study in {storage} is one of other data or settings: {', '.join(differs)} "
            f"{'differs' if len(differs) == 1 else 'differ'}.",
            hint="Repeat its settings, or pass another --study directory.",
        )
    return study


def distributions(space: Space) -> dict[str, Any]:
    """Optuna's parameters of a space."""
    from optuna.distributions import FloatDistribution

    return {PREFIX + name: FloatDistribution(FLOOR, 1.0) for name in space.tasks}


def queue(study: optuna.Study, space: Space, point: np.ndarray, name: str = "") -> None:
    """Have this point run next, unless it was or will be."""
    study.enqueue_trial(space.parameters(point), user_attrs={"point": name} if name else None, skip_if_exists=True)


def revive(study: optuna.Study) -> int:
    """Queue the points of trials whose process is gone; returns how many there were."""
    import optuna

    host = socket.gethostname()
    count = 0
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        where, _, pid = str(trial.user_attrs.get("worker", ":0")).rpartition(":")
        silent = time.time() - float(trial.user_attrs.get("alive", 0.0))
        if silent > STALE or (where == host and not _alive(int(pid or 0))):
            again(study, trial)
            count += 1
    return count


def again(study: optuna.Study, trial: Any) -> None:
    """Count a trial as failed and queue its point once more."""
    import optuna

    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    kept = {name: value for name, value in trial.user_attrs.items() if name == "point"}
    study.enqueue_trial(trial.params, user_attrs=kept)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid > 0


@contextmanager
def sign_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Says who runs a trial, and every `SIGN` seconds that it lives, from a thread: a validation may take long."""
    trial.set_user_attr("worker", worker())
    trial.set_user_attr("alive", time.time())
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(SIGN):
            trial.set_user_attr("alive", time.time())

    thread = threading.Thread(target=tell, name="sign-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def observations(study: optuna.Study, space: Space) -> list[Observation]:
    """What finished and stopped trials scored."""
    import optuna

    out = []
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    for trial in study.get_trials(deepcopy=False, states=states):
        earlier = tuple((float(share), float(value)) for share, value in trial.user_attrs.get("earlier", []))
        error = float(trial.user_attrs.get("error", 0.0))
        point = space.of_parameters(trial.params)
        if trial.state == optuna.trial.TrialState.COMPLETE and trial.value is not None:
            out.append(Observation(point, float(trial.value), 1.0, earlier, error))
        elif earlier:
            out.append(Observation(point, earlier[-1][1], earlier[-1][0], error=error))
    return out


def make_sampler(kind: str, space: Space, startup: int, seed: int) -> optuna.samplers.BaseSampler:
    """`surface`: a space-filling design, then what promises most; `tpe`, `random`: Optuna's own."""
    import optuna

    if kind == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed, constant_liar=True)
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)

    class SurfaceSampler(optuna.samplers.BaseSampler):
        """Proposes the point of the greatest expected improvement; runs that go on count as their prediction."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return distributions(space)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            seen = observations(study, space)
            if trial.number < startup or len(seen) < max(LEAST_RUNS, startup // 2):
                return space.parameters(space.design(trial.number, seed))
            try:
                return space.parameters(proposal(study, space, seen, seed + trial.number)[0])
            except ValueError:  # stopped runs alone
                return space.parameters(space.design(trial.number, seed))

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return param_distribution.high

    return SurfaceSampler()


def proposal(study: optuna.Study, space: Space, seen: list[Observation], seed: int) -> tuple[np.ndarray, float]:
    """(point, expected improvement) with the runs that go on elsewhere counted as if they gave their prediction."""
    import optuna

    surface = Surface(space, seen, seed=seed)
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    points = [space.of_parameters(trial.params) for trial in running if len(trial.params) == len(space.tasks)]
    if points:
        believed = [Observation(point, float(surface.predict(point)[0][0])) for point in points]
        surface = Surface(space, [*seen, *believed], seed=seed)
    return surface.next(seed)
