"""An item as text, texts as vectors, and titles that look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gcrs.toolkit.catalog.duplicates import near_duplicates, normalise_title
from gcrs.toolkit.catalog.encoders import encode_texts, encoder_fingerprint
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.text import MAX_VALUE, item_text, item_texts
from gcrs.toolkit.errors import DataError, MissingModelError

MATRIX = Item("1", "The Matrix", {"year": 1999, "genres": ["action", "science fiction"], "price": 3.0, "stock": True})


def test_text_of_an_item() -> None:
    assert item_text(MATRIX) == (
        "title: The Matrix | year: 1999 | genres: action, science fiction | price: 3 | stock: yes"
    )
    assert item_text(MATRIX, ["genres", "missing"]) == "title: The Matrix | genres: action, science fiction"
    assert item_text(Item("2", "Up | Down", {"url": "https://x", "note": ""})) == "title: Up / Down"


def test_long_values_are_cut_at_a_word() -> None:
    text = item_text(Item("1", "A", {"plot": "word " * 1000, "year": 1999}))
    assert text.endswith("word… | year: 1999")
    assert len(text) < MAX_VALUE + 40


def test_columns_come_in_the_catalogues_order() -> None:
    catalog = Catalog([Item("1", "A", {"b": "x", "a": "y"})], {"a": "string", "b": "string"})
    assert item_texts(catalog) == ["title: A | a: y | b: x"]


def test_vectors_are_unit_kept_and_in_order(
    toy_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCRS_CACHE", str(tmp_path))
    texts = ["a long text about trains", "short", "", "short", "日本語 🎬", "x " * 5000]
    done: list[tuple[int, int]] = []
    vectors = encode_texts(texts, str(toy_encoder_dir), lambda at, total, _: done.append((at, total)), batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape[0] == 6
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1, 1, 1], atol=1e-5)  # "" has no token
    assert not encode_texts(["", ""], str(toy_encoder_dir)).any()
    assert (vectors[1] == vectors[3]).all()
    assert done == [(2, 5), (4, 5), (5, 5)]
    alone = encode_texts(["short"], str(toy_encoder_dir), batch_size=1)
    assert np.allclose(alone[0], vectors[1], atol=1e-5)
    again = encode_texts(texts[::-1], str(toy_encoder_dir), lambda *_: pytest.fail("encoded twice"))
    assert (again == vectors[::-1]).all()
    assert encode_texts([], str(toy_encoder_dir)).shape == (0, vectors.shape[1])


def test_a_broken_cache_costs_only_time(toy_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCRS_CACHE", str(tmp_path))
    first = encode_texts(["a", "b"], str(toy_encoder_dir))
    (tmp_path / "texts.sqlite").write_bytes(b"not a database" * 100)
    assert np.allclose(encode_texts(["a", "b"], str(toy_encoder_dir)), first)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GCRS_CACHE", str(tmp_path / "file"))
    assert np.allclose(encode_texts(["a", "b"], str(toy_encoder_dir)), first)


def test_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="neither a known name, a directory nor a hub id"):
        encode_texts(["a"], str(tmp_path / "none"))
    with pytest.raises(DataError, match="is not an encoder"):
        encode_texts(["a"], str(tmp_path))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text('{"hidden_size": 16}')
    with pytest.raises(DataError, match="does not load as an encoder"):
        encode_texts(["a"], str(tmp_path))


@pytest.mark.real
def test_minilm_puts_like_beside_like(encoder_weights: Path) -> None:
    vectors = encode_texts(["a scary ghost movie", "a horror film about spirits", "quarterly tax accounting"])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert encoder_fingerprint() == encoder_fingerprint()


def test_normal_form_of_titles() -> None:
    assert normalise_title("Spider-Man") == normalise_title("spider man")
    assert normalise_title("WALL·E") == normalise_title("Wall-E")
    assert normalise_title("Amélie") == "amelie"
    assert normalise_title("Fast & Furious") == normalise_title("Fast and Furious")
    assert normalise_title("Ocean’s Eleven") == normalise_title("Ocean's Eleven")
    assert normalise_title("???") == "???"
    assert normalise_title("七人の侍") == "七人の侍"


def test_near_duplicates_are_listed_with_their_reason() -> None:
    def film(item_id: str, title: str, year: int | None = None) -> Item:
        return Item(item_id, title, {} if year is None else {"year": year})

    catalog = Catalog(
        [
            film("1", "The Holiday", 2006),
            film("2", "Holiday", 2006),
            film("3", "Holiday", 1938),
            film("4", "Frozen"),
            film("5", "Frozen", 2013),
            film("6", "Rocky II", 1979),
            film("7", "Rocky III", 1979),
            film("8", "Killer Clowns from Outer Space", 1988),
            film("9", "Killer Klowns from Outer Space", 1988),
            film("10", "Up", 2009),
        ],
        {"year": "integer"},
    )
    assert [(pair.first, pair.second, pair.reason) for pair in near_duplicates(catalog)] == [
        ("1", "2", "the same name, the same year"),
        ("4", "5", "the same name, a year is missing"),
        ("8", "9", "almost the same name, the same year"),
    ]
