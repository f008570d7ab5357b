"""ReDial's films as a catalogue: the official `movies_with_mentions.csv`, with facts from a companion file.

Knows the quirks of these two files and nothing of semantic IDs or dialogues. Titles and ids are ReDial's (Li et al.,
2018, CC BY 4.0); of the facts only what Wikidata gives (CC0) is taken, and the year that stands in the title.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcrs.catalogs.film_facts import COLUMNS, read_facts, read_text, strings, wikidata_facts
from gcrs.toolkit.catalog.duplicates import near_duplicates, normalise_title, title_words
from gcrs.toolkit.catalog.item import Catalog, Fact, Item
from gcrs.toolkit.dialogue.normalise import clean_title as unescape_title
from gcrs.toolkit.dialogue.normalise import split_year
from gcrs.toolkit.errors import DataError

Progress = Callable[[int, int, str], None]

_UNTITLED = "Untitled"  # two ids have a year and no name; they must resolve all the same


@dataclass(frozen=True)
class _Film:
    """One row of the csv, cleaned."""

    id: str
    title: str
    year: int | None
    mentions: int
    facts: Mapping[str, Fact]

    @property
    def people(self) -> set[str]:
        return {name for column in ("directors", "cast") for name in strings(self.facts.get(column))}


def read_redial_catalog(
    movies_csv: Path, facts: Path | None = None, movielens: Path | None = None, progress: Progress | None = None
) -> tuple[Catalog, dict[str, Any]]:
    """Every ReDial film under its ReDial id, films that are one merged, and a report of what was done.

    `facts` is a JSON object (gzip or not) of `{id: {title, year, wikidata, imdb, imdb_id?, movielens_id?}}`;
    `movielens` is MovieLens' movies.csv, used only to check years. Films are merged when their normalised names are
    equal and their years are equal, or one year is missing and there is a single candidate; the id with most
    mentions (then the smallest) stands for them and the others become its aliases. Mention counts decide nothing
    else and become no fact: they count all splits.

    Raises DataError for a file that is missing, broken or of another shape. The report holds `read`, `catalogue`,
    `merged`, `without_year`, `without_facts`, `facts_refused` (by reason) and `near_duplicates`.
    """
    rows = _read_movies(Path(movies_csv))
    records = read_facts(Path(facts)) if facts else {}
    years = _read_movielens_years(Path(movielens)) if movielens else {}
    refused: dict[str, int] = {"years disagree": 0, "sources name different people": 0, "merged films disagree": 0}
    films = []
    for index, (movie_id, raw_title, mentions) in enumerate(rows):
        title, year = clean_title(raw_title)
        record = records.get(movie_id, {})
        kept: dict[str, Fact] = {}
        if reason := _distrust(record, year, years):
            refused[reason] += 1
        else:
            kept = wikidata_facts(record.get("wikidata") or {})
        films.append(_Film(movie_id, title or _UNTITLED, year, mentions, kept))
        if progress and (index % 500 == 0 or index + 1 == len(rows)):
            progress(index + 1, len(rows), "reading films")
    items = [_unite(group, refused) for group in _same_films(films)]
    catalog = Catalog(items, COLUMNS)
    report = {
        "read": len(films),
        "catalogue": len(catalog),
        "merged": len(films) - len(catalog),
        "without_year": sum("year" not in item.facts for item in catalog),
        "without_facts": sum(not set(item.facts) - {"year"} for item in catalog),
        "facts_refused": refused,
        "near_duplicates": len(near_duplicates(catalog)),
    }
    return catalog, report


def clean_title(raw: str) -> tuple[str, int | None]:
    """A title without percent escapes, HTML entities and double spaces, and the year that stood behind it."""
    text = unescape_title(raw)
    name, year = split_year(f"- {text}")  # the dash: a year without any name is a year all the same
    return name.removeprefix("-").strip(), year


def _same_films(films: list[_Film]) -> Iterable[list[_Film]]:
    """Groups of films that are one, the canonical film first, in the order of their canonical films' rows."""
    order = {film.id: position for position, film in enumerate(films)}
    by_name: dict[str, list[_Film]] = defaultdict(list)
    for film in films:
        name = film.id if film.title == _UNTITLED else normalise_title(film.title)
        by_name[name].append(film)
    groups: list[list[_Film]] = []
    for same_name in by_name.values():
        dated: dict[int | None, list[_Film]] = defaultdict(list)
        for film in same_name:
            dated[film.year].append(film)
        undated = dated.pop(None, [])
        if len(dated) == 1:  # a single candidate: the undated ones are that film
            next(iter(dated.values())).extend(undated)
        elif not dated and undated:  # no year at all: equal names, equal (absent) years
            dated[None] = undated
        else:  # which of the dated films is meant cannot be known; the undated are one film of their own
            groups += [undated] if undated else []
        groups += dated.values()
    canonical_first = [sorted(group, key=lambda film: (-film.mentions, int(film.id))) for group in groups]
    return sorted(canonical_first, key=lambda group: order[group[0].id])


