"""What `gcrs catalog check` finds, what `catalog build` refuses, and which columns the encoder reads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gcrs.cli import main
from gcrs.toolkit.catalog.duplicates import near_duplicates
from gcrs.toolkit.catalog.findings import Finding
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact, Item
from gcrs.toolkit.catalog.languages import language_of, scripts_of
from gcrs.toolkit.catalog.text_columns import text_columns
from gcrs.toolkit.check import check_catalog
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.ids.build import build_codebook
from gcrs.toolkit.prepared import PreparedCatalog

TODAY = "2026-11-25"
GENRES = ("horror", "comedy", "crime")


def catalog_of(columns: dict[str, tuple[ColumnType, list[Fact | None]]], titles: list[str] | None = None) -> Catalog:
    """Items `i0`, `i1`, …, with a genre each and these columns."""
    n = len(next(iter(columns.values()))[1]) if columns else len(titles or [])
    titles = titles or [f"{chr(97 + k % 26) * 3}{k * k} film" for k in range(n)]
    facts: list[dict[str, Fact]] = [{"genre": GENRES[k % 3]} for k in range(n)]
    for column, (_, values) in columns.items():
        for row, value in zip(facts, values, strict=True):
            if value is not None:
                row[column] = value
    items = [Item(f"i{k}", title, row) for k, (title, row) in enumerate(zip(titles, facts, strict=True))]
    return Catalog(items, {"genre": "string", **{column: kind for column, (kind, _) in columns.items()}})


def found(catalog: Catalog, prepared: PreparedCatalog | None = None) -> dict[str, Finding]:
    return {finding.code: finding for finding in check_catalog(catalog, prepared, today=TODAY)}


def test_a_sound_catalogue_has_no_findings() -> None:
    assert found(catalog_of({"year": ("integer", [1980 + k for k in range(30)])})) == {}


def cases() -> dict[str, tuple[Catalog, str, int]]:
    """Finding code -> a catalogue that has it, its severity and its count."""
    n = 30
    half: list[Fact | None] = [k % 2 == 0 for k in range(n)]
    dates: list[Fact | None] = ["2026-01-01" if k < 20 else "2027-01-01" for k in range(n)]
    prices: list[Fact | None] = [f"{k + 1}.99 USD" for k in range(n)]
    html: list[Fact | None] = ["<p>Soft</p>" if k < 7 else f"cloth {k % 4}" for k in range(n)]
    return {
        "same-title": (catalog_of({}, ["Heat", "heat!", *(f"{GENRES[k % 3]} {k * k}" for k in range(40))]), "note", 2),
        "read-alike": (catalog_of({}, ["Gift card"] * 12), "warning", 12),
        "near-duplicates": (
            catalog_of({}, ["The Big Film", "Big Film", *(f"{k} x" for k in range(10))]),
            "note",
            1,
        ),
        "few-items": (catalog_of({}, ["One", "Another", "Third"]), "note", 3),
        "long-title": (catalog_of({}, [f"{'very ' * 13}long {k}" for k in range(12)]), "warning", 12),
        "html-in-title": (catalog_of({}, ["<b>A</b> film", *(f"{k * k} x" for k in range(12))]), "warning", 1),
        "one-value": (catalog_of({"label": ("string", ["same"] * n)}), "note", n),
        "mostly-empty": (catalog_of({"label": ("string", ["x", "y", *[None] * 28])}), "note", 2),
        "all-different": (catalog_of({"maker": ("string", [f"name of {k}" for k in range(n)])}), "note", n),
        "html": (catalog_of({"text": ("string", html)}), "note", 7),
        "cut": (catalog_of({"text": ("string", [f"{k} " + "word " * 100 for k in range(n)])}), "note", n),
        "price-as-text": (catalog_of({"price": ("string", prices)}), "warning", n),
        "several-currencies": (catalog_of({"currency": ("string", ["USD", "EUR"] * 15)}), "warning", n),
        "out-of-stock": (catalog_of({"in_stock": ("boolean", half)}), "note", 15),
        "expired": (catalog_of({"expiration_date": ("date", dates)}), "warning", 20),
        "variants": (catalog_of({"item_group_id": ("string", [f"G{k // 3}" for k in range(n)])}), "warning", n),
        "not-read": (catalog_of({"link": ("string", [f"https://s.example/{k}" for k in range(n)])}), "note", 1),
        "script": (catalog_of({}, [f"七人の侍 {k}" for k in range(12)]), "warning", 12),
    }


@pytest.mark.parametrize("code", cases())
def test_what_hurts_is_found(code: str) -> None:
    catalog, severity, count = cases()[code]
    finding = found(catalog)[code]
    assert (finding.severity, finding.count) == (severity, count)
    assert finding.message.endswith(".") and finding.hint.endswith(".")
    assert all(item in catalog for item in finding.items)


def test_a_stock_of_zero_is_told_with_its_rule() -> None:
    finding = found(catalog_of({"stock": ("integer", [k % 3 for k in range(30)])}))["out-of-stock"]
    assert finding.count == 10 and "--where 'stock>0'" in finding.hint


def test_items_without_text_and_row_numbers() -> None:
    catalog = Catalog([Item(str(k + 1), f"{k * k} title") for k in range(12)])
    assert list(found(catalog)) == ["without-text", "row-numbers"]
    assert found(catalog)["without-text"].count == 12


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("German", "Eine Geschichte von der Liebe und dem Leben auf dem Land, mit vielen Figuren und nicht ohne Witz"),
        ("French", "Une histoire sur les gens et la vie dans le village, avec des amis pour toujours"),
        ("English", "A story of love and life in the country, with many people for you and your friends"),
        (None, "Kettle steel 1.7 l black"),
    ],
)
def test_languages(language: str | None, text: str) -> None:
    assert language_of([text]) == language
    assert scripts_of([text]) == {"Latin": 1.0}
    catalog = catalog_of({"text": ("string", [f"{text} {k}" for k in range(12)])})
    assert ("language" in found(catalog)) == (language in ("German", "French"))


def test_the_ids_of_a_prepared_catalogue_are_looked_at() -> None:
    import numpy as np

    catalog = catalog_of({"year": ("integer", [1980 + k for k in range(12)])})
    vectors = np.repeat(np.random.default_rng(0).standard_normal((2, 8)), 6, axis=0)
    quantizer, book, report = build_codebook(vectors, [item.id for item in catalog], levels=2, codes=16)
    settings = {"text": {"columns": ["genre", "year"]}, "encoder": {"name": "minilm", "max_tokens": 256}}
    prepared = PreparedCatalog(catalog, book, quantizer, settings, report.to_json(), report)
    assert list(found(catalog, prepared)) == ["collisions", "near-identical", "sparse-codes"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            ["1,Alien,horror"],
            "The catalogue holds one item, 'Alien': there is nothing to choose from. Bring at least two.",
        ),
        (
            [f"{k},Gift card,card" for k in range(2000)],
            "All 2,000 items have the title 'Gift card' and the same facts: nothing tells them apart. Add a column in "
            "which they differ, or keep one of them.",
        ),
    ],
)
def test_nothing_to_choose_is_one_sentence(
    rows: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, out = tmp_path / "items.csv", tmp_path / "out"
    items.write_text("\n".join(["id,title,genre", *rows]) + "\n", encoding="utf-8")
    assert main(["catalog", "build", str(items), "--out", str(out), "--encoder", str(tmp_path)]) == 3
    assert capsys.readouterr() == ("", f"gcrs: error: {sentence}\n")
    assert not out.exists()
    assert main(["catalog", "check", str(items)]) == 3
    assert capsys.readouterr().out.splitlines()[-2:] == ["findings: 1", f"  error: {sentence}"]


@pytest.mark.parametrize("n", [2, 3])
def test_two_and_three_items_are_a_catalogue(
    n: int, toy_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, out = tmp_path / "items.csv", tmp_path / "out"
    items.write_text("id,title\n" + "".join(f"{k},Film {k}\n" for k in range(n)), encoding="utf-8")
    assert main(["catalog", "build", str(items), "--out", str(out), "--encoder", str(toy_encoder_dir)]) == 0
    assert capsys.readouterr().out.startswith(f"{n} items, 1 level, rqkmeans in ")
    assert len(PreparedCatalog.load(out).book.ids) == n


def test_two_thousand_equal_titles_with_other_facts(
    toy_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, out = tmp_path / "items.csv", tmp_path / "out"
    rows = [f"g{k},Gift card,https://s.example/{k}" for k in range(2000)]
    items.write_text("\n".join(["id,title,link", *rows]) + "\n", encoding="utf-8")
    assert main(["catalog", "build", str(items), "--out", str(out), "--encoder", str(toy_encoder_dir)]) == 0
    printed = capsys.readouterr().out
    assert "duplicate titles: 1 (g0=g1=g2=g3=… 2,000)\n" in printed
    assert main(["catalog", "check", str(out), "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(answer["near_duplicates"]) == 1999
    assert {"read-alike", "same-title", "without-text", "near-identical"} <= {f["code"] for f in answer["findings"]}


def test_near_duplicates_stay_linear_in_equal_titles() -> None:
    catalog = Catalog([Item(str(k), f"Gift card {k % 3}") for k in range(60_000)])
    begin = time.process_time()
    assert len(near_duplicates(catalog)) == 59_997
    assert time.process_time() - begin < 15


def test_check_json_is_stable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = tmp_path / "items.csv"
    items.write_text("id,title,genre\na,Alien,horror\nb,Heat,crime\n", encoding="utf-8")
    assert main(["catalog", "check", str(items), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "items": 2,
        "near_duplicates": [],
        "without_facts": [],
        "health": None,
        "feed": None,
        "findings": [
            {
                "severity": "note",
                "code": "few-items",
                "message": "2 items: every request is answered from the same few.",
                "hint": "Bring more; with so few, --where does most of the work.",
                "count": 2,
                "items": [],
                "column": None,
            }
        ],
    }


def test_the_encoder_reads_what_says_what_an_item_is() -> None:
    n = 24
    columns: dict[str, tuple[ColumnType, list[Fact | None]]] = {
        "plot": ("string", ["A long story of many words. " * 6] * n),
        "year": ("integer", [1990 + k for k in range(n)]),
        "cast": ("list", [["Ann Lee", f"Bo {k}"] for k in range(n)]),
        "poster": ("string", [f"https://s.example/{k}.jpg" for k in range(n)]),
        "sku": ("string", [f"X-{k}" for k in range(n)]),
        "part": ("string", [f"{k:04d}-AB" for k in range(n)]),
        "price": ("number", [k + 0.99 for k in range(n)]),
        "price_level": ("string", ["cheap", "dear"] * 12),
        "stock": ("integer", [k % 3 for k in range(n)]),
        "released": ("date", [f"2020-01-{k + 1:02d}" for k in range(n)]),
        "valid_until": ("date", [f"2027-01-{k + 1:02d}" for k in range(n)]),
        "review_count": ("integer", list(range(n))),
        "shipping": ("list", [["US: 5 USD"]] * n),
        "shop": ("string", ["ours"] * n),
        "empty": ("string", [None] * n),
    }
    chosen = text_columns(catalog_of(columns))
    assert chosen.columns == ["genre", "year", "cast", "price_level", "released"]
    assert chosen.left_out == {
        "plot": "the same for all",
        "poster": "links",
        "sku": "codes",
        "part": "codes",
        "price": "prices",
        "stock": "stock",
        "valid_until": "dates of an offer",
        "review_count": "counts",
        "shipping": "terms of the shop",
        "shop": "the same for all",
        "empty": "empty",
    }
    assert text_columns(catalog_of(columns), ["price"]).columns == ["price"]
    with pytest.raises(UsageError, match="no column 'prise'"):
        text_columns(catalog_of(columns), ["prise"])


def test_running_text_comes_last() -> None:
    columns: dict[str, tuple[ColumnType, list[Fact | None]]] = {
        "plot": ("string", [f"A long story of {k}. " * 6 for k in range(12)]),
        "year": ("integer", [1990 + k for k in range(12)]),
    }
    assert text_columns(catalog_of(columns)).columns == ["genre", "year", "plot"]
