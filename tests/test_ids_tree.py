"""The prefix tree against sets of tuples: same paths, same rows, filters that fail closed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcrs.toolkit.errors import DataError, DeadEnd
from gcrs.toolkit.ids.tree import ROOT, PrefixTree
from gcrs.toolkit.ids.tree_changes import extend, remove, same, sorted_codes
from gcrs.toolkit.ids.tree_file import load_tree, save_tree

Catalogue = tuple[tuple[int, ...], np.ndarray, np.ndarray]


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Code counts, distinct IDs int [n, L] in any order, and a filter bool [n]."""
    counts = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    ids = draw(st.lists(st.tuples(*(st.integers(0, k - 1) for k in counts)), unique=True, min_size=1, max_size=40))
    allowed = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return counts, np.array(ids), np.array(allowed)


def next_codes(ids: np.ndarray, prefix: tuple[int, ...]) -> list[int]:
    """Codes that continue a prefix, by looking at every ID."""
    return sorted({int(sid[len(prefix)]) for sid in ids if tuple(sid[: len(prefix)]) == prefix})


def prefixes(ids: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(c) for c in sid[:depth]) for sid in ids for depth in range(len(sid) + 1)}


@given(catalogues())
@settings(max_examples=80, deadline=None)
def test_every_walk_is_an_item_and_every_item_a_walk(catalogue: Catalogue) -> None:
    counts, ids, allowed = catalogue
    full = PrefixTree.build(ids, counts)
    tree = full.subset(allowed)
    assert len(full) == len(ids)
    assert (tree.allowed_rows() == allowed).all()
    for prefix in prefixes(ids):
        state = full.walk(prefix)
        assert full.path(state) == prefix
        assert full.is_leaf(state) == (len(prefix) == len(counts))
        codes, states = full.children(state)
        assert codes.tolist() == ([] if full.is_leaf(state) else next_codes(ids, prefix))
        assert [full.walk((*prefix, code)) for code in codes.tolist()] == states.tolist()
        if prefix in prefixes(ids[allowed]):
            assert tree.walk(prefix) == state  # a filter renumbers nothing
            if not tree.is_leaf(state):
                assert tree.children(state)[0].tolist() == next_codes(ids[allowed], prefix)
                assert tree.children(state, full=True)[0].tolist() == codes.tolist()
        elif prefix:  # the root always stands; it is its children that may be missing
            with pytest.raises(DeadEnd):
                tree.walk(prefix)
            assert tree.walk(prefix, full=True) == state
    for row, sid in enumerate(ids):
        assert full.leaf_row(full.walk(sid)) == row


@given(catalogues())
@settings(max_examples=50, deadline=None)
def test_a_batch_is_its_states_one_by_one(catalogue: Catalogue) -> None:
    counts, ids, allowed = catalogue
    full = PrefixTree.build(ids, counts)
    for tree, kept in ((full, ids), (full.subset(allowed), ids[allowed])):
        if not len(kept):
            continue
        for depth in range(len(counts)):
            states = tree.walk_batch(kept[:, :depth])  # repeats wherever items share the prefix
            offsets, codes, after = tree.children_batch(states)
            mask, every = tree.allowed_mask(states), tree.allowed_mask(states, full=True)
            assert mask.shape == every.shape == (len(kept), counts[depth])
            for i, state in enumerate(states.tolist()):
                one_codes, one_states = tree.children(state)
                run = slice(offsets[i], offsets[i + 1])
                assert codes[run].tolist() == one_codes.tolist() == np.flatnonzero(mask[i]).tolist()
                assert after[run].tolist() == one_states.tolist()
                assert np.flatnonzero(every[i]).tolist() == full.children(state)[0].tolist()
        leaves = tree.walk_batch(kept)
        assert (ids[tree.leaf_rows(leaves)] == kept).all()
        assert tree.children_batch(leaves)[1].size == 0


