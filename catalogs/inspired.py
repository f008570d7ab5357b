"""INSPIRED's files (Hayati et al., EMNLP 2020) as gcrs dialogues, with a count of what was read, merged and dropped.

Reads the original .tsv (an utterance a row) and the `_dbpedia.jsonl` variant (a dialogue a line). The seeker is the
user, the recommender the assistant; utterances of one side in a row become one turn, joined by a newline. Films are
strings, "Knives Out (2019)", found by a program: only those whose name stands in the text become mentions. No licence
is stated for the data: for research, not to be passed on. Knows nothing of films beyond these strings.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcrs.catalogs.archive import Member, choose_split, open_members, split_name
from gcrs.catalogs.film_facts import COLUMNS, read_facts, wikidata_facts
from gcrs.catalogs.film_index import FilmIndex, film_id
from gcrs.catalogs.redial_dialogues import JOIN, Report
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.everyday import Rarity, rarity
from gcrs.toolkit.dialogue.evidence import Sentence
from gcrs.toolkit.dialogue.normalise import clean_title, neutralise, split_year, title_key, words
from gcrs.toolkit.dialogue.turns import Dialogue, Role, Turn
from gcrs.toolkit.errors import DataError

QUOTE = "QUOTATION_MARK"  # how the .tsv spells a double quote
_ROLES: dict[str, Role] = {"SEEKER": "user", "RECOMMENDER": "assistant"}
_YEAR_BEHIND = re.compile(r"\s*\((?:18|19|20)\d\d\)")


@dataclass(frozen=True)
class Utterance:
    """What one side said, and the films that the data set's program found in it."""

    dialogue: str
    role: Role
    text: str
    films: tuple[str, ...]


def read_inspired(path: Path, split: str | None = None) -> Iterator[list[Utterance]]:
    """The dialogues of a directory, zip, .tsv, .jsonl or .jsonl.gz, each a list of utterances.

    Where a split is there in both formats, the original .tsv is read. DataError names the line of another shape.
    """
    for member in _members(path, split):
        yield from (_tsv(member) if member.kind == ".tsv" else _jsonl(member))


def _members(path: Path, split: str | None) -> list[Member]:
    chosen = choose_split(open_members(Path(path), (".tsv", ".jsonl")), split)[0]
    original = {split_name(member) for member in chosen if member.kind == ".tsv"}
    return [member for member in chosen if member.kind == ".tsv" or split_name(member) not in original]


