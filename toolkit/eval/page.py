"""The report as one HTML page that needs nothing else: tables, plots, ten replies and ten missed targets in full.

Everything from data is escaped. Knows nothing of how scores come about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from gcrs.toolkit.eval.plots import plots
from gcrs.toolkit.eval.table import metric_names
from gcrs.toolkit.eval.text_report import GAPS, difference, lines_of, percent, short, with_first

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dde2; }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0; }
td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e5e8eb; }
td:first-child, th:first-child { text-align: left; }
tr.model td { font-weight: 600; }
pre { background: #f5f7f8; padding: .8rem; overflow-x: auto; font-size: 12.5px; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; } figcaption { font-size: 13px; color: #49525b; }
figure svg { max-width: 100%; height: auto; }
.talk { border-left: 3px solid #d8dde2; padding-left: .8rem; margin: 1rem 0; font-size: 14px; }
.talk p { margin: .15rem 0; } .who { color: #68737d; } .said { color: #1b5e9b; } .scroll { overflow-x: auto; }
"""


def page(report: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], missed: Sequence[Mapping[str, Any]]) -> str:
    """The whole page; equal reports give equal pages."""
    title = f"Evaluation of bundle {report['bundle'][:12]}"
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        "<h2>Scores</h2>",
        *_tables(report),
        "<h2>Plots</h2>",
        *(
            f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, svg in plots(report).items()
        ),
        "<h2>Everything else</h2>",
        f"<pre>{escape(chr(10).join(lines_of(report)))}</pre>",
        f"<h2>Where the target step fails: {len(missed)} replies with new items, evenly over those that it misses</h2>"
        if missed
        else "",
        *(_missed(one) for one in missed),
        f"<h2>{len(examples)} written replies, evenly over the sample</h2>" if examples else "",
        *(_example(one) for one in examples),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _tables(report: Mapping[str, Any]) -> Iterator[str]:
    mode = report["mode"]
    other = "free" if mode == "forced" else "forced"
    modes = "; ".join(f"{name}: {report['modes'][name]}" for name in (mode, other))
    yield (
        f"<p>{escape(report['unit'])}; {escape(report['turns'])}; rows in mode {mode}, the model's in the other one "
        f"below it ({escape(modes)}; other rows are the same in both); {report['candidates']:,} candidates; percent, "
        f"differences in points, intervals: {escape(report['intervals'])}.</p>"
    )
    for protocol, held in report["protocols"].items():
        yield f"<p><b>{protocol}</b>: {escape(held['what'])}; n = {held['n']:,} cases</p>"
        first, *rest = held[mode]
        yield from _table([first, held[other][0] | {"name": f"model ({other})", "role": "other"}, *rest])
    for protocol, held in report["original_ids"].items():
        what = "by original ids (merged ids count as different items), forced"
        yield f"<p><b>{protocol}</b>, {what}; {report['original_candidates']:,} candidates; n = {held['n']:,} cases</p>"
        yield from _table(held["forced"])


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    metrics = metric_names()
    yield (
        '<div class="scroll"><table><tr><th></th><th>n</th>'
        + "".join(f"<th>{short(m)}</th>" for m in metrics)
        + "".join(f"<th>less the first row: {short(m)}</th>" for m in GAPS)
        + "</tr>"
    )
    for row in with_first(rows):
        cells = "".join(f"<td>{percent(row[m]) if m in row else '-'}</td>" for m in metrics)
        gaps = row.get("difference", {})
        cells += "".join(f"<td>{difference(gaps[m]) if m in gaps else ''}</td>" for m in GAPS)
        name = f'<td title="{escape(row["about"], quote=True)}">{escape(row["name"])}</td>'
        yield f'<tr class="{row["role"]}">{name}<td>{row["n"]:,}</td>{cells}</tr>'
    yield "</table></div>"


def _example(one: Mapping[str, Any]) -> str:
    return _talk(one, f'<p class="said"><span class="who">Ours ({one["intent"]}):</span> {escape(one["reply"])}</p>')


def _missed(one: Mapping[str, Any]) -> str:
    wanted = "; ".join(
        f"{escape(title)} <code>{escape(sid)}</code> {f'at rank {rank}' if rank else 'not among the first 50'}"
        for title, sid, rank in one["gold_items"]
    )
    return _talk(
        one,
        f'<p><span class="who">Wanted:</span> {wanted}</p>'
        f'<p class="said"><span class="who">First instead:</span> {escape(one["best"][0][0])} '
        f"<code>{escape(one['first'])}</code>, which leaves them at level {escape(one['leaves_gold_at'])}; "
        f"P(recommend) {one['recommend']:.2f}</p>",
    )


def _talk(one: Mapping[str, Any], decided: str) -> str:
    who = {"user": "Person", "assistant": "Recommender"}
    lines = [f'<p><span class="who">{who[role]}:</span> {escape(text)}</p>' for role, text in one["before"]]
    lines.append(f'<p><span class="who">The data\'s reply:</span> {escape(one["gold"])}</p>')
    lines.append(decided)
    if one["best"]:
        best = ", ".join(f"{escape(title)} {100 * chance:.1f} %" for title, chance in one["best"])
        lines.append(f'<p><span class="who">Best items:</span> {best}</p>')
    return (
        f'<div class="talk"><p class="who">dialogue {escape(one["dialogue"])}, turn {one["turn"]}</p>'
        + "".join(lines)
        + "</div>"
    )
