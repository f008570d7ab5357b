"""The shipped bundle through the command line, on the real base weights: what the README shows must hold."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gcrs.cli import main
from gcrs.toolkit.catalog.readers import read_items

pytestmark = pytest.mark.real


def test_recommend_ten_films(movies_bundle: Path, base_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "something like Alien but funny", "-k", "10", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    catalog = read_items(movies_bundle / "items.jsonl")
    ids = [item["id"] for item in answer["items"]]
    assert len(set(ids)) == 10 and all(item in catalog for item in ids)
    assert "Alien" not in [item["title"] for item in answer["items"]]
    assert answer["reply"].strip() and answer["intent"] == "recommend"
    assert sum(v for k, v in answer["seconds"].items() if k != "total") <= answer["seconds"]["total"] + 0.01


def test_chat_from_a_pipe_recommends_a_film(
    movies_bundle: Path, base_weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b"I loved The Matrix and Inception, what should I watch tonight?\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert main(["chat", "--seed", "0"]) == 0
    out, err = capsys.readouterr()
    assert "The Matrix = The Matrix (1999)" in err and "Inception = Inception (2010)" in err
    cards = [line for line in out.splitlines() if line.startswith("[1] ")]
    catalog = read_items(movies_bundle / "items.jsonl")
    assert len(cards) == 1 and cards[0][4:].split(" | ")[0] in {item.label for item in catalog}
