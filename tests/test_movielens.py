"""MovieLens' files become ratings of a catalogue's films."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from gcrs.catalogs.inspired import inspired_catalog
from gcrs.catalogs.movielens import prepare_movielens, spellings
from gcrs.cli import main
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.readers import write_items
from gcrs.toolkit.dialogue.ratings import read_ratings
from gcrs.toolkit.errors import DataError

CATALOG = Catalog(
    [
        Item("m", "The Matrix", {"year": 1999}),
        Item("s", "Se7en", {"year": 1995}),
        Item("h", "Heat", {"year": 1986}),
        Item("c", "Amélie", {"year": 2001}),
    ],
    {"year": "integer"},
)
MOVIES = """movieId,title,genres
1,"Matrix, The (1999)",Action
2,Seven (a.k.a. Se7en) (1995),Thriller
3,Heat (1995),Action
4,"Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)",Comedy
"""
RATINGS = "userId,movieId,rating,timestamp\n1,1,5.0,9\n1,2,1.0,9\n1,3,4.0,9\n2,4,3.5,9\n2,99,3.0,9\n"


def folder(where: Path, movies: str = MOVIES, ratings: str = RATINGS) -> Path:
    (where / "ml").mkdir()
    (where / "ml" / "movies.csv").write_text(movies, encoding="utf-8")
    (where / "ml" / "ratings.csv").write_text(ratings, encoding="utf-8")
    return where / "ml"


def test_films_are_found_by_name_and_year(tmp_path: Path) -> None:
    report = prepare_movielens(folder(tmp_path), CATALOG, tmp_path / "out.csv")
    written = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert written == ["user,item,rating", "1,m,5.0", "1,s,1.0", "2,c,3.5"]  # that Heat is another film
    assert report == {
        "films read": 4,
        "films of the catalogue": 3,
        "items rated": 3,
        "ratings read": 5,
        "ratings written": 3,
        "ratings left out: not in the catalogue": 2,
        "people": 2,
    }
    tastes = read_ratings(tmp_path / "out.csv", lambda item: item)
    assert [(taste.liked, taste.disliked) for taste in tastes] == [(("m",), ("s",)), (("c",), ())]


def test_names_in_brackets_are_tried() -> None:
    assert spellings("Seven (a.k.a. Se7en) (1995)") == [
        "Seven (a.k.a. Se7en) (1995)",
        "Seven (1995)",
        "Se7en (1995)",
    ]
    assert spellings("Toy Story") == ["Toy Story"]


def test_the_zip_and_the_folder_give_the_same_bytes(tmp_path: Path) -> None:
    plain = folder(tmp_path)
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as packed:
        for name in ("movies.csv", "ratings.csv"):
            packed.write(plain / name, f"ml-latest-small/{name}")
    prepare_movielens(plain, CATALOG, tmp_path / "a.csv")
    prepare_movielens(tmp_path / "ml.zip", CATALOG, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("movies", "ratings", "message"),
    [
        ("id,name\n1,x\n", RATINGS, "movies.csv has no column 'movieId'; its first line is 'id,name'."),
        (MOVIES, "userId,movieId\n1,1\n", "ratings.csv has no column 'rating'"),
        (MOVIES, "userId,movieId,rating,timestamp\n1,1\n", "ratings.csv, line 2: too few columns, expected 4."),
        (MOVIES, "userId,movieId,rating,timestamp\n1,3,4.0,9\n", "rates none of this catalogue's 4 films"),
    ],
)
def test_other_shapes_are_one_sentence_and_write_nothing(
    tmp_path: Path, movies: str, ratings: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare_movielens(folder(tmp_path, movies, ratings), CATALOG, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml"]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    plain = folder(tmp_path)
    (plain / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"has no movies\.csv"):
        prepare_movielens(plain, CATALOG, tmp_path / "out.csv")


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, films = folder(tmp_path), tmp_path / "films.jsonl"
    write_items(CATALOG, films)
    asked = ["data", "prepare", "movielens", str(plain), "--out", str(tmp_path / "r.csv")]
    assert main([*asked, "--catalog", str(films), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["ratings written"] == 3
    assert main(asked) == 2
    assert "MovieLens' ratings need --catalog" in capsys.readouterr().err
    assert main([*asked, "--catalog", str(films), "--split", "test"]) == 2
    assert "--split goes with dialogues, MovieLens has ratings." in capsys.readouterr().err


@pytest.mark.real
def test_the_real_ratings(real_data: Path, tmp_path: Path) -> None:
    films = inspired_catalog(real_data / "inspired", "train", real_data / "inspired/movie_kg_wikidata.json.gz")[0]
    report = prepare_movielens(real_data / "movielens", films, tmp_path / "r.csv")
    assert report["films of the catalogue"] > 850
    assert report["ratings written"] + report["ratings left out: not in the catalogue"] == 100_836