def _unite(group: list[_Film], refused: dict[str, int]) -> Item:
    """One item of all the ids that mean it; facts of a dated film come before those of an undated one."""
    canonical = group[0]
    year = next((film.year for film in group if film.year is not None), None)
    facts: dict[str, Fact] = {} if year is None else {"year": year}
    people: set[str] = set()
    for film in sorted(group, key=lambda film: film.year is None):
        if people and film.people and not _share_a_person(people, film.people):
            refused["merged films disagree"] += 1
            continue
        people |= film.people
        for column, value in film.facts.items():
            known = strings(facts.get(column))
            facts[column] = [*known, *(entry for entry in strings(value) if entry not in known)]
    names = dict.fromkeys(film.title for film in group[1:] if film.title != canonical.title)
    ordered = {column: facts[column] for column in COLUMNS if column in facts}
    return Item(canonical.id, canonical.title, ordered, tuple(film.id for film in group[1:]), tuple(names))


def _distrust(record: Mapping[str, Any], title_year: int | None, movielens_years: Mapping[int, int]) -> str | None:
    """Why a record is not believed to be about this film; None when it is.

    Years more than one apart (title, record, MovieLens) mean a namesake. Wikidata's block carries no year; it is
    vouched for by sharing a person with the IMDb block. When they share none, one of the two is a namesake's: the
    IMDb block is, if its id is not the one MovieLens links this title and year to; else neither is trusted.
    """
    stated = [title_year, record.get("year"), movielens_years.get(record.get("movielens_id", -1))]
    years = [year for year in stated if isinstance(year, int)]
    if years and max(years) - min(years) > 1:
        return "years disagree"
    wikidata, imdb = record.get("wikidata") or {}, record.get("imdb") or {}
    first = set(strings(wikidata.get("directors")) + strings(wikidata.get("cast")))
    second = set(strings(imdb.get("director")) + strings(imdb.get("star")))
    if not first or not second or _share_a_person(first, second):
        return None
    if record.get("imdb_id") and imdb.get("imdb_id") and record["imdb_id"] != imdb["imdb_id"]:
        return None
    return "sources name different people"


def _share_a_person(first: Iterable[str], second: Iterable[str]) -> bool:
    """Whether a name stands in both, forgiving order, accents, initials' dots and transliteration."""
    from rapidfuzz.fuzz import ratio

    ours, theirs = ([sorted(title_words(name.replace(".", " "))) for name in names] for names in (first, second))
    return any(
        len(set(a) & set(b)) >= 2 or ratio(" ".join(a), " ".join(b)) >= 80 for a in ours for b in theirs if a and b
    )


def _read_movies(path: Path) -> list[tuple[str, str, int]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    fields = reader.fieldnames or []
    if "movieId" not in fields or "movieName" not in fields:
        raise DataError(
            f"{path} has the columns {', '.join(fields) or 'none'} where movieId, movieName, nbMentions were expected.",
            hint="Give ReDial's movies_with_mentions.csv.",
        )
    rows: dict[str, tuple[str, str, int]] = {}
    for row in reader:
        movie_id, mentions = (row["movieId"] or "").strip(), (row.get("nbMentions") or "0").strip()
        if not (movie_id.isdecimal() and mentions.isdecimal() and row["movieName"] is not None):
            raise DataError(f"{path}, line {reader.line_num}: {row} where an id, a title and a count were expected.")
        if movie_id in rows:
            raise DataError(f"{path}, line {reader.line_num}: movieId {movie_id} appears a second time.")
        rows[movie_id] = (movie_id, row["movieName"], int(mentions))
    if not rows:
        raise DataError(f"{path} holds no films.")
    return list(rows.values())


def _read_movielens_years(path: Path) -> dict[int, int]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if not {"movieId", "title"} <= set(reader.fieldnames or []):
        raise DataError(f"{path} is not MovieLens' movies.csv: it has no columns movieId and title.")
    dated = ((int(row["movieId"]), clean_title(row["title"])[1]) for row in reader if row["movieId"].isdecimal())
    return {movie_id: year for movie_id, year in dated if year is not None}
