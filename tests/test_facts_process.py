"""The facts' own process: the same facts as the store's, errors as sentences, an end when nobody listens."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gcrs.programs.facts_process import FactsProcess
from gcrs.toolkit.catalog.readers import write_items
from gcrs.toolkit.errors import GcrsError
from toys import toy_catalog


def test_facts_come_in_the_catalogues_order_and_the_process_ends(tmp_path: Path) -> None:
    catalog = toy_catalog()
    write_items(catalog, tmp_path / "items.jsonl")
    facts = FactsProcess(tmp_path, list(catalog.columns))
    found = facts.get(["m05", "m01"])
    assert list(found) == ["m05", "m01"]
    assert found["m05"] == dict(catalog["m05"].facts)
    facts.close()
    facts.close()
    facts._process.wait(timeout=30)
    with pytest.raises(GcrsError, match="has ended"):
        facts.get(["m01"])


def test_what_the_store_says_reaches_the_caller(tmp_path: Path) -> None:
    write_items(toy_catalog(), tmp_path / "items.jsonl")
    facts = FactsProcess(tmp_path, [], "http://127.0.0.1:9")
    with pytest.raises(GcrsError, match=r"127\.0\.0\.1:9"):
        facts.get(["m01"])
    facts.close()
    missing = FactsProcess(tmp_path / "nowhere", [])
    with pytest.raises(GcrsError):
        missing.get(["m01"])
    missing.close()
    for process in (facts._process, missing._process):
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            pytest.fail("the process outlives its owner's interest")
