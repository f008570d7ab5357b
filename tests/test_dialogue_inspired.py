"""INSPIRED's files become dialogues, from the original table and from the DBpedia variant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gcrs.catalogs.inspired import inspired_catalog, prepare_inspired
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.readers import read_items, write_items
from gcrs.toolkit.errors import DataError

ROWS = [
    ("d1", "RECOMMENDER", "Have you seen knives out (2019)?", "Knives Out (2019)"),
    ("d1", "RECOMMENDER", "It stars nobody. Greetings!", "It (1990)"),
    ("d1", "SEEKER", "QUOTATION_MARKItQUOTATION_MARK or The Joker", "It (1990); Joker (2019)"),
    ("d2", "SEEKER", "something funny", "Up (2009)"),
]
CATALOG = Catalog(
    [Item("k", "Knives Out", {"year": 2019}), Item("i", "It", {"year": 1990}), Item("j", "Joker", {"year": 2012})]
)


def table(folder: Path) -> Path:
    lines = ["dialog_id\tutt_id\tspeaker\ttext\tmovies"]
    lines += [f"{d}\t{n}\t{who}\t{text}\t{films}" for n, (d, who, text, films) in enumerate(ROWS)]
    (folder / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "dev.tsv"


def test_the_original_table(tmp_path: Path) -> None:
    (one, two), report = prepare_inspired(table(tmp_path), None)
    assert [(t.role, t.text) for t in one.turns] == [
        ("assistant", "Have you seen <item:knives-out-2019>?\nIt stars nobody. Greetings!"),
        ("user", '"<item:it-1990>" or <item:joker-2019>'),
    ]
    assert two.turns[0].text == "something funny"
    assert report["utterances merged into the turn before"] == 1
    assert report["films annotated"] == 5
    assert report["films dropped: name not in the text"] == 2
    assert report["mentions linked"] == 3


def test_films_map_to_the_catalogue_by_name_and_year(tmp_path: Path) -> None:
    (one, _), report = prepare_inspired(table(tmp_path), CATALOG, annotated_targets=True)
    assert one.turns[0].mentions == ("k",)
    assert one.turns[1].text == '"<item:i>" or The Joker'  # another year: another film
    assert one.turns[0].targets == ("k", "i")
    assert one.turns[1].targets is None
    assert report["films dropped: not in the catalogue"] == 2


def test_the_dbpedia_variant_and_the_films_found(tmp_path: Path) -> None:
    said = [
        {"text": "Try Heat <item:x>", "role": "RECOMMENDER", "movie": ["Heat (1995)"]},
        {"text": "", "role": "SEEKER"},
    ]
    path = tmp_path / "train_data_dbpedia.jsonl"
    path.write_text(json.dumps(said) + "\n", encoding="utf-8")
    (one,), report = prepare_inspired(path, None)
    assert one.id == "train-1"
    assert one.turns[0].text == "Try <item:heat-1995> < item:x>"
    assert report["utterances dropped: empty"] == 1
    assert [(i.id, i.title, dict(i.facts)) for i in inspired_catalog(path)[0]] == [
        ("heat-1995", "Heat", {"year": 1995})
    ]


def test_facts_make_a_catalogue_that_does_not_depend_on_the_split(tmp_path: Path) -> None:
    records = {
        "Knives Out (2019)": {
            "year": 2019,
            "genres": ["comedy film", "film based on a novel"],
            "casts": ["Ana de Armas"],
            "directors": ["Rian  Johnson"],
            "productionCompanies": [],
        },
        "Joker (2019)": {"year": 1990, "genres": ["drama film"]},  # the record of another film
        "Heat (1995)": {},
    }
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(records), encoding="utf-8")
    catalog, report = inspired_catalog(table(tmp_path), facts=facts)
    assert [item.id for item in catalog] == ["heat-1995", "it-1990", "joker-2019", "knives-out-2019", "up-2009"]
    assert dict(catalog["knives-out-2019"].facts) == {
        "year": 2019,
        "genres": ["comedy"],
        "directors": ["Rian Johnson"],
        "cast": ["Ana de Armas"],
    }
    assert dict(catalog["joker-2019"].facts) == {"year": 2019}
    assert report == {"films": 5, "films without facts": 4, "facts refused: years disagree": 1}


def test_the_catalogue_that_is_made_can_be_read_back(tmp_path: Path) -> None:
    write_items(inspired_catalog(table(tmp_path))[0], tmp_path / "films.jsonl")
    assert read_items(tmp_path / "films.jsonl")["up-2009"].facts == {"year": 2009}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "x\ty\n1\t2\n", "no column 'dialog_id'"),
        ("a.tsv", "dialog_id\tspeaker\ttext\tmovies\nd\tSEEKER\n", "line 2: too few columns"),
        ("a.tsv", "dialog_id\tspeaker\ttext\tmovies\nd\tGHOST\thi\t\n", "the speaker is 'GHOST'"),
        ("a.jsonl", '{"text": "hi"}\n', "expected a list of utterances"),
        ("a.jsonl", "", "has no dialogues"),
    ],
)
def test_other_shapes_are_one_sentence(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        prepare_inspired(tmp_path / name, None)


@pytest.mark.real
def test_the_real_splits(real_data: Path) -> None:
    found, report = prepare_inspired(real_data / "inspired", None, "dev")
    assert len(found) == 99
    assert report["mentions linked"] > 400
    assert len(prepare_inspired(real_data / "inspired", None, "valid")[0]) == 99


@pytest.mark.real
def test_the_real_facts(real_data: Path) -> None:
    catalog, report = inspired_catalog(
        real_data / "inspired", "train", real_data / "inspired/movie_kg_wikidata.json.gz"
    )
    assert len(catalog) == report["films"] == 1864
    assert report["films without facts"] < 150
    assert catalog["pan-s-labyrinth-2006"].facts["directors"] == ["Guillermo del Toro"]
