"""The table of docs/bench.md from a run of the bench:

gcrs bench --json > run.json && python tests/benchmarks/bench_table.py run.json

Replaces what stands between the two marks of the page; --print writes the table to stdout instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bench.md"
BEGIN, END = "<!-- table: written by tests/benchmarks/bench_table.py -->", "<!-- end of table -->"
UNITS = {"ratio": "x"}


def shown(value: float, unit: str) -> str:
    """Three significant digits and the unit."""
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{digits} {UNITS.get(unit, unit)}"


def verdict(row: dict[str, Any]) -> str:
    """Met, or by how much not."""
    if row["met"] is None:
        return "–"
    if row["met"]:
        return "met"
    if row["details"].get("same") is False:
        return "**missed: another ranking**"
    return f"**missed by {100 * abs(row['value']['median'] / row['target'] - 1):.0f} %**"


def limit(row: dict[str, Any]) -> str:
    """Bytes moved, operations, the least time, and how far from it."""
    found = row["limit"]
    if not found or not found["times"]:
        return "–"
    parts = [f"{found['bytes'] / 1e9:.3g} GB"] if found["bytes"] else []
    parts += [f"{found['flops'] / 1e9:.3g} GFLOP"] if found["flops"] else []
    return f"{', '.join([*parts, shown(found['seconds'], 's')])} ({found['bound']}): {found['times']:.1f} times"


def lines(run: dict[str, Any]) -> Iterator[str]:
    """The page's part: the machine, then a line a row."""
    machine = run["machine"]
    yield (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load {machine['load']} at the "
        f"start, {machine['gigabytes_per_second']} GB/s read, {machine['gigaflops_per_second']} GFLOP/s "
        f"{machine['dtype']}; torch {machine['torch']}, transformers {machine['transformers']}, outlines "
        f"{machine['outlines']}; bundle {run['bundle'][:12]}; {run['seconds'] / 60:.1f} minutes"
        f"{', --quick: no target is judged' if run['quick'] else ''}."
    )
    yield ""
    yield "| row | what | baseline | measured (n, spread) | target | | limit, and how far from it |"
    yield "|---|---|---|---|---|---|---|"
    for row in run["rows"]:
        if row["skipped"]:
            yield f"| `{row['name']}` | {row['what']} | – | {row['skipped']} | – | – | – |"
            continue
        value, unit = row["value"], row["unit"]
        spread = f", {value['lo']:.3g} to {value['hi']:.3g}" if value["n"] > 1 else ""
        sign = "<=" if row["better"] == "lower" else ">="
        target = "–" if row["target"] is None else f"{sign} {row['target']:g}"
        yield (
            f"| `{row['name']}` | {row['what']} | {row['baseline'] or '–'} | {shown(value['median'], unit)} "
            f"({value['n']}{spread}) | {target} | {verdict(row)} | {limit(row)} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what `gcrs bench --json` wrote")
    parser.add_argument("--print", action="store_true", help="write to stdout, leave the page alone")
    options = parser.parse_args()
    table = "\n".join(lines(json.loads(options.run.read_text(encoding="utf-8"))))
    if options.print:
        print(table)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
