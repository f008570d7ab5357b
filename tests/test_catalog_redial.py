"""ReDial's films: titles cleaned, films merged, doubtful facts refused; on the real files where they are at hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from gcrs.catalogs.redial_catalog import clean_title, read_redial_catalog
from gcrs.catalogs.redial_genres import tidy_genres
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.errors import DataError

MOVIES = """movieId,movieName,nbMentions
1,The Matrix  (1999),50
2,The Matrix ,70
3,Heat (1995),9
4,Heat (1995),9
5,Psycho (1960),5
6,Psycho (1998),1
7,Psycho,3
8,Why Him%3F (2016),1
9, (2015),1
10,Romeo &amp; Juliet,2
"""


def block(**columns: list[str]) -> dict[str, list[str]]:
    return columns


FACTS = {
    "1": {"year": 1999, "wikidata": block(genres=["action film"], directors=["Lana Wachowski"], cast=["Keanu Reeves"])},
    "2": {"year": None, "wikidata": block(genres=["cyberpunk"], cast=["Keanu Reeves", "Hugo Weaving"])},
    "3": {
        "year": 1995,
        "wikidata": block(directors=["Michael Mann"]),
        "imdb": {**block(director=["Mann, Michael"]), "plot": "secret"},
    },
    "5": {"year": 1960, "wikidata": block(directors=["Someone Else"]), "imdb": block(director=["Alfred Hitchcock"])},
    "6": {
        "year": 1998,
        "imdb_id": "tt1",
        "wikidata": block(directors=["Gus Van Sant"]),
        "imdb": {**block(director=["Alfred Hitchcock"]), "imdb_id": "tt2"},
    },
    "7": {"year": 1960, "wikidata": block(genres=["horror film"])},
    "8": {"year": 2012, "wikidata": block(genres=["comedy film"])},
    "10": {"year": None, "movielens_id": 7, "wikidata": block(companies=["A  B", "", "A B"])},
}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "movies.csv").write_text(MOVIES, encoding="utf-8")
    (tmp_path / "facts.json.gz").write_bytes(gzip.compress(json.dumps(FACTS).encode()))
    return tmp_path / "movies.csv", tmp_path / "facts.json.gz"


def test_merging_keeps_every_id(small: tuple[Path, Path]) -> None:
    catalog, report = read_redial_catalog(*small)
    assert [item.id for item in catalog] == ["2", "3", "5", "6", "7", "8", "9", "10"]
    assert all(catalog.canonical(str(n)) for n in range(1, 11))
    matrix = catalog["1"]
    assert (matrix.id, matrix.label, matrix.aliases) == ("2", "The Matrix (1999)", ("1",))
    assert matrix.facts == {
        "year": 1999,
        "genres": ["action", "cyberpunk"],
        "directors": ["Lana Wachowski"],
        "cast": ["Keanu Reeves", "Hugo Weaving"],
    }
    assert catalog["4"].id == "3"  # the same name, year and count of mentions: the smallest id
    assert catalog["7"].label == "Psycho"  # two candidates: it stays apart
    assert report["read"] == 10 and report["merged"] == 2 and report["catalogue"] == 8
    assert report["without_year"] == 2 and report["near_duplicates"] == 2


def test_facts_that_are_not_trusted(small: tuple[Path, Path], tmp_path: Path) -> None:
    catalog, report = read_redial_catalog(*small)
    assert catalog["5"].facts == {"year": 1960}  # the two sources name different people
    assert catalog["6"].facts["directors"] == ["Gus Van Sant"]  # … but here one of them is known to be of another film
    assert catalog["8"].facts == {"year": 2016}  # title and record are four years apart
    assert report["facts_refused"] == {
        "years disagree": 1,
        "sources name different people": 1,
        "merged films disagree": 0,
    }
    assert catalog["3"].facts == {"year": 1995, "directors": ["Michael Mann"]}
    assert catalog["10"].facts == {"companies": ["A B"]}
    assert "secret" not in repr(catalog.items)
    movielens = tmp_path / "ml.csv"
    movielens.write_text("movieId,title,genres\n7,Romeo + Juliet (1996),Drama\n", encoding="utf-8")
    checked, _ = read_redial_catalog(*small, movielens)
    assert checked["10"].facts == {"companies": ["A B"]}  # MovieLens checks years, it gives none


def test_titles() -> None:
    assert clean_title("Why Did I Get Married%3F (2007)") == ("Why Did I Get Married?", 2007)
    assert clean_title("Headhunter  (2009)") == ("Headhunter", 2009)
    assert clean_title("Romeo &amp; Juliet") == ("Romeo & Juliet", None)
    assert clean_title("2001: A Space Odyssey ") == ("2001: A Space Odyssey", None)
    assert clean_title(" (2015)") == ("", 2015)
    assert clean_title("1922 ") == ("1922", None)


def test_films_without_a_name_resolve_and_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("movieId,movieName,nbMentions\n1, (2015),1\n2, (2015),1\n", encoding="utf-8")
    catalog, _ = read_redial_catalog(tmp_path / "m.csv")
    assert [item.title for item in catalog] == ["Untitled", "Untitled"]


@pytest.mark.parametrize(
    ("labels", "genres"),
    [
        (["comedy film", "film based on a novel"], ["comedy"]),
        (["romantic comedy"], ["romantic comedy", "comedy", "romance"]),
        (["science fiction film"], ["science fiction"]),
        (["fantasy anime and manga"], ["fantasy", "anime"]),
        (["horror television film", "horror film"], ["horror"]),
        (["Western film", "children's film", "LGBT-related film"], ["western", "children", "lgbt"]),
        (["coming-of-age fiction", "speculative fiction film"], ["coming of age"]),
        (["crime-comedy film"], ["crime comedy", "comedy", "crime"]),
        (["film"], []),
    ],
)
def test_genres_are_words_that_people_type(labels: list[str], genres: list[str]) -> None:
    assert tidy_genres(labels) == genres


def test_broken_files(tmp_path: Path, small: tuple[Path, Path]) -> None:
    movies, facts = small
    bad = tmp_path / "bad"
    for content, expected in (
        (b"id,name\n1,A\n", "movieId, movieName, nbMentions were expected"),
        (b"movieId,movieName,nbMentions\nx,A,1\n", "line 2"),
        (b"movieId,movieName,nbMentions\n1,A,1\n1,B,1\n", "line 3: movieId 1 appears a second time"),
        (b"movieId,movieName,nbMentions\n", "holds no films"),
        (gzip.compress(MOVIES.encode(), mtime=0)[:40], "cannot be read"),
    ):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=expected):
            read_redial_catalog(bad, facts)
    bad.write_text("[1")
    with pytest.raises(DataError, match="not valid JSON"):
        read_redial_catalog(movies, bad)
    with pytest.raises(DataError, match="cannot be read"):
        read_redial_catalog(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def real(real_data: Path) -> tuple[Catalog, dict[str, object]]:
    return read_redial_catalog(
        real_data / "redial" / "movies_with_mentions.csv", real_data / "movies" / "redial_movie_facts.json.gz"
    )


@pytest.mark.real
def test_the_real_catalogue(real: tuple[Catalog, dict[str, object]], real_data: Path) -> None:
    catalog, report = real
    source = (real_data / "redial" / "movies_with_mentions.csv").read_text(encoding="utf-8").splitlines()[1:]
    ids = [line.split(",")[0] for line in source]
    assert len(ids) == report["read"] == 6924
    assert all(item_id in catalog for item_id in ids)
    assert sum(1 + len(item.aliases) for item in catalog) == 6924
    assert catalog["140395"].label == "The Matrix (1999)"
    assert catalog["76481"].facts["directors"] == ["William Friedkin"]


@pytest.mark.real
def test_the_real_catalogue_holds_what_may_ship_and_no_more(real: tuple[Catalog, dict[str, object]]) -> None:
    catalog, _ = real
    assert set(catalog.columns) == {"year", "genres", "directors", "cast", "companies"}
    assert all(set(item.facts) <= set(catalog.columns) for item in catalog)
    assert all("%" not in item.title and "  " not in item.title and item.title for item in catalog)
    assert not any(genre.endswith(" film") for item in catalog for genre in item.facts.get("genres", []))  # type: ignore[union-attr]
