"""The journal and the changes in it: all or nothing, an ID each, whatever is killed, raced or broken."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.catalog.journal import Change, Head, Journal
from gcrs.toolkit.changes import join_vectors, restore_items, retire_items
from gcrs.toolkit.errors import DataError, GcrsError, UnknownItem
from gcrs.toolkit.ids.collisions import FreeIds
from gcrs.toolkit.live import LiveCatalog
from live_toys import HASH, WIDE, Nearest, live_toy, state
from toys import CODES, toy_book, toy_catalog

CHILD = Path(__file__).with_name("live_child.py")
SOLARIS = Item("n01", "Solaris", {"year": 1972, "genre": ["drama", "sci-fi"]}, ("s1",), ("Solyaris",))


def child(directory: Path, name: str, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(directory), name, what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def joined(live: LiveCatalog, *items: Item, at: tuple[float, float] = (0.0, 0.0)) -> None:
    join_vectors(live, Nearest(), items, np.array([at] * len(items)))


def test_without_a_journal_nothing_is_written_and_the_parts_are_the_bundles_own(tmp_path: Path) -> None:
    catalog, book = toy_catalog(), toy_book()
    live = LiveCatalog(HASH, catalog, book, tmp_path)
    assert live.edition.catalog is catalog and live.edition.book is book and live.edition.offered is None
    assert not live.changed() and not live.follow() and live.edition.version == 0
    with pytest.raises(UnknownItem):
        retire_items(live, ["nobody"])
    with pytest.raises(DataError, match="'m01' is not retired"):
        restore_items(live, ["m01"])
    assert list(tmp_path.iterdir()) == []


def test_an_item_joins_behind_the_others_with_all_that_it_holds(tmp_path: Path) -> None:
    live, other = live_toy(tmp_path), live_toy(tmp_path)
    (told,), version = join_vectors(live, Nearest(), [SOLARIS], np.zeros((1, 2)))
    assert version == 1 and live.edition.version == 1 and live.added == 1
    assert live.edition.catalog["s1"] == SOLARIS and list(live.edition.book)[-1] == "n01"
    assert live.edition.book.semantic_id("n01") == told.semantic_id
    assert other.changed() and other.follow() and not other.changed() and not other.follow()
    assert state(other) == state(live)
    assert state(live_toy(tmp_path)) == state(live)


def test_a_collision_is_told(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    first, second, third = (
        join_vectors(live, Nearest(), [Item(f"n{n}", "Twin")], np.zeros((1, 2)))[0][0] for n in range(3)
    )
    assert (first.owner, first.moved) == (None, 0) and first.semantic_id == first.wanted
    for told in (second, third):
        assert told.owner == "n0" and told.wanted == first.semantic_id and told.moved == 1
        assert told.distance >= told.wanted_distance
        assert told.semantic_id[:-1] == told.wanted[:-1]
    assert second.near[0] == ("n0", 2) and {"n0", "n1"} <= {item for item, _ in third.near}


def test_retired_items_keep_row_and_id_and_come_back(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    before = live.edition.book
    assert retire_items(live, ["m03", "m01", "m03"]) == ("m03", "m01")
    assert live.edition.retired == {"m01", "m03"} and live.edition.book is before
    offered = live.edition.offered
    assert offered is not None and np.flatnonzero(~offered).tolist() == [0, 2]
    with pytest.raises(DataError, match="'m03' is retired already"):
        retire_items(live, ["m02", "m03"])
    assert "m02" not in live_toy(tmp_path).edition.retired
    assert restore_items(live, ["m03"]) == ("m03",) and live.edition.retired == {"m01"}
    assert live.edition.version == 2
    point = Nearest().codebooks[0][0] + Nearest().codebooks[1][0] + Nearest().codebooks[2][0]
    (told,), _ = join_vectors(live, Nearest(), [SOLARIS], point[None])
    assert told.semantic_id != before.semantic_id("m01")  # (0, 0, 0) is still m01's


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((Item("m05", "Again"),), "'m05' is in the catalogue already, and what it holds stays as it is"),
        ((Item("n1", "New"), Item("n2", "New", {}, ("m05",))), "'m05' is in the catalogue already"),
        ((Item("m01", "Alien"),), "'m01' is in the catalogue, retired. Nothing was changed. Bring it back: gcrs cat"),
        ((Item("n1", "New"), Item("n1", "New")), "'n1' appears twice"),
        ((Item("n1", "New", {"colour": "red"}),), "a column 'colour' that the catalogue does not have"),
        ((Item("n1", "New"), Item("n2", "New", {"year": "soon"})), "found the string 'soon', expected an integer"),
    ],
)
def test_what_cannot_join_leaves_all_as_it_was(tmp_path: Path, items: tuple[Item, ...], message: str) -> None:
    live = live_toy(tmp_path)
    retire_items(live, ["m01"])
    with pytest.raises(DataError) as raised:
        joined(live, *items)
    assert message in str(raised.value) and str(raised.value).count("\n") == 0
    assert state(live_toy(tmp_path)) == state(live) and live.edition.version == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 2**32 - 1), st.booleans())
def test_newcomers_touch_no_other_id_are_unique_and_fill_the_space(counts: list[int], seed: int, same: bool) -> None:
    """Points anywhere, often equal: every one gets the free ID that the collision rule finds, until none is left."""
    from gcrs.toolkit.catalog.item import Catalog
    from gcrs.toolkit.ids.codebook import Codebook

    rng = np.random.default_rng(seed)
    quantizer = Nearest(counts, seed)
    space = int(np.prod(counts))
    with tempfile.TemporaryDirectory() as folder:
        live = LiveCatalog(HASH, Catalog([]), Codebook(tuple(counts), {}), Path(folder))
        free = FreeIds(np.zeros((0, len(counts)), dtype=int), quantizer.codebooks)
        while len(live.edition.book) < space:
            before = dict(live.edition.book.ids)
            many = int(rng.integers(1, 4))
            items = [Item(f"i{len(before) + n}", "Film") for n in range(min(many, space - len(before)))]
            points = rng.normal(size=(1 if same else len(items), 2)).repeat(len(items) if same else 1, axis=0)
            told, _ = join_vectors(live, quantizer, items, points)
            after = live.edition.book.ids
            assert {item: after[item] for item in before} == before
            assert len(set(after.values())) == len(after) == len(before) + len(items)
            for one, point in zip(told, points, strict=True):
                assert one.semantic_id == after[one.item.id] == free.nearest_free(point)
                assert (one.owner is None) == (one.semantic_id == one.wanted)
                free.take(one.semantic_id)
        with pytest.raises(DataError, match=f"All {space:,} semantic IDs of {len(counts)} levels are taken. Build"):
            join_vectors(live, quantizer, [Item("more", "Film")], np.zeros((1, 2)))
        again = LiveCatalog(HASH, live.bundled.catalog, live.bundled.book, Path(folder))
        assert state(again) == state(live)


def test_a_full_catalogue_takes_none_of_several(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    room = int(np.prod(CODES)) - 12
    with pytest.raises(DataError, match="All 60 semantic IDs of 3 levels are taken"):
        joined(live, *(Item(f"n{n}", "Film") for n in range(room + 1)))
    assert live_toy(tmp_path).edition.version == 0
    joined(live, *(Item(f"n{n}", "Film") for n in range(room)))
    assert len(live.edition.book) == 60 and live.edition.version == 1


# ---- several processes, and kills


def test_two_processes_that_add_at_once_share_nothing_and_lose_nothing(tmp_path: Path) -> None:
    names = ("a", "b")
    running = [child(tmp_path, name, "loop") for name in names]
    done = dict.fromkeys(names, -1)
    try:
        for process in running:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for name, process in zip(names, running, strict=True):
            assert process.stdout is not None
            for _ in range(10):
                done[name] = int(process.stdout.readline())
    finally:
        for process in running:
            process.kill()
            process.communicate()
    ids = live_toy(tmp_path, counts=WIDE).edition.book.ids
    assert len(set(ids.values())) == len(ids)
    assert {f"{name}-{n}" for name in names for n in range(done[name] + 1)} <= set(ids)
    assert {item: sid for item, sid in ids.items() if item in toy_book().ids} == toy_book().ids


def test_kills_at_random_moments_lose_nothing_that_was_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    known = dict(toy_book().ids)
    for turn in range(4):
        process = child(tmp_path, f"t{turn}", "loop")
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.0, 0.05)))
        os.kill(process.pid, signal.SIGKILL)
        told = [int(line) for line in process.communicate()[0].split()]
        live = live_toy(tmp_path, counts=WIDE)
        ids = live.edition.book.ids
        mine = [item for item in ids if item.startswith(f"t{turn}-")]
        assert len(told) <= len(mine) <= len(told) + 1  # the last may be on the disk before it was told
        assert {item: ids[item] for item in known} == known and len(set(ids.values())) == len(ids)
        known = dict(ids)
        assert live.edition.version == len(ids) - 12


@pytest.mark.parametrize("moment", ["hold", "half"])
def test_a_kill_between_choosing_and_committing_leaves_no_trace(tmp_path: Path, moment: str) -> None:
    live = live_toy(tmp_path)
    joined(live, SOLARIS)
    process = child(tmp_path, "killed", moment)
    assert process.stdout is not None and process.stdout.readline() == "inside\n"
    assert state(live_toy(tmp_path)) == state(live)  # readers are not held up
    process.kill()
    process.communicate()
    assert state(live_toy(tmp_path)) == state(live)
    joined(live, Item("n02", "Stalker"))  # at once: the dead process holds no lock
    assert list(live.edition.book)[-2:] == ["n01", "n02"] and live.edition.version == 2


def test_a_change_that_waits_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = live_toy(tmp_path)
    joined(live, SOLARIS)
    monkeypatch.setattr("gcrs.toolkit.catalog.journal.WAIT", 0.1)
    with sqlite3.connect(live.journal.path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(GcrsError, match="Another process has been changing this catalogue") as raised:
            retire_items(live, ["m01"])
        holder.execute("ROLLBACK")
    holder.close()
    assert raised.value.exit_code == 1


# ---- files that are not what they should be


def written(tmp_path: Path) -> Path:
    live = live_toy(tmp_path)
    joined(live, SOLARIS, Item("n02", "Stalker"))
    retire_items(live, ["m01", "n02"])
    return live.journal.path


def sql(statement: str) -> object:
    def harm(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.executescript(statement)
        connection.close()

    return harm


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.find(b"Solaris")
    content[at] ^= 1
    path.write_bytes(bytes(content))


HARM = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_text("id,title\n" * 200, encoding="utf-8"),
    "another database": sql("PRAGMA application_id = 7;"),
    "a bit": flip,
    "an edited row": sql("UPDATE changes SET item = 'm02' WHERE kind = 'retire' AND item = 'm01';"),
    "a row less": sql("DELETE FROM changes WHERE number = 3;"),
    "a row more": sql("INSERT INTO changes SELECT 9, 9, kind, item, semantic_id, content, made, '' FROM changes "
                      "WHERE number = 3;"),
    "no table": sql("DROP TABLE changes;"),
    "no owner": sql("DELETE FROM bundle;"),
    "another bundle": sql("UPDATE bundle SET hash = 'cd';"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_broken_journal_is_refused_in_one_sentence_and_never_read_in_part(tmp_path: Path, harm: str) -> None:
    path = written(tmp_path)
    HARM[harm](path)  # type: ignore[operator]
    for use in (
        lambda: live_toy(tmp_path),
        lambda: Journal(HASH, tmp_path).commit(lambda before: [Change("retire", "m03")]),
    ):
        with pytest.raises(DataError, match="journal") as raised:
            use()
        assert str(path) in str(raised.value) and "\n" not in str(raised.value) and raised.value.exit_code == 3
        assert "move it away to lose the changes in it" in str(raised.value)


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    sql("PRAGMA user_version = 2;")(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"is a journal of version 2, expected 1\. Update gcrs"):
        live_toy(tmp_path)


def test_a_journal_that_does_not_fit_its_bundle_is_refused(tmp_path: Path) -> None:
    Journal(HASH, tmp_path).commit(lambda before: [Change("add", "m01", Item("m01", "Alien"), (2, 0, 0))])
    with pytest.raises(DataError, match="does not fit its bundle: Item id 'm01' appears twice"):
        live_toy(tmp_path)


def test_a_journal_that_is_exchanged_under_a_running_process_is_noticed(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    joined(live, SOLARIS)
    live.journal.path.unlink()
    with pytest.raises(DataError, match="was replaced while it was in use"):
        live.follow()
    retire_items(live_toy(tmp_path), ["m01"])
    with pytest.raises(DataError, match="was replaced while it was in use"):
        live.follow()


def test_a_disk_that_refuses_is_1_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    live = live_toy(tmp_path / "file" / "journals")
    with pytest.raises(GcrsError, match="cannot be used: Not a directory") as raised:
        retire_items(live, ["m01"])
    assert raised.value.exit_code == 1 and live.edition.version == 0


def test_versions_count_changes_and_digests_name_states(tmp_path: Path) -> None:
    journal = Journal(HASH, tmp_path)
    heads = [Head()]
    for _ in range(2):
        heads.append(journal.commit(lambda before: [Change("retire", "m01")]))
        heads.append(journal.commit(lambda before: [Change("restore", "m01")]))
    assert journal.commit(lambda before: []) == heads[-1] == journal.head()
    assert [head.version for head in heads] == [0, 1, 2, 3, 4] and len({head.digest for head in heads}) == 5
    assert all(one != other for one, other in pairwise(heads))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{HASH}.sqlite"]


def test_co_mentions_of_newcomers_are_those_of_their_nearest_by_text() -> None:
    from gcrs.toolkit.catalog.collaborative import estimated_vectors

    text = np.array([[1.0, 0.0], [0.0, 1.0]])
    known = np.array([[2.0, 0.1], [0.5, 0.0], [0.0, 3.0], [0.0, 0.0]])  # lengths do not count, nothing is near zero
    together = np.array([[1.0], [3.0], [8.0], [100.0]])
    assert estimated_vectors(text, known, together, near=2).tolist() == [[2.0], [4.5]]
    assert estimated_vectors(text[:1], known, together, near=1).tolist() == [[3.0]]
