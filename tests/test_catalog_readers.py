"""Catalogue files: what is read, and the one sentence that bad input gets."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.catalog.columns import MAX_CELL, conform, parse_date
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.readers import read_items, write_items
from gcrs.toolkit.errors import DataError

CSV = """id,title,year,genres,score,rental,released
m1,The Matrix,1999,action|science fiction,8.7,true,1999-03-31
m2,"Crouching Tiger, Hidden Dragon",2000,action,,false,2000-07-06
m3,Amélie,2001,,8,TRUE,
"""
TYPES = {"year": "integer", "genres": "list", "score": "number", "rental": "boolean", "released": "date"}
ITEMS = (
    Item(
        "m1",
        "The Matrix",
        {
            "year": 1999,
            "genres": ["action", "science fiction"],
            "score": 8.7,
            "rental": True,
            "released": "1999-03-31",
        },
    ),
    Item(
        "m2",
        "Crouching Tiger, Hidden Dragon",
        {"year": 2000, "genres": ["action"], "rental": False, "released": "2000-07-06"},
    ),
    Item("m3", "Amélie", {"year": 2001, "score": 8.0, "rental": True}),
)


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def json_lines(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.fixture(params=["items.csv", "items.csv.gz", "items.tsv", "items.jsonl", "items.jsonl.gz", "items.parquet"])
def catalogue_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """ITEMS in each format."""
    name = request.param
    path = tmp_path / name
    rows = [{"id": item.id, "title": item.title, **item.facts} for item in ITEMS]
    if name.endswith(".parquet"):
        full = [
            {"id": row["id"], "title": row["title"], **{column: row.get(column) for column in TYPES}} for row in rows
        ]
        pq.write_table(pa.Table.from_pylist(full), path)
        return path
    text = json_lines(*rows) if "jsonl" in name else CSV
    if name.endswith(".tsv"):
        text = CSV.replace('"Crouching Tiger, Hidden Dragon"', "Crouching Tiger; Hidden Dragon").replace(",", "\t")
        text = text.replace(";", ",")
    return put(tmp_path, name, gzip.compress(text.encode()) if name.endswith(".gz") else text)


def test_every_format_gives_the_same_catalogue(catalogue_file: Path) -> None:
    catalog = read_items(catalogue_file)
    assert catalog.items == ITEMS
    assert catalog.columns == TYPES


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "string": st.text(min_size=1).filter(str.strip),
    "date": st.dates().map(str),
    "list": st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool), min_size=1, unique=True
    ),
}


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    names = draw(st.lists(st.sampled_from(["a", "year", "genres", "Größe", "x y"]), unique=True, max_size=3))
    columns = {name: draw(st.sampled_from(sorted(VALUES))) for name in names}
    ids = draw(st.lists(st.from_regex(r"[A-Za-z0-9_.:/-]{1,8}", fullmatch=True), unique=True, min_size=1, max_size=6))
    n_items = draw(st.integers(1, len(ids)))
    items = []
    for position, item_id in enumerate(ids[:n_items]):
        facts = {name: draw(VALUES[kind]) for name, kind in columns.items() if draw(st.booleans())}
        aliases = tuple(ids[n_items:]) if position == 0 else ()
        items.append(Item(item_id, draw(st.from_regex(r"\w(\w| \w){0,9}", fullmatch=True)), facts, aliases, ("other",)))
    return Catalog(items, columns)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(catalog=catalogs())
def test_what_is_written_is_read_back(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("round") / "items.jsonl"
    write_items(catalog, path)
    again = read_items(path)
    assert again.items == catalog.items
    assert again.columns == catalog.columns


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", "is empty"),
    "no_items.csv": ("id,title\n", "holds no items"),
    "items.txt": ("id,title\n1,A\n", r"has the suffix .txt, expected .csv"),
    "array.json": ("[]", r"has the suffix .json.*one object a line"),
    "no_id.csv": ("key,title\n1,A\n", "line 1: found the columns key, title, expected also id"),
    "no_title.jsonl": (json_lines({"id": "1"}), "line 1: found no 'title'"),
    "empty_id.csv": ("id,title\n1,A\n ,B\n", "line 3, column 'id': found ''"),
    "blank_id.csv": ("id,title\na b,A\n", "line 2, column 'id': found 'a b'"),
    "empty_title.jsonl": (json_lines({"id": 1, "title": "A"}, {"id": 2, "title": " "}), "line 2.*an empty title"),
    "null_title.jsonl": (json_lines({"id": 1, "title": None}), "line 1, column 'title': found nothing"),
    "twice.csv": ("id,title\nx,A\ny,B\nx,C\n", r"line 4.*'x' a second time.*first in line 2"),
    "column_twice.csv": ("id,title,a,a\n1,A,2,3\n", "'a' twice"),
    "column_nameless.csv": ("id,title,\n1,A,2\n", "no name for column 3"),
    "utf8.csv": (b"id,title\n1,Fine\n2,Am\xe9lie\n", "line 3: found the byte 0xe9 at position 5, expected UTF-8"),
    "utf16.csv": ("id,title\n1,A\n".encode("utf-16"), "UTF-16"),
    "nul.csv": (b"id,title\n1,A\x00B\n", "line 2: found a NUL byte"),
    "ragged.csv": ("id,title,year\n1,A,1999\n2,B\n", "line 3: found 2 cells, expected 3"),
    "open_quote.csv": ('id,title\n1,A\n2,"B\n3,C\n', "line 3: not valid CSV.*truncated"),
    "mixed.csv": (
        "id,title,year\n1,A,1999\n2,B,2001\n3,C,soon\n",
        "line 4, column 'year': found 'soon', expected an integer",
    ),
    "mixed.jsonl": (
        json_lines(*({"id": i, "title": "A", "year": y} for i, y in enumerate([1999, "2001", 2002]))),
        "line 2, column 'year': found the string '2001', expected an integer",
    ),
    "nested.jsonl": (json_lines({"id": 1, "title": "A", "x": {"y": 1}}), "line 1, column 'x': found a nested object"),
    "huge.jsonl": (json_lines({"id": 1, "title": "A", "x": 2**70}), "column 'x'.*at most 64 bits"),
    "truncated.jsonl": (json_lines({"id": 1, "title": "A"}) + '{"id": 2, "ti', "line 2: not valid JSON.*truncated"),
    "scalar.jsonl": ("3\n", "line 1: found 3, expected one JSON object"),
    "newer.jsonl": (json_lines({"gcrs": "items", "version": 9, "columns": {}}), "expected gcrs items of version 1"),
    "cell.csv": (f"id,title,text\n1,A,b\n2,B,{'x' * 10_000_000}\n", "line 3: found a cell of more than 1,000,000"),
    "cell.jsonl": (
        json_lines({"id": 1, "title": "A", "t": "x" * 10_000_000}),
        "column 't': found a cell of 10,000,000",
    ),
    "line.jsonl": (b"x" * 17_000_000, "line 1: longer than 16,000,000 bytes"),
    "long_title.csv": (f"id,title\n1,{'x' * 1001}\n", "column 'title': found a title of 1,001 characters"),
    "short.csv.gz": (gzip.compress(CSV.encode(), mtime=0)[:60], "truncated gzip"),
    "really.csv": (gzip.compress(CSV.encode(), mtime=0), "holds gzip, expected text"),
    "really.csv.gz": (CSV, "holds text, expected gzip"),
    "really.parquet": (CSV, "holds text, expected Parquet"),
    "short.parquet": (b"PAR1\x15\x04\x15", "truncated Parquet"),
    "typed.csv": ("id,title,year:integer\n1,A,late\n", "column 'year': found 'late', expected an integer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name: str, tmp_path: Path) -> None:
    content, expected = BAD[name]
    path = put(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_items(path)
    assert caught.value.exit_code == 3
    assert re.search(expected, str(caught.value)), str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_items(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a directory"):
        read_items(tmp_path)


def test_bad_parquet_columns(tmp_path: Path) -> None:
    for column, expected in (
        ([b"x"], "found binary"),
        ([{"a": 1}], "found struct"),
        ([[1], [None]], "row 2, column 'id'"),
    ):
        n = len(column)
        ids = pa.array(["1", None][:n])
        pq.write_table(pa.table({"id": ids, "title": ["A"] * n, "x": column}), tmp_path / "bad.parquet")
        with pytest.raises(DataError, match=expected):
            read_items(tmp_path / "bad.parquet")


def test_what_spreadsheets_write_is_accepted(tmp_path: Path) -> None:
    text = "\ufeffID;Title;Year\r\n1;Zoé;1999\r\n\r\n2;Up;\r\n"
    assert read_items(put(tmp_path, "excel.csv", text)).items == (
        Item("1", "Zoé", {"Year": 1999}),
        Item("2", "Up", {}),
    )


def test_a_cell_with_line_ends_keeps_later_line_numbers_right(tmp_path: Path) -> None:
    path = put(tmp_path, "multi.csv", 'id,title,note\n1,A,"two\nlines"\n1,B,x\n')
    with pytest.raises(DataError, match=r"line 4.*first in line 2"):
        read_items(path)


@pytest.mark.parametrize(
    ("header", "cells", "kind", "values"),
    [
        ("x", ["1", "2.5", "-3e2"], "number", [1.0, 2.5, -300.0]),
        ("x", ["007", "008", "10"], "string", ["007", "008", "10"]),
        ("x", ["300", "Up", "Her"], "string", ["300", "Up", "Her"]),
        ("x:string", ["1", "2", "3"], "string", ["1", "2", "3"]),
        ("x[]", ["comedy", "", "drama"], "list", [["comedy"], None, ["drama"]]),
        ("x", ["a|b", "c", "a|a"], "list", [["a", "b"], ["c"], ["a"]]),
        ("x", ["a | b", "c", "d|e"], "string", ["a | b", "c", "d|e"]),
        ("x", ['["a"; "b"]', "", ""], "string", ['["a"; "b"]', None, None]),
        ("x", ["['a']", "[]", ""], "string", ["['a']", "[]", None]),
        ("x", ["", "", ""], "string", [None, None, None]),
        ("x", ["2024-02-30", "b", "c"], "string", ["2024-02-30", "b", "c"]),
        ("x", ["2024-05-31T10:00+02:00", "2024-05-31", ""], "date", ["2024-05-31T08:00:00Z", "2024-05-31", None]),
    ],
)
def test_csv_column_types(header: str, cells: list[str], kind: str, values: list[object], tmp_path: Path) -> None:
    text = f"id,title,{header}\n" + "".join(f'{i},T,"{c.replace(chr(34), chr(34) * 2)}"\n' for i, c in enumerate(cells))
    catalog = read_items(put(tmp_path, "column.csv", text))
    assert catalog.columns == {"x": kind}
    assert [item.facts.get("x") for item in catalog] == values


def test_pandas_integers_with_gaps_are_integers(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "title": "A", "year": 1999.0, "tags": None},
        {"id": 2, "title": "B", "year": None, "tags": [3, "x"]},
    ]
    catalog = read_items(put(tmp_path, "pandas.jsonl", json_lines(*rows)))
    assert catalog.columns == {"year": "integer", "tags": "list"}
    assert catalog["1"].label == "A (1999)"
    assert catalog["2"].facts == {"tags": ["3", "x"]}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_items(Catalog(ITEMS, TYPES), path)  # type: ignore[arg-type]
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_items(Catalog([Item("x", "X", {"bad": object()})]), path)  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["items.jsonl"]


def test_new_facts_must_fit_the_fixed_types() -> None:
    columns = dict(TYPES)
    fitting = conform([("year", 2003), ("score", 7), ("genres", ["a", "a"]), ("released", "2003-01-02")], columns, "m9")  # type: ignore[arg-type]
    assert fitting == {"year": 2003, "score": 7.0, "genres": ["a"], "released": "2003-01-02"}
    with pytest.raises(DataError, match=r"found the string 'old', expected an integer"):
        conform([("year", "old")], columns, "m9")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="does not have"):
        conform([("colour", "red")], columns, "m9")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_items_that_join_take_the_catalogues_types(suffix: str, tmp_path: Path) -> None:
    """One value decides nothing: a list of one entry, a whole number and a year with gaps are what they were before."""
    fixed: dict[str, Any] = {"genres": "list", "score": "number", "year": "integer", "code": "string"}
    path = tmp_path / f"new.{suffix}"
    if suffix == "csv":
        path.write_text("id,title,genres,score,year,code\na,A,drama,8,,7\nb,B,,,1999,\n", encoding="utf-8")
    elif suffix == "jsonl":
        rows = {"id": "a", "title": "A", "genres": ["drama"], "score": 8, "code": "7"}, {"id": "b", "title": "B"}
        path.write_text(json_lines(rows[0], {**rows[1], "year": 1999}), encoding="utf-8")
    else:
        columns = {"id": ["a", "b"], "title": ["A", "B"], "genres": [["drama"], None], "score": [8, None]}
        pq.write_table(pa.table({**columns, "year": [None, 1999.0], "code": ["7", None]}), path)
    read = read_items(path, fixed=fixed)
    assert read["a"].facts == {"genres": ["drama"], "score": 8.0, "code": "7"} and read["b"].facts == {"year": 1999}
    assert type(read["b"].facts["year"]) is int and read.columns == {name: fixed[name] for name in read.columns}
    for kept, message in (
        ({"genres": "list", "score": "number", "year": "integer", "codes": "string"}, "Nearest: codes"),
        ({**fixed, "genres": "integer"}, "column 'genres': found "),
        ({}, "Its columns: none"),
    ):
        with pytest.raises(DataError, match=message):
            read_items(path, fixed=kept)  # type: ignore[arg-type]


def test_dates_have_one_spelling() -> None:
    assert parse_date("2024-05-31 10:00") == "2024-05-31T10:00:00"
    assert parse_date("2024-13-01") is None
    assert parse_date("20240531") is None


def test_the_limit_itself_is_accepted(tmp_path: Path) -> None:
    catalog = read_items(put(tmp_path, "limit.jsonl", json_lines({"id": 1, "title": "A", "t": "x" * MAX_CELL})))
    assert len(str(catalog["1"].facts["t"])) == MAX_CELL
