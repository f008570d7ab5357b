"""The report's plots as SVG text: recall by k, by popularity, calibration, where the target step fails.

Equal numbers give equal bytes. Knows nothing of the page around them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.eval.table import KS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.5, 3.4)
COLOURS = ("#1b5e9b", "#c4622d", "#4b8a3f", "#8a4b8a", "#b59a2b", "#5b6770", "#2b8a8a", "#a03050")


def plots(report: Mapping[str, Any]) -> dict[str, str]:
    """Each plot's title and its SVG."""
    protocol, mode = report["protocol"], report["mode"]
    target, spread = report["target"], report["spread"]
    return {
        f"Recall by k, protocol {protocol}, {mode}, n = {report['n']:,} cases; bars: 95 % intervals": _svg(
            lambda ax: _recall(ax, report["rows"])
        ),
        "Recall@10 by training mentions of the gold item, protocol all, forced": _svg(
            lambda ax: _bands(ax, spread["recall@10_by_popularity"], "training mentions")
        ),
        "Recall@10 by items named before, protocol all, forced": _svg(
            lambda ax: _bands(ax, spread["recall@10_by_items_named"], "items named before")
        ),
        f"Calibration of the target's probability, n = {target['n']:,} replies": _svg(
            lambda ax: _calibration(ax, target["calibration"]["bins"])
        ),
        f"Level at which the target step leaves the gold ID, n = {target['n']:,} replies": _svg(
            lambda ax: _levels(ax, target["leaves_gold_at"])
        ),
    }


def _svg(draw: Any) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "gcrs", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=SIZE, layout="constrained")
        ax = figure.add_subplot()
        draw(ax)
        ax.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _recall(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    drawn = [row for row in rows if row["n"] and f"recall@{KS[-1]}" in row]
    for n, row in enumerate(drawn):
        found = [row[f"recall@{k}"] for k in KS]
        at = [place + 0.06 * (n - len(drawn) / 2) for place in range(len(KS))]
        values = [100 * one["value"] for one in found]
        few = "" if row["n"] == rows[0]["n"] else f" (n = {row['n']:,})"
        ax.errorbar(at, values, yerr=_bars(found), label=row["name"] + few, color=COLOURS[n % len(COLOURS)], marker="o",
                    markersize=3.5, linewidth=1.2, capsize=2)  # fmt: skip
    ax.set_xticks(range(len(KS)), [str(k) for k in KS])
    ax.set_xlabel("k")
    ax.set_ylabel("recall, %")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)


def _bands(ax: Axes, bands: Sequence[Mapping[str, Any]], what: str) -> None:
    held = [band for band in bands if band["n"]]
    names = list(held[0]["rows"])
    wide = 0.8 / len(names)
    for n, name in enumerate(names):
        found = [band["rows"][name] for band in held]
        at = [place + wide * (n - (len(names) - 1) / 2) for place in range(len(held))]
        ax.bar(at, [100 * one["value"] for one in found], yerr=_bars(found), label=name, width=wide,
               color=COLOURS[n % len(COLOURS)], error_kw={"linewidth": 0.7, "ecolor": "#555555"})  # fmt: skip
    ax.set_xticks(range(len(held)), [f"{band['band']}\nn = {band['n']:,}" for band in held])
    ax.set_xlabel(what)
    ax.set_ylabel("recall@10, %")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)


def _bars(found: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """How far the interval reaches below and above each value, in percent."""
    return [[100 * (one["value"] - one["lo"]) for one in found], [100 * (one["hi"] - one["value"]) for one in found]]


def _calibration(ax: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    said, right = [100 * one["probability"] for one in bins], [100 * one["right"] for one in bins]
    most = max([*said, *right, 1.0])
    ax.plot([0, most], [0, most], color="#999999", linewidth=1, linestyle="--", label="perfect")
    ax.plot(
        said, right, color=COLOURS[0], marker="o", markersize=4, linewidth=1.2, label="bins of equally many replies"
    )
    ax.set_xlabel("probability of the best item, %")
    ax.set_ylabel("it is one of the reply's, %")
    ax.legend(frameon=False, fontsize=8)


def _levels(ax: Axes, levels: Mapping[str, int]) -> None:
    ax.bar(range(len(levels)), list(levels.values()), color=COLOURS[0], width=0.6)
    ax.set_xticks(range(len(levels)), [name if name == "never" else f"level {name}" for name in levels])
    ax.set_ylabel("replies")
