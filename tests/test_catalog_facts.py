"""The Chroma store of facts: embedded and served, in order, repaired when it is broken or half-filled."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcrs.toolkit.catalog.facts import FactStore, catalog_hash
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact, Item
from gcrs.toolkit.errors import GcrsError, UsageError

TYPES: dict[str, ColumnType] = {
    "year": "integer",
    "score": "number",
    "genres": "list",
    "#odd": "string",
    "stock": "boolean",
    "chroma:x": "string",
}
MATRIX: dict[str, Fact] = {
    "year": 1999,
    "score": 8.0,
    "genres": ["action", "sf"],
    "#odd": "€",
    "stock": True,
    "chroma:x": "kept",
}


def catalog(n: int = 12) -> Catalog:
    films = [Item("m1", "The Matrix", MATRIX, ("old1",)), Item("m2", "Untold", {})]
    return Catalog(films + [Item(f"f{i}", f"Film {i}", {"year": 2000 + i % 20}) for i in range(n - 2)], TYPES)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FactStore]:
    opened = FactStore(catalog(), tmp_path)
    yield opened
    opened.close()


def check(store: FactStore) -> None:
    facts = store.get(["f3", "m1", "m2", "old1", "nobody", "f3"])
    assert list(facts) == ["f3", "m1", "m2", "old1"]
    assert facts == {"f3": {"year": 2003}, "m1": MATRIX, "m2": {}, "old1": MATRIX}
    assert list(facts["m1"]) == list(TYPES)
    assert isinstance(facts["m1"]["score"], float) and isinstance(facts["m1"]["stock"], bool)


def test_facts_come_back_in_the_order_asked(store: FactStore) -> None:
    check(store)
    assert store.get([]) == {}
    assert store.get(["nobody"]) == {}


def test_filled_once_and_kept(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    first = FactStore(catalog(), tmp_path, progress=lambda at, total, _: said.append((at, total)))
    first.prepare()
    first.close()
    assert said == [(12, 12)]
    second = FactStore(catalog(), tmp_path, progress=lambda *_: pytest.fail("filled again"))
    check(second)
    second.close()


def test_another_catalogue_is_another_collection(tmp_path: Path) -> None:
    changed = Catalog([Item("m1", "The Matrix", {"year": 2021})], TYPES)
    one, two = FactStore(catalog(), tmp_path), FactStore(changed, tmp_path)
    assert one.get(["m1"])["m1"]["year"] == 1999
    assert two.get(["m1"]) == {"m1": {"year": 2021}}
    one.close()
    two.close()
    assert catalog_hash(catalog()) == catalog_hash(catalog()) != catalog_hash(changed)


def database(folder: Path) -> Path:
    return next(folder.glob("*/chroma.sqlite3"))


@pytest.mark.parametrize(
    ("damage", "while_open"),
    [
        ("overwritten", True),
        ("overwritten", False),
        ("truncated", True),
        ("truncated", False),
        ("a file in its place", False),
    ],
)
def test_a_broken_directory_is_built_again(damage: str, while_open: bool, tmp_path: Path) -> None:
    store = FactStore(catalog(), tmp_path)
    store.prepare()
    path = database(tmp_path)
    if not while_open:
        store.close()
    if damage == "overwritten":
        path.write_bytes(b"rubbish" * 2000)
    elif damage == "truncated":
        with path.open("r+b") as handle:
            handle.truncate(5000)
    else:
        shutil.rmtree(path.parent)
        path.parent.write_text("not a directory")
    check(store)
    store.close()


def test_lost_items_are_noticed(store: FactStore) -> None:
    store.prepare()
    assert store._collection is not None
    store._collection.delete(ids=["m1"])
    check(store)


KILLED = """
import sys
from pathlib import Path
from gcrs.toolkit.catalog import facts
from gcrs.toolkit.catalog.item import Catalog, Item
facts._BATCH = 50
items = [Item(str(n), f"Film {n}", {"year": n}) for n in range(400)]
store = facts.FactStore(Catalog(items, {"year": "integer"}), Path(sys.argv[1]))
store._progress = lambda at, *_: print(at, flush=True)
store.prepare()
"""


def test_a_fill_that_was_killed_is_finished(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as filling:
        assert filling.stdout is not None
        assert filling.stdout.readline() == "50\n"
        filling.send_signal(signal.SIGKILL)
    assert database(tmp_path).exists()
    films = Catalog([Item(str(n), f"Film {n}", {"year": n}) for n in range(400)], {"year": "integer"})
    said: list[int] = []
    store = FactStore(films, tmp_path, progress=lambda at, *_: said.append(at))
    assert store.get(["399", "0"]) == {"399": {"year": 399}, "0": {"year": 0}}
    assert said == [400]
    store.close()


def test_more_items_than_one_request_holds(tmp_path: Path) -> None:
    many = catalog(6000)
    store = FactStore(many, tmp_path)
    facts = store.get([item.id for item in reversed(many.items)])
    assert list(facts) == [item.id for item in reversed(many.items)]
    assert all(facts[item.id] == item.facts for item in many)
    store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real Chroma server on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(tmp_path / "served")]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()


def test_on_a_server(server: str) -> None:
    store = FactStore(catalog(), url=server)
    check(store)
    store.close()
    again = FactStore(catalog(), url=server, progress=lambda *_: pytest.fail("filled again"))
    check(again)
    again.close()


def test_no_server_and_no_such_address(tmp_path: Path) -> None:
    with pytest.raises(GcrsError, match=r"store of facts at http://127\.0\.0\.1:9 cannot be used.*chroma run"):
        FactStore(catalog(), url="http://127.0.0.1:9").get(["m1"])
    with pytest.raises(UsageError, match="is no address"):
        FactStore(catalog(), url="localhost").get(["m1"])
    with pytest.raises(UsageError, match="not both"):
        FactStore(catalog(), tmp_path, "http://127.0.0.1:8000")
