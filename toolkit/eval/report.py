"""An evaluation on disk: report.json, cases.jsonl with every row's ranks, page.html; and two runs held together.

Equal runs give equal bytes. Knows nothing of how scores come about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.eval.metrics import Resampling
from gcrs.toolkit.eval.significance import paired
from gcrs.toolkit.eval.table import COMPARED, values_of
from gcrs.toolkit.files import atomic_write, read_json

REPORT, CASES, PAGE = "report.json", "cases.jsonl", "page.html"
AGAIN = "Make it with: gcrs eval … --report DIR"
SAME = ("gcrs", "base", "precision", "popularity", "prompt_budget")  # beside the settings, what moves rows
REPLIES = ("replies", "seeds", "limit")  # settings that move no rank of the same cases


def write_report(directory: Path, report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], page: str) -> None:
    """Write the three files into a directory, each whole or not at all; other files there stay."""
    with atomic_write(directory / CASES) as handle:
        for line in lines:
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
    with atomic_write(directory / PAGE) as handle:
        handle.write(page)
    with atomic_write(directory / REPORT) as handle:
        handle.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def check_place(directory: Path) -> None:
    """Raise UsageError where no report can be written, before anything slow."""
    above = directory
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise UsageError(f"--report {directory}: {above} is no directory.", hint="Give a directory; it is made.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"--report {directory}: {above} cannot be written.", hint="Give another directory.")


def check_comparable(run: Path) -> dict[str, Any]:
    """Another run's report, for a sentence before anything slow when it is none; `run` is its directory or JSON."""
    place = run / REPORT if run.is_dir() else run
    found = read_json(place)
    if not isinstance(found, dict) or not {"cases", "seed", "rows"} <= {*found, *(found.get("settings") or {})}:
        raise DataError(f"{place} is no report of an evaluation.", hint=AGAIN)
    if not (place.parent / CASES).is_file():
        raise DataError(f"{place} has no {CASES} beside it, which holds the ranks of its cases.", hint=AGAIN)
    return found


def check_same_cases(mine: str, other: Mapping[str, Any], run: Path) -> None:
    """Raise DataError unless another run's report is over exactly these cases and candidates."""
    if other["cases"] != mine:
        raise DataError(
            f"The run {str(run)!r} scored other cases ({other['cases'][:12]}…, {other['dialogues']:,} dialogues) than "
            f"this one ({mine[:12]}…).",
            hint="Compare runs over the same dialogues, --limit, --skip-unknown and catalogue.",
        )


def compare(report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], run: Path, *, seed: int) -> dict[str, Any]:
    """This run less another one on the same cases, for every row that both have, under every protocol.

    `model (free)` is the model's row in free mode. A protocol whose cases are not the same stands in `not_compared`,
    with the reason. DataError when the other run's cases cannot be read or are not the same.
    """
    other = check_comparable(run)
    check_same_cases(report["cases"], other, run)
    theirs = ranks_of_cases(run, lines)
    out: dict[str, Any] = {"bundle": other["bundle"], "settings": other["settings"]}
    out |= {"differs": _differs(report, other), "not_compared": {}, "protocols": {}}
    for protocol in report["protocols"]:
        here, there = ([n for n, line in enumerate(side) if protocol in line["ranks"]] for side in (lines, theirs))
        if not here or here != there:  # which items are cold depends on what training mentions
            numbers = f"{len(here):,} here and {len(there):,} there"
            why = f"other cases, {numbers}: count both on the same --train files" if here != there else "no cases"
            out["not_compared"][protocol] = why
            continue
        held = [(lines[n], theirs[n]) for n in here]
        rows = []
        for name in held[0][0]["ranks"][protocol]:
            both = [
                (a["ranks"][protocol][name], b["ranks"][protocol].get(name), a["dialogue"])
                for a, b in held
                if a["ranks"][protocol][name] is not None and b["ranks"][protocol].get(name) is not None
            ]
            if not both:
                continue
            drawn = Resampling([group for _, _, group in both], seed=seed)
            row: dict[str, Any] = {"name": name, "n": len(both)}
            for metric in COMPARED:
                mine, own = values_of(metric, [a for a, _, _ in both]), values_of(metric, [b for _, b, _ in both])
                found = paired(mine, own, drawn, seed=seed).to_json()
                row[metric] = {"this": float(mine.mean()), "other": float(own.mean()), "difference": found}
            rows.append(row)
        out["protocols"][protocol] = rows
    return out


def _differs(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What besides the bundle is not the same in two runs and may move their rows: `what`, `this`, `other`."""
    held = [
        ({name: one.get(name) for name in SAME} | one["settings"] | _libraries(one) | _named(one["data"]))
        for one in (mine, other)
    ]
    names = [name for name in dict.fromkeys([*held[0], *held[1]]) if name not in REPLIES]
    return [
        {"what": name, "this": held[0].get(name), "other": held[1].get(name)}
        for name in names
        if held[0].get(name) != held[1].get(name)
    ]


def _libraries(report: Mapping[str, Any]) -> dict[str, str]:
    return {f"version of {name}": found for name, found in dict(report.get("versions") or {}).items()}


def _named(data: Mapping[str, str]) -> dict[str, str]:
    """The training files by name, each with the beginning of its hash; the evaluated file is `cases`."""
    return {f"training file {name.removeprefix('train/')}": sha[:12] for name, sha in list(data.items())[1:]}


def ranks_of_cases(run: Path, same_as: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The lines of the file of cases beside a report, each with every row's ranks; DataError for a broken file.

    With `same_as` also unless they are about the same cases in the same order.
    """
    place = (run if run.is_dir() else run.parent) / CASES
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
        keys = [_key(line) for line in lines]
        if same_as is not None and keys != [_key(line) for line in same_as]:
            raise ValueError("other cases")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} does not hold the ranks of the report beside it.", hint=AGAIN) from error
    return lines


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["dialogue"], line["turn"], line["gold"]