def _tsv(member: Member) -> Iterator[list[Utterance]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses a long cell
    rows = csv.DictReader(member.lines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = {"dialog_id", "speaker", "text", "movies"} - set(rows.fieldnames or ())
    if missing:
        raise DataError(f"{member.where} has no column {sorted(missing)[0]!r}.", hint="Expected INSPIRED's own .tsv.")
    here: list[Utterance] = []
    for row in rows:
        where = f"{member.where}, line {rows.line_num}"
        if None in row.values():
            raise DataError(f"{where}: too few columns, expected {len(rows.fieldnames or ())}.")
        films = tuple(clean_title(film) for film in row["movies"].split(";") if film.strip())
        said = Utterance(row["dialog_id"], _role(row["speaker"], where), row["text"].replace(QUOTE, '"'), films)
        if here and here[0].dialogue != said.dialogue:
            yield here
            here = []
        here.append(said)
    if here:
        yield here


def _jsonl(member: Member) -> Iterator[list[Utterance]]:
    for number, (where, raw) in enumerate(member.json_lines(), 1):
        if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
            raise DataError(f"{where}: expected a list of utterances, the INSPIRED dialogue format.")
        dialogue = f"{split_name(member)}-{number}"
        yield [
            Utterance(
                dialogue,
                _role(entry.get("role"), where),
                text if isinstance(text := entry.get("text"), str) else "",
                tuple(clean_title(film) for film in entry.get("movie") or () if isinstance(film, str)),
            )
            for entry in raw
        ]


def _role(speaker: Any, where: str) -> Role:
    if (role := _ROLES.get(str(speaker).strip().upper())) is None:
        raise DataError(f"{where}: the speaker is {speaker!r}, expected SEEKER or RECOMMENDER.")
    return role


def inspired_catalog(path: Path, split: str | None = None, facts: Path | None = None) -> tuple[Catalog, Report]:
    """Every film that the data set names in the dialogues, as a catalogue in order of id, and a report.

    `facts` is a JSON object (gzip or not) of `{"Knives Out (2019)": {"year", "genres", "casts", "directors",
    "productionCompanies"}}`, as Wikidata gives them: its films join the catalogue, so that the catalogue does not
    depend on the split. A record whose year is more than one off the title's is about another film and is not used.
    """
    named = {film for dialogue in read_inspired(path, split) for said in dialogue for film in said.films if film}
    records = read_facts(facts) if facts else {}
    found: dict[str, Item] = {}
    without = refused = 0
    for film in sorted({*named, *map(clean_title, records)}, key=lambda film: (film not in records, film)):
        if film_id(film) in found:
            continue
        name, year = split_year(film)
        record = records.get(film, {})
        told = record.get("year")
        other = year is not None and isinstance(told, int) and abs(told - year) > 1
        known = {} if other else wikidata_facts(_columns(record))
        refused, without = refused + other, without + (not known)
        found[film_id(film)] = Item(film_id(film), name, ({} if year is None else {"year": year}) | known)
    catalog = Catalog([found[key] for key in sorted(found)], COLUMNS if facts else {"year": "integer"})
    report: Report = {"films": len(catalog)}
    if facts:
        report |= {"films without facts": without, "facts refused: years disagree": refused}
    return catalog, report


def _columns(record: Mapping[str, Any]) -> dict[str, Any]:
    names = {"genres": "genres", "directors": "directors", "cast": "casts", "companies": "productionCompanies"}
    return {column: record.get(name) for column, name in names.items()}


def prepare_inspired(
    path: Path, catalog: Catalog | None, split: str | None = None, *, annotated_targets: bool = False
) -> tuple[list[Dialogue], Report]:
    """Dialogues of INSPIRED's files and a report of what was read, merged and dropped, and why.

    With a catalogue, a film is the item of its name and year (of its name alone where one of the years is missing and
    there is one candidate), and a film that the catalogue lacks stays as it was typed; without one, ids are made from
    the titles. A film whose name is not in the text is dropped, unless `annotated_targets` makes every annotated film
    of an assistant's turn its target, as published protocols count them.
    DataError: a path, archive or line that cannot be read.
    """
    find = FilmIndex(catalog)
    counts: Counter[str] = Counter()
    dialogues = []
    for utterances in read_inspired(path, split):
        counts["dialogues read"] += 1
        turns = _turns(utterances, find, counts, annotated_targets)
        if turns:
            dialogues.append(Dialogue(utterances[0].dialogue, turns))
        else:
            counts["dialogues dropped: no utterance with text"] += 1
    if not dialogues:
        raise DataError(f"{path} has no dialogues.", hint="Expected INSPIRED's .tsv or .jsonl.")
    counts["dialogues written"] = len(dialogues)
    counts["turns written"] = sum(len(dialogue) for dialogue in dialogues)
    report: Report = {key: counts[key] for key in sorted(counts)}
    if left_out := choose_split(open_members(Path(path), (".tsv", ".jsonl")), split)[1]:
        report["splits left out"] = ", ".join(left_out)
    return dialogues, report


def _turns(
    utterances: list[Utterance], find: FilmIndex, counts: Counter[str], annotated_targets: bool
) -> tuple[Turn, ...]:
    turns: list[tuple[Role, str, tuple[str, ...]]] = []
    for said in utterances:
        counts["utterances read"] += 1
        if not said.text.strip():
            counts["utterances dropped: empty"] += 1
            continue
        films = {film: item for film in dict.fromkeys(said.films) if (item := find(film)) is not None}
        counts["films annotated"] += len(set(said.films))
        counts["films dropped: not in the catalogue"] += len(set(said.films)) - len(films)
        text = _mark(said.text.strip(), films, counts)
        if turns and turns[-1][0] == said.role:
            counts["utterances merged into the turn before"] += 1
            turns[-1] = (said.role, turns[-1][1] + JOIN + text, turns[-1][2] + tuple(films.values()))
        else:
            turns.append((said.role, text, tuple(films.values())))
    return tuple(
        Turn(role, text, targets=tuple(dict.fromkeys(items)) if annotated_targets and role == "assistant" else None)
        for role, text, items in turns
    )


def _mark(text: str, films: Mapping[str, str], counts: Counter[str]) -> str:
    """The text with the films' names replaced by `<item:ID>`, longer names first."""
    spans: list[tuple[int, int, str]] = []
    for film, item in sorted(films.items(), key=lambda pair: -len(pair[0])):
        here = [span for span in _places(text, film) if all(span[1] <= a or b <= span[0] for a, b, _ in spans)]
        counts["mentions linked"] += len(here)
        counts["films dropped: name not in the text"] += not here
        spans += [(start, end, item) for start, end in here]
    out, last = [], 0
    for start, end, item in sorted(spans):
        out += [neutralise(text[last:start]), f"<item:{item}>"]
        last = end
    return "".join(out) + neutralise(text[last:])


def _places(text: str, film: str) -> Iterator[tuple[int, int]]:
    """Where a film's name stands, its year included; an everyday word ("It", "Lol") only with a title's capital."""
    key = title_key(split_year(film)[0])
    sentence = Sentence(text, words(text))
    size = len(words(film))
    first = 0
    while first < len(sentence.parts):
        for last in range(min(first + size + 1, len(sentence.parts)), first, -1):
            run = sentence.parts[first:last]
            if title_key(text[run[0].start : run[-1].end]) != key:
                continue
            end = run[-1].end
            year = _YEAR_BEHIND.match(text, end)
            evidence = sentence.look(first, last)
            plain = len(run) == 1 and (
                text[run[0].start - 1 : run[0].start] == "-" or sentence.name_goes_on(first, last)
            )
            if year or evidence.quoted or (not plain and (evidence.cased or rarity(run) != Rarity.COMMON)):
                yield run[0].start, year.end() if year else end
                first = last - 1
                break
        first += 1