def test_filters_add_up_and_full_undoes_them() -> None:
    ids = np.array([[0, 0], [0, 1], [1, 0]])
    tree = PrefixTree.build(ids, (2, 2)).subset(np.array([True, True, False])).subset(np.array([False, True, True]))
    assert tree.allowed_rows().tolist() == [False, True, False]
    assert tree.children(ROOT)[0].tolist() == [0]
    assert tree.full.children(ROOT)[0].tolist() == [0, 1]


@pytest.mark.parametrize("n", [0, 3])
def test_nothing_allowed_can_be_built_but_not_decoded(n: int) -> None:
    tree = PrefixTree.build(np.arange(n).reshape(n, 1), (4,)).subset(np.zeros(n, dtype=bool))
    assert not tree.allowed_rows().any()
    for decode in (tree.children, lambda root: tree.allowed_mask(np.array([root])), lambda root: tree.walk((0,))):
        with pytest.raises(DeadEnd):
            decode(ROOT)


def test_states_that_do_not_fit_are_refused() -> None:
    tree = PrefixTree.build(np.array([[0, 0], [1, 1]]), (2, 2))
    leaf = tree.walk((1, 1))
    for wrong in (
        lambda: tree.walk((0, 1)),
        lambda: tree.walk((0, 0, 0)),
        lambda: tree.walk((7,)),
        lambda: tree.children(-1),
        lambda: tree.children(99),
        lambda: tree.leaf_row(ROOT),
        lambda: tree.allowed_mask(np.array([leaf])),
        lambda: tree.allowed_mask(np.array([ROOT, tree.walk((0,))])),
    ):
        with pytest.raises(DeadEnd):
            wrong()


