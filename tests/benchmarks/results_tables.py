"""The tables of docs/results.md from the report of an evaluation.

    gcrs eval --bundle movies --dialogues valid.jsonl --train train.jsonl --baselines all --replies 1000 --report out
    python tests/benchmarks/results_tables.py out/report.json

Percent with 95 % intervals; prints Markdown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gcrs.toolkit.eval.text_report import short

METRICS = ("recall@1", "recall@5", "recall@10", "recall@20", "recall@50", "ndcg@10", "mrr@10")
HEADS = tuple(map(short, METRICS))
SLOW = "retrieve-then-generate"


def percent(found: Mapping[str, Any], digits: int = 2) -> str:
    """`4.97 [4.28, 5.68]`; zero without an interval, a dash without cases."""
    if found["value"] is None:
        return "-"
    shown = [f"{100 * found[key]:.{digits}f}" for key in ("value", "lo", "hi")]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if found["lo"] or found["hi"] else shown[0]


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table in Markdown, the first column's head empty."""
    names = ["", *heads]
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def recommendation(report: Mapping[str, Any], protocol: str) -> Iterator[str]:
    """Every row under a protocol, forced, and the model's with the intent free."""
    found = report["protocols"][protocol]
    yield f"\n`{protocol}` (n = {found['n']:,}):\n"
    rows = [row for row in found["forced"] if row["n"] == found["n"]]
    lines = [["**model**", *(percent(rows[0][metric]) for metric in METRICS)]]
    lines.append(["model, free", *(percent(found["free"][0][metric]) for metric in METRICS)])
    lines += [[row["name"], *(percent(row[metric]) for metric in METRICS)] for row in rows[1:]]
    yield from table(HEADS, lines)


def differences(report: Mapping[str, Any]) -> Iterator[str]:
    """Each row less the model on the same cases, at R@1, 10 and 50, with p."""
    for protocol in ("all", "new"):
        for row in report["protocols"][protocol]["forced"][1:]:
            gaps = {metric: row["difference"][metric] for metric in ("recall@1", "recall@10", "recall@50")}
            said = (f"{m} {percent(gap)} (p = {gap['p']:.4f})" for m, gap in gaps.items())
            yield f"{protocol}, {row['name']} (n = {row['n']:,}) less the model: {', '.join(said)}"


def bands(report: Mapping[str, Any], name: str) -> Iterator[str]:
    """R@10 by a property of the case."""
    found = [band for band in report["spread"][f"recall@10_by_{name}"] if band["n"]]
    heads = ["n", *found[0]["rows"]]
    lines = [[band["band"], f"{band['n']:,}", *(percent(one, 1) for one in band["rows"].values())] for band in found]
    yield from table(heads, lines)


def spread(report: Mapping[str, Any]) -> Iterator[str]:
    """Coverage and Gini of the first ten."""
    rows = report["spread"]["rows"]
    lines = [["coverage", *(f"{100 * row['coverage@10']:.1f}" for row in rows.values())]]
    lines.append(["Gini", *(f"{row['gini@10']:.3f}" for row in rows.values())])
    yield from table(rows, lines)


def slow_row(report: Mapping[str, Any]) -> Iterator[str]:
    """Retrieve-then-generate on its own cases."""
    for protocol in ("all", "new"):
        for row in report["protocols"][protocol]["forced"]:
            if row["name"] == SLOW:
                few = [percent(row[metric], 1) for metric in ("recall@1", "recall@10", "recall@50")]
                yield f"{SLOW}, {protocol}, n = {row['n']}: R@1, 10, 50: {'; '.join(few)}"


def main() -> None:
    """Print everything of the report that is named on the command line."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(f"bundle {report['bundle']}, {report['precision']}, {report['settings']['beams']} beams")
    for protocol in ("all", "new", "cold"):
        print("\n".join(recommendation(report, protocol)))
    print("\n".join(differences(report)))
    for protocol in ("all", "new"):
        row = report["original_ids"][protocol]["forced"][0]
        shown = (f"{head} {percent(row[metric])}" for head, metric in zip(HEADS, METRICS, strict=True))
        print(f"\noriginal ids, {protocol}: {', '.join(shown)}")
    for name in ("popularity", "items_named"):
        print("\n" + "\n".join(bands(report, name)))
    print("\n" + "\n".join(spread(report)))
    print("\n" + "\n".join(slow_row(report)))
    for part in ("intent", "target", "likelihood", "written"):
        print(f"\n{part}\n" + json.dumps(report.get(part), indent=1))


if __name__ == "__main__":
    main()
