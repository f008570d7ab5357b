"""The report of a search: the chosen mixture, JSON, a plot of the response surface, and one HTML page of both.

Knows nothing of how the runs were made.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrs.programs.mixture_study import observations
from gcrs.programs.proxy_runs import write_result
from gcrs.programs.response_surface import Surface
from gcrs.toolkit.dialogue.mixture import MAX_REPEATS, Mixture
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write

if TYPE_CHECKING:
    from gcrs.programs.mixture_search import Found

Z = 1.96
BLUE, RED, SAND = "#4477aa", "#bb5566", "#ddaa33"


def surface_of(found: Found) -> Surface | None:
    """The surface over all runs; None with too few of them."""
    try:
        return Surface(found.space, observations(found.study, found.space), seed=found.config.seed)
    except ValueError:
        return None


def report(found: Found) -> dict[str, Any]:
    """Everything that is known. DataError when no run has finished."""
    space, config = found.space, found.config
    trials = [_trial(trial) for trial in found.study.get_trials(deepcopy=False) if trial.state.is_finished()]
    finished = [one for one in trials if one["state"] == "complete"]
    if not finished:
        raise DataError("No trial has finished, so there is nothing to choose from.", hint="Allow more minutes.")
    seen = max(finished, key=lambda one: one["value"])
    surface = surface_of(found)
    best = {"shares": seen["shares"], "predicted": None, "chosen_by": "the best trial: too few for a surface"}
    told: dict[str, Any] | None = None
    if surface is not None:
        point = surface.best()
        best = {"shares": space.shares(point), "predicted": _interval(surface, point), "chosen_by": "the surface"}
        anchors = {"uniform": space.tidy(np.ones(len(space.tasks)))}
        if "dialogue" in space.tasks:
            anchors["paper"] = space.point({"dialogue": 1.0})
        told = {
            "noise": round(surface.noise, 5),
            "left_one_out": surface.left_out(),
            "predicted": {name: _interval(surface, where) for name, where in anchors.items()},
            "along": _effects(surface, point),
        }
    return {
        "objective": found.study.user_attrs["identity"]["objective"],
        "tasks": list(space.tasks),
        "tokens": config.tokens,
        "ended": found.ended,
        "best": best,
        "best_trial": seen["number"],
        "surface": told,
        "trials": trials,
        "session": {
            "trials": found.session_trials,
            "minutes": found.session_minutes,
            "trained_start": found.trained_start,
        },
        "identity": found.study.user_attrs["identity"],
        "start": found.study.user_attrs.get("start"),
    }


def _trial(trial: Any) -> dict[str, Any]:
    kept = {name: trial.user_attrs.get(name) for name in ("point", "shares", "metrics", "error", "tokens", "minutes")}
    earlier = trial.user_attrs.get("earlier") or []
    return {
        "number": trial.number,
        "state": {"COMPLETE": "complete", "PRUNED": "stopped early"}.get(trial.state.name, "failed"),
        "value": trial.value if trial.state.name == "COMPLETE" else None,
        "earlier": earlier,
        "wall_minutes": trial.user_attrs.get("wall_minutes"),
        **kept,
    }


def _interval(surface: Surface, point: np.ndarray) -> dict[str, float]:
    mean, deviation = (float(value[0]) for value in surface.predict(point))
    return {
        "value": round(mean, 5), "lo": round(mean - Z * deviation, 5), "hi": round(mean + Z * deviation, 5)
    }  # fmt: skip


def _effects(surface: Surface, best: np.ndarray) -> dict[str, float]:
    """By task: what giving it all of the tokens instead of none changes, through the best point's proportions."""
    out = {}
    for n, name in enumerate(surface.space.tasks):
        _, points = surface.along(n, best)
        mean, _ = surface.predict(points)
        out[name] = round(float(mean[-1] - mean[0]), 5)
    return out


def chosen(
    told: dict[str, Any], tokens: int | None = None, max_repeats: float | Mapping[str, float] = MAX_REPEATS
) -> Mixture:
    """The report's choice as a mixture file's value."""
    count = sum(one["state"] != "failed" for one in told["trials"])
    note = f"gcrs tune: {told['objective']} over {count} proxy runs of {told['tokens']:,} tokens"
    return Mixture(told["best"]["shares"], tokens, max_repeats, note)


def write_report(found: Found, out: Path, tokens: int | None = None) -> dict[str, Any]:
    """Write `out` (the mixture) and beside it `.json`, `.png` and `.html`; returns the report with their places."""
    told = report(found)
    picture = plot(found, told)
    places = {"out": str(out), **{kind: str(out.with_suffix(f".{kind}")) for kind in ("json", "png", "html")}}
    with atomic_write(Path(places["png"]), "wb") as handle:
        handle.write(picture)
    with atomic_write(Path(places["html"])) as handle:
        handle.write(page(told, picture))
    write_result(Path(places["json"]), told)
    chosen(told, tokens, found.config.max_repeats).save(out)
    return told | {"files": places}


