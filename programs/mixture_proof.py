"""Proof of a mixture: does the predicted best beat the paper's point and uniform shares at equal tokens, over seeds?

And does the proxies' ranking hold at the larger budget? Every run starts where the proxies started, reads as many
tokens and is asked the same validation replies. Differences are paired: dialogues are drawn again together for both
sides, seeds each for itself. Knows nothing of how a run is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrs.programs.objective import METRICS, Objective
from gcrs.programs.proxy_runs import Result, write_result
from gcrs.toolkit.dialogue.mixture import Mixture
from gcrs.toolkit.files import read_json, sha256_json

if TYPE_CHECKING:
    from gcrs.programs.mixture_search import Found

DRAWS = 2_000
Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # by metric: (numerators [dialogues], denominators [dialogues])


def sums(cases: Mapping[str, Sequence[Any]]) -> Sums:
    """What each dialogue adds to each metric: its numerator and denominator."""
    groups = max([-1, *cases["groups"], *cases["intent_groups"], *cases["byte_groups"]]) + 1

    def added(values: Sequence[float], where: Sequence[int]) -> np.ndarray:
        return np.bincount(np.asarray(where, dtype=int), weights=np.asarray(values, dtype=float), minlength=groups)

    ones = [1.0] * len(cases["ranks"])
    out = {
        f"recall@{k}": (
            added([float(0 < r <= k) for r in cases["ranks"]], cases["groups"]),
            added(ones, cases["groups"]),
        )
        for k in (1, 10, 50)
    }
    replies = [1.0] * len(cases["intents"])
    out["intent_accuracy"] = (
        added([float(right) for right in cases["intents"]], cases["intent_groups"]),
        added(replies, cases["intent_groups"]),
    )
    out["bits_per_byte"] = added(cases["bits"], cases["byte_groups"]), added(cases["bytes"], cases["byte_groups"])
    return out


def drawn(
    runs: Sequence[Sums], objective: Objective, dialogues: np.ndarray, seeds: np.ndarray
) -> dict[str, np.ndarray]:
    """Each metric and the objective [draws], mean over the drawn runs: `dialogues` [draws, dialogues] counts how often
    each is drawn, `seeds` [draws, runs] which run takes each place."""
    out: dict[str, np.ndarray] = {}
    for metric in METRICS:
        by_run = []
        for run in runs:
            top, bottom = run[metric]
            size = min(len(top), dialogues.shape[1])
            below = dialogues[:, :size] @ bottom[:size]
            by_run.append((dialogues[:, :size] @ top[:size]) / np.where(below > 0, below, 1))
        values = np.stack(by_run, axis=1)
        out[metric] = np.take_along_axis(values, seeds, axis=1).mean(axis=1)
    out["objective"] = sum((weight * out[name] for name, weight in objective.weights.items()), np.zeros(len(dialogues)))
    return out


def standard_error(cases: Mapping[str, Sequence[Any]], objective: Objective, *, draws: int = 200) -> float:
    """Of a run's score: its spread when the validation dialogues are drawn again."""
    run = sums(cases)
    size = len(run["recall@10"][0])
    if not size:
        return 0.0
    counts = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), draws).astype(float)
    return float(drawn([run], objective, counts, np.zeros((draws, 1), dtype=int))["objective"].std())


def compare(
    points: Mapping[str, Sequence[Sums]], objective: Objective, *, seed: int = 0, draws: int = DRAWS
) -> dict[str, Any]:
    """Each point's metrics, and the first point's lead over each other one, with 95 % intervals.

    The interval resamples dialogues (the same ones for all points) and, for each point, its seeds.
    """
    rng = np.random.default_rng(seed)
    size = max(len(run["recall@10"][0]) for runs in points.values() for run in runs)
    counts = rng.multinomial(size, np.full(size, 1 / size), draws).astype(float)
    plain = np.ones((1, size))
    resampled, whole = {}, {}
    for name, runs in points.items():
        resampled[name] = drawn(runs, objective, counts, rng.integers(len(runs), size=(draws, len(runs))))
        whole[name] = drawn(runs, objective, plain, np.arange(len(runs))[None])
    first = next(iter(points))

    def told(value: np.ndarray, spread: np.ndarray) -> dict[str, float]:
        lo, hi = np.quantile(spread, [0.025, 0.975])
        return {"value": round(float(value[0]), 5), "lo": round(float(lo), 5), "hi": round(float(hi), 5)}

    names = [*METRICS, "objective"]
    return {
        "n": {"dialogues": size, "cases": int(next(iter(points.values()))[0]["recall@10"][1].sum())},
        "points": {
            name: {"seeds": len(runs)} | {one: told(whole[name][one], resampled[name][one]) for one in names}
            for name, runs in points.items()
        },
        "lead": {
            name: {one: told(whole[first][one] - whole[name][one], resampled[first][one] - resampled[name][one])
                   for one in names}
            for name in points
            if name != first
        },
    }  # fmt: skip


