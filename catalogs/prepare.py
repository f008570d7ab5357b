"""`data prepare` for either data set: official files in; dialogues, their items and one report out.

Knows nothing of flags or printing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gcrs.catalogs.archive import open_members
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import DataError, UsageError

Source = Literal["redial", "inspired"]
MOVIES = "movies_with_mentions"


@dataclass(frozen=True)
class PreparedData:
    """Dialogues, the items that they mention (`columns` types their facts), and what was read, merged and dropped."""

    dialogues: list[Dialogue]
    items: Catalog
    report: dict[str, Any]


def prepare(
    source: Source,
    path: Path,
    *,
    catalog: Catalog | None = None,
    facts: Path | None = None,
    split: str | None = None,
    annotated: bool = False,
    keep_unknown: bool = False,
) -> PreparedData:
    """Read the official files at `path` (zip, directory or one file) as dialogues about `catalog`.

    Without a catalogue the data set's own is made: ReDial's films merged by title and year, with `facts`
    (redial_movie_facts.json) where given, or INSPIRED's films by title with its `facts` (movie_kg_wikidata.json).
    `annotated` makes every film that INSPIRED annotates in an assistant's turn a target of it, named in the words or
    not; `keep_unknown` keeps ReDial's films that `catalog` lacks as items. Raises DataError for files that are missing,
    broken or of another shape, UsageError for `annotated` ReDial and for `keep_unknown` elsewhere.
    """
    report: dict[str, Any] = {}
    if annotated and source != "inspired":
        raise UsageError("--annotated-targets is for inspired: ReDial's dialogues mark their films in the words.")
    if keep_unknown and source != "redial":
        raise UsageError("--keep-unknown is for redial: INSPIRED's films are found by their titles.")
    if source == "redial":
        from gcrs.catalogs.redial_dialogues import prepare_redial

        if catalog is None:
            catalog, report["catalogue"] = _redial_catalog(Path(path), facts, split)
        dialogues, counts = prepare_redial(Path(path), catalog, split, keep_unknown=keep_unknown)
        return PreparedData(dialogues, catalog, {**report, **counts})
    from gcrs.catalogs.inspired import inspired_catalog, prepare_inspired

    if catalog is None:
        catalog, report["catalogue"] = inspired_catalog(Path(path), split, facts)
    dialogues, counts = prepare_inspired(Path(path), catalog, split, annotated_targets=annotated)
    return PreparedData(dialogues, catalog, {**report, **counts})


def _redial_catalog(path: Path, facts: Path | None, split: str | None) -> tuple[Catalog, dict[str, Any] | str]:
    """All of ReDial's films when movies_with_mentions.csv is in or beside `path`, else those the dialogues name."""
    from gcrs.catalogs.redial_catalog import read_redial_catalog
    from gcrs.catalogs.redial_dialogues import redial_items

    if path.is_file() and path.suffix.lower() != ".zip":  # one file of dialogues: the table may lie beside it
        beside = [path.with_name(f"{MOVIES}.csv{end}") for end in ("", ".gz")]
        places = [table for table in beside if table.is_file()]
    else:
        places = [path]
    for place in places:
        try:
            tables = [member for member in open_members(place, (".csv",)) if member.stem == MOVIES]
        except DataError:  # no table here; a broken path is reported by the dialogues' reader
            continue
        if tables:
            with tempfile.TemporaryDirectory() as scratch:  # the member may be inside a zip
                table = Path(scratch, f"{MOVIES}.csv")
                table.write_text("\n".join(tables[0].lines()), encoding="utf-8")
                return read_redial_catalog(table, facts)
    if facts is not None:
        raise DataError(f"{path} has no {MOVIES}.csv, which the facts belong to.", hint="Point at the official zip.")
    items: list[Item] = redial_items(path, split)
    return Catalog(items, {"year": "integer"}), f"no {MOVIES}.csv: the {len(items)} films that the dialogues mention"