def plot(found: Found, told: dict[str, Any]) -> bytes:
    """PNG bytes: the score along each task's share through the best point, with the runs; and run by run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    space, surface = found.space, surface_of(found)
    columns = min(3, len(space.tasks) + 1)
    rows = -(-(len(space.tasks) + 1) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    seen = [one for one in told["trials"] if one["state"] == "complete"]
    best = space.point(told["best"]["shares"])
    for n, name in enumerate(space.tasks):
        axis = axes[n]
        if surface is not None:
            shares, points = surface.along(n, best)
            mean, deviation = surface.predict(points)
            axis.plot(shares, mean, color=BLUE, label="predicted, others in the best's proportions")
            axis.fill_between(shares, mean - Z * deviation, mean + Z * deviation, color=BLUE, alpha=0.2, lw=0)
        axis.scatter(
            [(one["shares"] or {}).get(name, 0) for one in seen], [one["value"] for one in seen], s=16,
            color=SAND, edgecolor="black", linewidth=0.4, zorder=3, label="runs (any other shares)",
        )  # fmt: skip
        axis.axvline(best[n], color=RED, lw=1, label="chosen")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("share of the tokens", fontsize=9)
        axis.set_ylabel("score", fontsize=9)
        axis.set_xlim(-0.03, 1.03)
    axes[0].legend(fontsize=7, frameon=False)
    axis = axes[len(space.tasks)]
    _by_number(axis, told["trials"])
    for spare in axes[len(space.tasks) + 1 :]:
        spare.set_visible(False)
    figure.suptitle(f"{told['objective']}, {len(seen)} finished runs of {told['tokens']:,} tokens", fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def _by_number(axis: Any, trials: Sequence[dict[str, Any]]) -> None:
    """Scores in the order of the runs, and the best so far."""
    finished = [(one["number"] + 1, one["value"]) for one in trials if one["state"] == "complete"]
    stopped = [(one["number"] + 1, one["earlier"][-1][1]) for one in trials if one["state"] == "stopped early"]
    numbers, values = zip(*finished, strict=True)
    axis.scatter(numbers, values, s=16, color=SAND, edgecolor="black", linewidth=0.4, zorder=3, label="finished")
    if stopped:
        axis.scatter(*zip(*stopped, strict=True), s=18, marker="x", color="gray", label="stopped early (score then)")
    axis.step(numbers, np.maximum.accumulate(values), where="post", color=RED, lw=1, label="best so far")
    axis.set_title("run by run", fontsize=10)
    axis.set_xlabel("trial", fontsize=9)
    axis.set_ylabel("score", fontsize=9)
    axis.legend(fontsize=7, frameon=False)


def page(told: dict[str, Any], picture: bytes) -> str:
    """One HTML page that needs nothing else: the choice, the plot, every run."""
    tasks, predicted = told["tasks"], told["best"]["predicted"]
    known = "" if predicted is None else (
        f"Predicted score {predicted['value']:.4f} [{predicted['lo']:.4f}, {predicted['hi']:.4f}]. "
    )  # fmt: skip
    surface = told["surface"]
    honest = "" if surface is None else (
        f"Left one out, the surface ranks {surface['left_one_out']['n']} runs with a rank correlation of "
        f"{surface['left_one_out']['rank_correlation']:.2f} (rmse {surface['left_one_out']['rmse']:.4f}; noise of a "
        f"run {surface['noise']:.4f})."
    )  # fmt: skip
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["run", "state", "score", *tasks, "minutes"])
    lines = []
    for one in sorted(told["trials"], key=lambda one: -(one["value"] if one["value"] is not None else -1e9)):
        value = "" if one["value"] is None else f"{one['value']:.4f}"
        shares = [f"{(one['shares'] or {}).get(name, 0):.2f}" for name in tasks]
        name = f"{one['number'] + 1} {one['point'] or ''}"
        cells = [name, one["state"], value, *shares, f"{one['wall_minutes'] or 0:.1f}"]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    best = ", ".join(f"{name} {share:.2f}" for name, share in told["best"]["shares"].items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>gcrs tune</title>'
        "<style>body{font:15px sans-serif;max-width:75em;margin:2em auto;padding:0 1em}td,th{padding:.2em .7em;"
        "text-align:right;border-bottom:1px solid #ddd}img{max-width:100%}</style>"
        f"<h1>Mixture</h1><p>Chosen by {html.escape(told['best']['chosen_by'])}: <b>{html.escape(best)}</b>. {known}"
        f"Objective: {html.escape(told['objective'])}. Ended by: {html.escape(told['ended'])}. {honest}</p>"
        f'<img alt="response surface" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        f"<table><tr>{head}</tr>{''.join(lines)}</table></html>\n"
    )