def ranking_holds(
    proxies: Mapping[str, float], larger: Mapping[str, Sequence[Sums]], objective: Objective, *, seed: int = 0
) -> dict[str, Any]:
    """Spearman's rank correlation between proxy scores and scores at the larger budget, over the points of both.

    The interval resamples the validation dialogues of the larger runs. None with fewer than three points.
    """
    from scipy.stats import spearmanr

    names = [name for name in larger if name in proxies]
    if len(names) < 3:
        return {"n": len(names), "rank_correlation": None}
    rng = np.random.default_rng(seed)
    size = max(len(run["recall@10"][0]) for name in names for run in larger[name])
    counts = np.concatenate([np.ones((1, size)), rng.multinomial(size, np.full(size, 1 / size), DRAWS // 4)])
    scores = []
    for name in names:
        runs = larger[name]
        seeds = np.tile(np.arange(len(runs)), (len(counts), 1))
        scores.append(drawn(runs, objective, counts, seeds)["objective"])
    small = [proxies[name] for name in names]
    found = [float(spearmanr(small, row).statistic) for row in np.stack(scores, axis=1)]
    spread = [value for value in found[1:] if np.isfinite(value)] or [0.0]
    lo, hi = np.quantile(spread, [0.025, 0.975])
    return {
        "n": len(names),
        "rank_correlation": round(found[0], 3) if np.isfinite(found[0]) else None,
        "lo": round(float(lo), 3),
        "hi": round(float(hi), 3),
        "points": {name: {"proxy": round(proxies[name], 5), "larger": round(float(score[0]), 5)}
                   for name, score in zip(names, scores, strict=True)},
    }  # fmt: skip


def points_to_prove(
    found: Found, mixture: Mixture, ranked: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """({name: shares} of best, paper, uniform and `ranked` trials spread over the proxies' ranking, {name: score})."""
    space = found.space
    points = {"best": dict(mixture.shares)}
    if "dialogue" in space.tasks:
        points["paper"] = {"dialogue": 1.0}
    points["uniform"] = space.shares(space.tidy(np.ones(len(space.tasks))))
    finished = [
        (float(trial.value), trial.number, trial.user_attrs["shares"])
        for trial in found.study.get_trials(deepcopy=False)
        if trial.state.name == "COMPLETE" and trial.value is not None
    ]
    scores: dict[str, float] = {}
    others = []
    for value, number, shares in sorted(finished, key=lambda one: -one[0]):
        same = next((name for name, one in points.items() if _same(one, shares)), None)
        if same is None:
            others.append((value, number, shares))
        else:
            scores.setdefault(same, value)
    for place in np.unique(np.linspace(0, len(others) - 1, ranked).round().astype(int)) if others and ranked else []:
        value, number, shares = others[place]
        points[f"trial {number + 1}"], scores[f"trial {number + 1}"] = shares, value
    return points, scores


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(one.get(name, 0) - other.get(name, 0)) < 1e-3 for name in {*one, *other})


def prove_mixture(
    found: Found, mixture: Mixture, *, tokens: int, seeds: int, ranked: int, out: Path, replies: int | None = None
) -> dict[str, Any]:
    """Make the runs that are not there yet, compare, write `out`; returns what it holds.

    `replies` are ranked after each run; None: as many as after a proxy run.

    The first seed of every point is run first, so that an interrupted proof has the most to tell.
    """
    points, scores = points_to_prove(found, mixture, ranked)
    objective, folder = found.config.objective, found.config.study / "proof"
    named = [name for name in points if not name.startswith("trial ")]
    wanted = [(name, 0) for name in points] + [(name, seed) for seed in range(1, seeds) for name in named]
    results: dict[str, list[Sums]] = {name: [] for name in points}
    base = found.config.base.seed
    for n, (name, seed) in enumerate(wanted):
        what = [sorted(points[name].items()), tokens, base + seed, replies, found.runs.start_hash()]
        key = sha256_json(what)[:16]
        place = folder / f"{key}.json"
        if not place.is_file():
            label = f"proof {n + 1} of {len(wanted)}, {name}, seed {base + seed}"
            result, _ = found.runs.run(points[name], tokens=tokens, seed=base + seed, replies=replies, label=label)
            write_result(place, _kept(result, name, points[name], base + seed))
        results[name].append(sums(read_json(place)["cases"]))
    told = compare(results, objective, seed=found.config.seed)
    told |= {
        "objective": str(objective),
        "tokens": tokens,
        "shares": points,
        "ranking": ranking_holds(scores, results, objective, seed=found.config.seed),
    }
    write_result(out, told)
    return told


def _kept(result: Result, name: str, shares: Mapping[str, float], seed: int) -> dict[str, Any]:
    return json.loads(json.dumps({"name": name, "shares": dict(shares), "seed": seed, **result.to_json()}))  # type: ignore[no-any-return]
