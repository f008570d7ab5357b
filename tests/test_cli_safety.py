"""A full disk or a kill while writing: the old artefact still loads, and nothing half-written takes its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.errors import DataError, GcrsError
from gcrs.toolkit.ids.build import build_codebook
from gcrs.toolkit.prepared import PARTS, PreparedCatalog
from toys import toy_catalog

SETTINGS = {"text": {"template": "", "columns": []}, "seed": 0}


def prepared(seed: int) -> PreparedCatalog:
    """The toy catalogue with semantic IDs of random vectors; another seed, another item, other IDs, other health."""
    catalog = Catalog([*toy_catalog(), Item(f"extra{seed}", "Extra")], toy_catalog().columns)
    vectors = np.random.default_rng(seed).normal(size=(len(catalog), 8)).astype(np.float32)
    quantizer, book, _ = build_codebook(vectors, [item.id for item in catalog], levels=2, codes=8, seed=seed)
    return PreparedCatalog(catalog, book, quantizer, {**SETTINGS, "seed": seed}, {"seed": seed})


def test_save_and_load_are_inverse(tmp_path: Path) -> None:
    before = prepared(0)
    before.save(tmp_path / "films")
    after = PreparedCatalog.load(tmp_path / "films")
    assert after.hash == before.hash
    assert after.catalog.items == before.catalog.items and after.catalog.columns == before.catalog.columns
    assert after.book == before.book and list(after.book) == list(before.book)
    vector = np.ones((1, 8), dtype=np.float32)
    assert (after.quantizer.codes(vector) == before.quantizer.codes(vector)).all()


@pytest.mark.parametrize("part", [*PARTS, "catalog.json"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "mixed"])
def test_a_harmed_part_is_named(part: str, harm: str, tmp_path: Path) -> None:
    prepared(0).save(tmp_path / "films")
    prepared(1).save(tmp_path / "other")
    victim = tmp_path / "films" / part
    if harm == "missing":
        victim.unlink()
    elif harm == "truncated":
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    else:
        victim.write_bytes((tmp_path / "other" / part).read_bytes())
    with pytest.raises(DataError) as raised:
        PreparedCatalog.load(tmp_path / "films")
    named = [name for name in (*PARTS, "catalog.json") if name in str(raised.value)]
    if (part, harm) == ("catalog.json", "mixed"):  # then every part disagrees with it, and the first one is named
        part = PARTS[0]
    assert named == [part]


def test_a_directory_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="exists and is no catalogue"):
        prepared(0).save(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_full_disk_leaves_the_old_catalogue(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: every write beyond 300 bytes fails."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "films"
    prepared(0).save(out)
    old = PreparedCatalog.load(out).hash
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    new = prepared(1)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
        with pytest.raises(GcrsError, match="Cannot write"):
            new.save(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert PreparedCatalog.load(out).hash == old
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


def test_a_kill_at_any_moment_leaves_a_catalogue_that_loads(tmp_path: Path) -> None:
    """kill -9 while a process rewrites the catalogue over and over: what is there is one of the two, whole."""
    out = tmp_path / "films"
    first, second = prepared(0), prepared(1)
    first.save(out)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_cli_safety import prepared\n"
        "both = prepared(1), prepared(0)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for one in both: one.save(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(out), str(Path(__file__).parent)]
    rng = np.random.default_rng(0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.05, 0.4)))
        os.kill(process.pid, signal.SIGKILL)
    assert PreparedCatalog.load(out).hash in (first.hash, second.hash)
    first.save(out)  # what the killed process left beside it is in nobody's way
    assert PreparedCatalog.load(out).hash == first.hash


@pytest.mark.parametrize("moment", ["before the first rename", "between the renames", "after the second rename"])
def test_a_kill_at_each_rename(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three states that `kill -9` can leave around the replacement, made one by one."""
    out = tmp_path / "films"
    first, second = prepared(0), prepared(1)
    first.save(out)
    second.save(tmp_path / ".films.staged")
    old = tmp_path / ".films.old"
    if moment != "before the first rename":
        os.rename(out, old)
    if moment == "after the second rename":
        os.rename(tmp_path / ".films.staged", out)
    expected = second if moment == "after the second rename" else first
    assert PreparedCatalog.load(out).hash == expected.hash
    assert not old.exists()
