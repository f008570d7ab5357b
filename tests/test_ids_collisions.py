"""Collision resolution: a case by hand, a literal backtracking search to compare with, and what always holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.collisions import FreeIds, resolve_collisions
from gcrs.toolkit.ids.quantizer import residual_codes

Case = tuple[np.ndarray, list[np.ndarray]]
BY_HAND = [np.array([[0.0], [10.0]]), np.array([[-1.0], [1.0]])]  # 2 x 2 codes on a line: the IDs stand at -1 1 9 11


def ids_of(points: list[float]) -> list[tuple[int, ...]]:
    latent = np.array(points)[:, None]
    final = resolve_collisions(residual_codes(latent, BY_HAND), latent, BY_HAND)
    return [tuple(sid) for sid in final.tolist()]


def test_by_hand_the_nearest_keeps_the_id_the_next_takes_the_sibling_the_last_goes_back_a_level() -> None:
    # All three are coded (0, 1), the point 1; they miss it by 0.3, 0.0 and 0.2. 1.0 keeps it, 1.2 takes the sibling
    # (0, 0). For 0.7 level b is exhausted below 0: back to level a, next nearest codeword 10, residual -9.3, where
    # code 0 (-1) is nearest.
    assert ids_of([0.7, 1.0, 1.2]) == [(1, 0), (0, 1), (0, 0)]


def test_by_hand_an_item_that_does_not_collide_keeps_its_id_even_where_another_wants_it() -> None:
    # As above, but -1 is coded (0, 0) and alone: 1.2 must go back as well, and 0.7 finds (1, 0) used after it.
    assert ids_of([0.7, 1.0, 1.2, -1.0]) == [(1, 1), (0, 1), (1, 0), (0, 0)]


def test_more_items_than_ids() -> None:
    with pytest.raises(DataError, match="5 items cannot share 4 semantic IDs"):
        ids_of([0.0, 1.0, 2.0, 3.0, 4.0])
    free = FreeIds(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), BY_HAND)
    with pytest.raises(DataError, match="All 4 semantic IDs"):
        free.nearest_free(np.array([0.0]))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Latent points and codebooks small enough to collide; often as many items as IDs, often equal points."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    space = math.prod(counts)
    n = draw(st.integers(1, space) | st.just(space))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = rng.standard_normal((n, 2))
    if draw(st.booleans()):
        points = points[rng.integers(max(1, n // 2), size=n)]
    return points, [rng.standard_normal((k, 2)) / 2**level for level, k in enumerate(counts)]


def literal_search(point: np.ndarray, books: list[np.ndarray], used: set[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The paper's words as a depth-first search: sorted codewords, residual anew, back when a level is exhausted."""

    def search(residual: np.ndarray, prefix: tuple[int, ...]) -> tuple[int, ...] | None:
        if len(prefix) == len(books):
            return None if prefix in used else prefix
        book = books[len(prefix)]
        for code in np.argsort(((residual - book) ** 2).sum(axis=1), kind="stable").tolist():
            if found := search(residual - book[code], (*prefix, code)):
                return found
        return None

    return search(point, ())


@given(cases())
@settings(max_examples=100, deadline=None)
def test_what_always_holds(case: Case) -> None:
    points, books = case
    raw = residual_codes(points, books)
    final = resolve_collisions(raw, points, books)
    assert len(set(map(tuple, final.tolist()))) == len(points)  # unique (and it ended)
    keys = [tuple(sid) for sid in raw.tolist()]
    for row, key in enumerate(keys):
        if keys.count(key) == 1:
            assert tuple(final[row]) == key  # no item that did not collide has changed
    assert {key for key in keys} <= {tuple(sid) for sid in final.tolist()}  # one of each group kept its ID
    assert (final == resolve_collisions(raw, points, books)).all()


@given(cases())
@settings(max_examples=60, deadline=None)
def test_equals_the_literal_backtracking_search(case: Case) -> None:
    points, books = case
    raw = residual_codes(points, books)
    final = resolve_collisions(raw, points, books)
    keys = [tuple(sid) for sid in raw.tolist()]
    left = points - sum(book[raw[:, level]] for level, book in enumerate(books))
    distance = (left**2).sum(axis=1)
    used = set(keys)
    for key in sorted(used):
        group = [row for row in range(len(keys)) if keys[row] == key]
        first, *others = sorted(group, key=lambda row: (round(distance[row], 9), row))
        assert tuple(final[first]) == key
        for row in others:
            expected = literal_search(points[row], books, used)
            assert expected is not None
            assert tuple(final[row]) == expected
            used.add(expected)


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_items_does_not_matter(case: Case, random: object) -> None:
    points, books = case
    points = np.unique(points, axis=0)  # between equal points the order of rows has to decide
    order = np.array(random.sample(range(len(points)), len(points)))  # type: ignore[attr-defined]
    one = resolve_collisions(residual_codes(points, books), points, books)
    other = resolve_collisions(residual_codes(points[order], books), points[order], books)
    assert (one[order] == other).all()


def test_equal_vectors_spread_over_the_nearest_ids() -> None:
    rng = np.random.default_rng(0)
    books = [rng.standard_normal((8, 4)), rng.standard_normal((8, 4)) / 4]
    points = np.repeat(rng.standard_normal((1, 4)), 20, axis=0)
    final = resolve_collisions(residual_codes(points, books), points, books)
    assert len(np.unique(final, axis=0)) == 20
    assert len(np.unique(final[:, 0])) == 3  # 8 + 8 + 4: a prefix fills before the next is touched