@pytest.mark.parametrize(
    ("ids", "counts", "says"),
    [
        ([[0, 1], [1, 0], [0, 1]], (2, 2), "Rows 0 and 2 have the same codes"),
        ([[0, 2]], (2, 2), "code 2 at level 1, expected 0 to 1"),
        ([[0, -1]], (2, 2), "code -1"),
        ([[0, 1, 0]], (2, 2), "shape"),
        ([[0.0, 1.0]], (2, 2), "float64"),
        ([[0] * 8], (256,) * 8, "ID space"),
    ],
)
def test_codes_that_make_no_tree(ids: list[list[int]], counts: tuple[int, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        PrefixTree.build(np.array(ids), counts)


def test_a_filter_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(DataError, match="expected booleans"):
        PrefixTree.build(np.array([[0], [1]]), (2,)).subset(np.array([True]))


def test_a_hundred_thousand_items_are_small() -> None:
    rng = np.random.default_rng(0)
    keys = rng.permutation(256**4 // 40_000)[:100_000] * 40_000
    ids = np.stack([keys // 256**level % 256 for level in (3, 2, 1, 0)], axis=1)
    tree = PrefixTree.build(ids, (256,) * 4)
    assert tree.nbytes < 5e6
    assert (tree.leaf_rows(tree.walk_batch(ids[::997])) == np.arange(len(ids))[::997]).all()


# ---- membership, changes, files


@given(catalogues(), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_membership_is_that_of_the_set(catalogue: Catalogue, seed: int) -> None:
    counts, ids, allowed = catalogue
    rng = np.random.default_rng(seed)
    asked = np.concatenate([ids, rng.integers(-2, max(counts) + 2, size=(60, len(counts)))])
    full = PrefixTree.build(ids, counts)
    for tree, kept in ((full, ids), (full.subset(allowed), ids[allowed])):
        held = {tuple(sid) for sid in kept.tolist()}
        assert tree.contains(asked).tolist() == [tuple(sid) in held for sid in asked.tolist()]
        assert [tuple(sid) in tree for sid in asked.tolist()] == tree.contains(asked).tolist()
        assert tree.contains(asked, full=True).tolist() == full.contains(asked).tolist()
    assert () not in full and "ab" not in full and (*ids[0].tolist(), 0) not in full
    with pytest.raises(DataError, match="expected"):
        full.contains(ids[:, :0])


@given(catalogues(), st.data())
@settings(max_examples=80, deadline=None)
def test_extending_is_building_from_all_rows(catalogue: Catalogue, data: st.DataObject) -> None:
    counts, ids, allowed = catalogue
    cut = data.draw(st.integers(0, len(ids)))
    whole = PrefixTree.build(ids, counts)
    start = PrefixTree.build(ids[:cut], counts)
    assert same(extend(start, ids[cut:]), whole)
    assert sorted_codes(whole).tolist() == sorted(ids.tolist())
    filtered = extend(start.subset(allowed[:cut]), ids[cut:])
    assert filtered.allowed_rows().tolist() == [*allowed[:cut].tolist(), *[True] * (len(ids) - cut)]
    assert same(filtered.full, whole)
    with pytest.raises(DataError, match="same codes"):
        extend(whole, ids[:1])


@given(catalogues(), st.data())
@settings(max_examples=80, deadline=None)
def test_removing_is_building_from_what_is_left(catalogue: Catalogue, data: st.DataObject) -> None:
    counts, ids, allowed = catalogue
    gone = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=len(ids))), dtype=np.int64)
    left = np.delete(ids, gone, axis=0)
    assert same(remove(PrefixTree.build(ids, counts), gone), PrefixTree.build(left, counts))
    filtered = remove(PrefixTree.build(ids, counts).subset(allowed), gone)
    assert same(filtered, PrefixTree.build(left, counts).subset(np.delete(allowed, gone)))
    assert same(extend(remove(PrefixTree.build(ids, counts), gone), ids[np.unique(gone)]).full, PrefixTree.build(
        np.concatenate([left, ids[np.unique(gone)]]), counts))  # fmt: skip
    with pytest.raises(DataError, match=f"Row {len(ids)} is not"):
        remove(PrefixTree.build(ids, counts), np.array([len(ids)]))


@given(catalogues(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_saved_tree_is_the_tree_and_a_harmed_file_is_refused(tmp_path: Path, catalogue: Catalogue, seed: int) -> None:
    counts, ids, allowed = catalogue
    tree, file = PrefixTree.build(ids, counts), tmp_path / "tree"
    save_tree(tree, file, catalog="films")
    loaded = load_tree(file, catalog="films")
    assert same(loaded, tree) and same(loaded.subset(allowed), tree.subset(allowed))
    assert not loaded.first.flags.writeable and loaded.contains(ids).all()
    assert same(extend(remove(loaded, np.array([0])), ids[:1]).full, extend(remove(tree, np.array([0])), ids[:1]))
    whole, rng = file.read_bytes(), np.random.default_rng(seed)
    file.write_bytes(whole[: rng.integers(len(whole))])
    with pytest.raises(DataError, match=r"broken|no prefix tree"):
        load_tree(file, catalog="films")
    at, byte = int(rng.integers(len(whole))), int(rng.integers(1, 256))
    file.write_bytes(whole[:at] + bytes([whole[at] ^ byte]) + whole[at + 1 :])
    with suppress(DataError):  # unless what is read is the very same tree
        assert same(load_tree(file, catalog="films"), tree)


def test_a_tree_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    tree = PrefixTree.build(np.array([[0, 1], [1, 0]]), (2, 2))
    save_tree(tree, tmp_path / "tree", catalog="a" * 64)
    with pytest.raises(DataError, match="belongs to the catalogue aaaaaaaaaaaa, this one is bbbbbbbbbbbb"):
        load_tree(tmp_path / "tree", catalog="b" * 64)
    with pytest.raises(DataError, match="does not exist"):
        load_tree(tmp_path / "none", catalog="a")
    (tmp_path / "text").write_text("no tree")
    with pytest.raises(DataError, match="broken"):
        load_tree(tmp_path / "text", catalog="a")
    with pytest.raises(DataError, match="filter"):
        save_tree(tree.subset(np.array([True, False])), tmp_path / "tree", catalog="a")
