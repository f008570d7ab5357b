"""Allow-lists: what the file may look like, what is refused, and how long a million ids take."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from gcrs.toolkit.catalog.allow_list import read_allow_list
from gcrs.toolkit.catalog.filters import Columns
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.errors import DataError


@pytest.mark.parametrize(
    "content",
    [b"7\n8\n9\n", b"7\r\n8\r\n\r\n9", b"\xef\xbb\xbf7\n 8 \n9\n7\n", b'["7", 8, " 9"]', b' [\n"7",\n"8",\n"9", 7]\n'],
)
@pytest.mark.parametrize("packed", [False, True])
def test_lines_and_lists_plain_and_packed(content: bytes, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("stock.gz" if packed else "stock")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_allow_list(path).ids == ("7", "8", "9")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b" \n\n", "holds no item id"),
        ("a", b"[]", "holds no item id"),
        ("a", b'["7",', "begins like a JSON list but is none"),
        ("a", b'["7", null]', "entry 2: found NoneType, expected an id"),
        ("a", b"[true]", "entry 1: found bool"),
        ("a", b"caf\xe9", "is not UTF-8 text: byte 3"),
        ("a.gz", b"no gzip", "cannot be read"),
        ("a.gz", gzip.compress(b"7\n8\n" * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_what_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_allow_list(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_allow_list(tmp_path / "none")


def test_a_hundred_thousand_ids_take_a_tenth_of_a_second(tmp_path: Path) -> None:
    """So that a million take about one: measured at a million by tests/benchmarks/bench_rules.py."""
    columns = Columns(Catalog([Item(str(n), "x") for n in range(100_000)]))
    path = tmp_path / "stock.json"
    path.write_text(json.dumps([str(n) for n in range(50_000, 150_000)]), encoding="utf-8")
    took = []
    for _ in range(3):
        start = time.process_time()
        mask = columns.allowed(allow=read_allow_list(path).ids)
        took.append(time.process_time() - start)
    assert mask.sum() == 50_000 and min(took) < 0.4
