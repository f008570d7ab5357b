"""The reports of a mixture search and of its proof as lines of text for a terminal.

Knows nothing of how figures come about, nor of where the lines go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def search_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A search's report: trials, what was chosen and why, what was written."""
    states = [one["state"] for one in report["trials"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield f"trials: {counts}; ended by: {report['ended']}"
    yield f"objective: {report['objective']}"
    yield f"chosen by {report['best']['chosen_by']}: {_shares(report['best']['shares'])}"
    if surface := report["surface"]:
        for name, value in {"chosen": report["best"]["predicted"], **surface["predicted"]}.items():
            yield f"  {name}: predicted {_interval(value)}"
        left = surface["left_one_out"]
        yield f"  the surface's rank correlation, left one out: {left['rank_correlation']:.2f} (n = {left['n']})"
    yield f"written: {', '.join(report['files'].values())}"
    if report.get("final"):
        yield f"bundle: {report['final']}"
    yield f"use it: gcrs finetune --mixture {report['files']['out']} …"


def proof_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A proof's report: each point with its interval, the lead, whether the proxies ranked alike."""
    n = report["n"]
    yield f"{report['tokens']:,} tokens a run; {n['cases']} cases of {n['dialogues']} dialogues; 95 % intervals"
    for name, point in report["points"].items():
        seeds = f"{point['seeds']} seed{'s' if point['seeds'] > 1 else ''}"
        yield f"{name} ({seeds}): recall@10 {_interval(point['recall@10'])}, objective {_interval(point['objective'])}"
    for name, lead in report["lead"].items():
        yield f"best - {name}: recall@10 {_interval(lead['recall@10'])}, objective {_interval(lead['objective'])}"
    ranking = report["ranking"]
    if ranking["rank_correlation"] is not None:
        held = f"{ranking['rank_correlation']:.2f} [{ranking['lo']:.2f}, {ranking['hi']:.2f}]"
        yield f"proxies' ranking against this one: {held} (n = {ranking['n']} mixtures)"
    yield f"written: {report['out']}"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['value']:.4f} [{value['lo']:.4f}, {value['hi']:.4f}]"
