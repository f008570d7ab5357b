"""From vectors to semantic_ids.json: shapes, uniqueness, the health report's figures, new items, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.ids.build import assign, assign_many, build_codebook, default_shape, load_codebook, save_codebook
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.ids.health import code_perplexity, near_identical, reconstruction_error, shared_prefixes
from gcrs.toolkit.ids.quantizer import QuantizerConfig


def some_vectors(n: int = 12, d: int = 6) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((n, d)).astype(np.float32)


def names(n: int) -> list[str]:
    return [f"item-{i}" for i in range(n)]


def test_shapes_grow_with_the_catalogue() -> None:
    shapes = {n: default_shape(n) for n in (1, 3, 16, 17, 100, 1_000, 1_782, 6_833, 6_924, 100_000, 1_000_000)}
    assert shapes[3] == (1, 8)
    assert shapes[1_782] == shapes[6_833] == shapes[6_924] == (4, 64)  # the paper's, on both of its data sets
    assert shapes[1_000_000] == (4, 256)
    spaces = [codes**levels for levels, codes in shapes.values()]
    assert spaces == sorted(spaces)
    assert all(space >= 2 * n for n, space in zip(shapes, spaces, strict=True))
    assert default_shape(5_000_000)[0] == 5
    with pytest.raises(DataError, match="no items"):
        default_shape(0)


@pytest.mark.parametrize("quantizer", ["rqkmeans", "rqvae"])
@pytest.mark.parametrize("n", [1, 3, 12, 60])
def test_any_catalogue_gets_unique_ids(quantizer: str, n: int) -> None:
    vectors = some_vectors(n)
    vectors[n // 2 :] = vectors[0]  # half of it the same item again
    config = QuantizerConfig(epochs=3, hidden=(16,), latent=4)
    fitted, book, health = build_codebook(vectors, names(n), quantizer=quantizer, config=config)  # type: ignore[arg-type]
    assert list(book) == names(n)
    assert book.codes == fitted.code_counts == health.code_counts
    assert health.shared_final[-1] == 0
    assert health.collided >= (n - n // 2 if n > 1 else 0)
    again = build_codebook(vectors, names(n), quantizer=quantizer, config=config)[1]  # type: ignore[arg-type]
    assert again.ids == book.ids


def test_a_full_space_is_used_to_the_last_id_and_no_further() -> None:
    _, book, health = build_codebook(some_vectors(16), names(16), levels=2, codes=4)
    assert len({book.semantic_id(name) for name in names(16)}) == 16
    assert health.perplexity == pytest.approx((4.0, 4.0))
    with pytest.raises(UsageError, match="2 levels of 4 codes make 16 semantic IDs for 17 items"):
        build_codebook(some_vectors(17), names(17), levels=2, codes=4)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="12 vectors for 11 items"):
        build_codebook(some_vectors(), names(11))
    with pytest.raises(DataError, match="appears twice"):
        build_codebook(some_vectors(2), ["a", "a"])
    with pytest.raises(UsageError, match="--levels is 30"):
        build_codebook(some_vectors(), names(12), levels=30)


def test_a_new_item_gets_the_nearest_free_id_of_a_frozen_quantizer() -> None:
    vectors = some_vectors()
    fitted, book, _ = build_codebook(vectors, names(12), levels=2, codes=8)
    used = set(book.ids.values())
    copy = assign(fitted, vectors[4], used)
    assert copy not in used
    assert copy == assign(fitted, vectors[4], used)  # the same input, the same ID
    assert assign(fitted, vectors[4], used - {book.semantic_id("item-4")}) == book.semantic_id("item-4")
    assert assign(fitted, vectors[4], []) == tuple(fitted.codes(vectors[4:5])[0].tolist())
    many = assign_many(fitted, np.repeat(vectors[4:5], 64 - 12, axis=0), used)
    assert many[0] == copy
    assert len(used | set(many)) == 64
    with pytest.raises(DataError, match="All 64 semantic IDs"):
        assign(fitted, vectors[4], used | set(many))


def test_figures_of_the_report_by_hand() -> None:
    codes = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 2], [0, 1, 3], [1, 0, 0]])
    assert shared_prefixes(codes) == (4, 4, 2)
    assert code_perplexity([2, 2, 0]) == pytest.approx(2.0)
    assert code_perplexity([7, 0]) == pytest.approx(1.0)
    vectors = np.array([[3.0, 4.0], [0.0, 5.0]])
    rebuilt = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert reconstruction_error(vectors, np.arange(2)[:, None], lambda rows: rebuilt[rows[:, 0]]) == pytest.approx(0.5)
    same = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert near_identical(same, np.array([[0], [0], [0], [1]])) == 2


def test_the_report_reads_well_and_survives_json_and_plot(tmp_path: Path) -> None:
    vectors = some_vectors(40)
    vectors[20:] = vectors[:20]
    _, _, health = build_codebook(
        vectors, names(40), levels=3, codes=4, items_without_text=["item-1"], duplicate_titles=[["item-2", "item-22"]]
    )
    assert health.collided == health.shared_raw[-1] >= 40
    assert health.near_identical == 40
    assert sum(health.changed_at) >= 20
    assert all(sum(usage) == 40 for usage in health.usage)
    assert json.loads(json.dumps(health.to_json()))["collided"] == health.collided
    text = "\n".join(health.lines())
    assert max(map(len, health.lines())) <= 100
    for expected in ("40 items, 3 levels, rqkmeans", "0 left", "1 (item-1)", "item-2=item-22"):
        assert expected in text
    health.plot(tmp_path / "health.png")
    assert (tmp_path / "health.png").read_bytes().startswith(b"\x89PNG")


def test_semantic_ids_json_round_trips(tmp_path: Path) -> None:
    fitted, book, _ = build_codebook(some_vectors(), ['a "quoted" id', "naïve", *names(10)])
    path = tmp_path / "semantic_ids.json"
    save_codebook(book, path)
    again = load_codebook(path, fitted, book.ids)
    assert again == book
    assert list(again) == list(book)
    content = json.loads(path.read_text())
    assert content["levels"] == book.levels
    assert content["ids"]["naïve"] == list(book.semantic_id("naïve"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ('{"levels": 1, "codes": [4], "ids": {"a": [1', "not valid JSON"),
        ("[]", "has no semantic IDs"),
        ('{"levels": 1, "codes": [4]}', "has no semantic IDs"),
        ('{"levels": 2, "codes": [4], "ids": {}}', "says 2 levels"),
        ('{"levels": 1, "codes": ["4"], "ids": {}}', "expected one number of codes a level"),
        ('{"levels": 1, "codes": [4], "ids": {"a": "1"}}', "expected a list of whole numbers"),
        ('{"levels": 1, "codes": [4], "ids": {"a": [1.5]}}', "expected a list of whole numbers"),
        ('{"levels": 1, "codes": [4], "ids": {"a": [4]}}', "does not fit"),
        ('{"levels": 1, "codes": [4], "ids": {"a": [1, 1]}}', "does not fit"),
        ('{"levels": 1, "codes": [4], "ids": {"a": [1], "b": [1]}}', "share the semantic ID"),
    ],
)
def test_broken_semantic_ids_are_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "semantic_ids.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        load_codebook(path)


def test_files_of_two_bundles_are_told_apart(tmp_path: Path) -> None:
    fitted, book, _ = build_codebook(some_vectors(), names(12), levels=2, codes=8)
    path = tmp_path / "semantic_ids.json"
    save_codebook(Codebook((8, 4), {"item-0": (0, 0)}), path)
    with pytest.raises(DataError, match="from two bundles"):
        load_codebook(path, fitted)
    save_codebook(book, path)
    with pytest.raises(DataError, match="differ in 1 items, 'item-12'"):
        load_codebook(path, fitted, names(13))
