"""MovieLens' files (GroupLens) as ratings of a catalogue's films: a CSV of user, item, rating.

Reads `ratings.csv` and `movies.csv` of any of its releases since 2013 (ml-latest-small, ml-25m, …). A film is the item
of its name and year; names in brackets ("Seven (a.k.a. Se7en)") are tried as well. The licence forbids commercial use
and passing the data on without permission: for research. Knows nothing of training.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gcrs.catalogs.archive import Member, open_members
from gcrs.catalogs.film_index import FilmIndex
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.normalise import clean_title, split_year
from gcrs.toolkit.dialogue.ratings import COLUMNS
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write

Progress = Callable[[int, int, str], None]

MOVIES, RATINGS = "movies", "ratings"
_BRACKETS = re.compile(r"\s*\(([^()]*)\)")
_ALSO = re.compile(r"^a\.?k\.?a\.?:?\s+", re.I)
EVERY = 100_000  # ratings between two words on progress


def prepare_movielens(path: Path, catalog: Catalog, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write the ratings of films that the catalogue has to `out`, whole or not at all, and count what was left out.

    `path` is the official zip or the directory it unpacks to. DataError for files that are missing, of another shape,
    or about none of the catalogue's films.
    """
    tables = {member.stem: member for member in open_members(Path(path), (".csv",))}
    missing = [f"{name}.csv" for name in (MOVIES, RATINGS) if name not in tables]
    if missing:
        raise DataError(f"{path} has no {' and no '.join(missing)}.", hint="Point at MovieLens' zip or directory.")
    find = FilmIndex(catalog)
    films = read = kept = 0
    items: dict[str, str] = {}
    for row in _rows(tables[MOVIES], ("movieId", "title")):
        films += 1
        if (item := next(filter(None, map(find, spellings(row["title"]))), None)) is not None:
            items[row["movieId"]] = item
    people: set[str] = set()
    with atomic_write(Path(out)) as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in _rows(tables[RATINGS], ("userId", "movieId", "rating")):
            read += 1
            if (item := items.get(row["movieId"])) is not None:
                kept += 1
                people.add(row["userId"])
                table.writerow((row["userId"], item, row["rating"]))
            if progress and read % EVERY == 0:
                progress(read, 0, "reading ratings")
        if not kept:
            raise DataError(
                f"{path} rates none of this catalogue's {len(catalog)} films.", hint="Is it a catalogue of films?"
            )
    return {
        "films read": films,
        "films of the catalogue": len(items),
        "items rated": len(set(items.values())),
        "ratings read": read,
        "ratings written": kept,
        "ratings left out: not in the catalogue": read - kept,
        "people": len(people),
    }


def spellings(title: str) -> list[str]:
    """What a film may be called: "Seven (a.k.a. Se7en) (1995)" is "Seven (1995)" and "Se7en (1995)"."""
    name, year = split_year(clean_title(title))
    end = "" if year is None else f" ({year})"
    others = [_ALSO.sub("", other).strip() for other in _BRACKETS.findall(name)]
    names = dict.fromkeys([name, _BRACKETS.sub("", name).strip(), *others])
    return [f"{one}{end}" for one in names if one]


def _rows(member: Member, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    rows = csv.DictReader(member.lines())
    lacking = [name for name in columns if name not in (rows.fieldnames or ())]
    if lacking:
        raise DataError(
            f"{member.where} has no column {lacking[0]!r}; its first line is {','.join(rows.fieldnames or ())!r}.",
            hint=f"Expected MovieLens' {member.stem}.csv: {','.join(columns)}.",
        )
    for row in rows:
        if any(row[name] is None for name in columns):
            raise DataError(
                f"{member.where}, line {rows.line_num}: too few columns, expected {len(rows.fieldnames or ())}."
            )
        yield row
