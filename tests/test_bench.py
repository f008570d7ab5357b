"""`gcrs bench`: every row has its shape, its baseline and its limit. Speed is not judged here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gcrs.cli import main
from gcrs.toolkit.bench.limits import Limit, Rates, forwarding, recorded, tokens
from gcrs.toolkit.bench.measure import Row, Sample, pairs
from gcrs.toolkit.bench.ranking import beams_by_generate
from gcrs.toolkit.bench.rows import NAMES, chosen
from gcrs.toolkit.bench.simulated import codes_of, dialogue, opened
from gcrs.toolkit.bench.turn import three_calls
from gcrs.toolkit.bench.workbench import full_length
from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.engine import Sampling
from toys import toy_book, toy_catalog, toy_dialogues, toy_engine, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
KEYS = {"name", "what", "unit", "value", "target", "better", "met", "baseline", "ours", "theirs", "limit", "details",
        "skipped"}  # fmt: skip
MACHINE = {"processor", "cores", "threads", "load", "dtype", "gigabytes_per_second", "gigaflops_per_second", "python",
           "torch", "transformers", "outlines"}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(toy_encoder_dir: Path, toy_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    items = [f"{item.id},{item.title},{item.facts['year']}" for item in toy_catalog()]
    (root / "films.csv").write_text("\n".join(["id,title,year", *items]) + "\n", encoding="utf-8")
    write_dialogues(toy_dialogues(), root / "train.jsonl")
    build = ["--encoder", str(toy_encoder_dir), "--levels", "3", "--codes", "8"]
    assert main(["catalog", "build", str(root / "films.csv"), "--out", str(root / "films"), *build]) == 0
    flags = ["--dialogues", str(root / "train.jsonl"), "--base", str(toy_base_dir), "--steps", "1", "--set", "rank=2"]
    flags += ["--set", "made=20", "--set", "eval_limit=1", "--from", "none"]
    assert main(["finetune", "--catalog", str(root / "films"), "--out", str(root / "toy"), *flags]) == 0
    return root / "toy"


def test_every_row_has_its_shape(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["bench", "--quick", "--json", "--bundle", str(bundle)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"machine", "bundle", "quick", "seconds", "rows"} and found["quick"] is True
    assert set(found["machine"]) == MACHINE
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in found["rows"]}
    assert tuple(rows) == NAMES
    for row in rows.values():
        assert set(row) == KEYS
        assert (row["met"], row["target"]) == (None, None)  # sizes of a quick run are not the targets'
        if row["skipped"] is not None:
            assert row["value"] is None
            continue
        for sample in (row["value"], row["ours"], row["theirs"]):
            assert sample is None or (sample["n"] >= 1 and sample["lo"] <= sample["median"] <= sample["hi"])
        assert row["value"]["median"] > 0
        assert row["unit"] != "ratio" or row["baseline"]
        assert row["limit"] is None or row["limit"]["times"] > 0
    skipped = {name for name, row in rows.items() if row["skipped"] is not None}
    assert skipped - {"llguidance"} == {"filter-1M"}
    assert rows["turn-tokens"]["value"]["median"] <= 1.02
    assert rows["top-50"]["details"]["same"] is True
    assert rows["evaluation"]["details"]["items that agree"] == 1
    assert rows["sessions"]["value"]["median"] < 0.8


def test_a_row_or_a_family_is_chosen_by_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["bench", "--quick", "--rows", "tree,filter-7k", "--bundle", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["tree-build", "tree-memory", "tree-step", "filter-7k"]
    assert main(["bench", "--rows", "speed", "--bundle", str(bundle)]) == 2
    assert "has no row 'speed'. Its rows: help, tree-build" in capsys.readouterr().err
    assert chosen(["turn"]) == {"turn-tokens", "turn-wall", "turn-calls"}
    with pytest.raises(UsageError):
        chosen(["turn", ""])


def test_a_target_is_met_by_the_median_and_by_what_else_must_hold() -> None:
    value = Sample.of([0.3, 0.1, 0.2])
    assert (value.n, value.median, value.lo, value.hi) == (3, 0.2, 0.1, 0.3)
    row = Row("r", "w", "ratio", value, 0.2, ours=value, limit=Limit(0.05, 1.0, 0.0, "bytes"))
    assert row.met is True and row.times_limit == pytest.approx(4)
    assert Row("r", "w", "ratio", value, 0.19).met is False
    assert Row("r", "w", "ratio", value, 0.2, "higher").met is True
    assert Row("r", "w", "ratio", value, 0.2, details={"same": False}).met is False
    assert Row("r", "w", "ratio", skipped="no").met is None


def test_pairs_turn_their_order() -> None:
    order: list[str] = []
    ratio, ours, theirs = pairs(lambda: order.append("a"), lambda: order.append("b"), 3)
    assert "".join(order) == "abbaab" and ratio.n == ours.n == theirs.n == 3


def test_a_forwards_limit_is_its_bytes_or_its_operations() -> None:
    model = torch.nn.Module()
    model.blocks = torch.nn.Linear(10, 10, bias=False)
    model.embed = torch.nn.Linear(10, 10, bias=False)
    limit = forwarding(Rates(bytes=400.0, flops=2000.0), model, [(1, 1), (2, 20)])
    assert limit.seconds == pytest.approx(400 / 400 + 2 * 100 * 40 / 2000)  # one token waits, forty compute
    assert (limit.bytes, limit.flops, limit.bound) == (800, 2 * 100 * 41, "flops")


def test_what_is_forwarded_is_recorded_for_either_side() -> None:
    model = toy_model(TOKENS)
    with recorded(model) as forwards:
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert forwards == [(1, 3), (1, 1), (1, 1), (1, 1)] and tokens(forwards) == 6
    engine = toy_engine()
    with recorded(engine.model.model) as forwards:
        engine.targets([5, 6, 7, TOKENS.rec], k=3)
    assert tokens(forwards) == engine.stats.forwarded


def test_the_beam_searches_agree() -> None:
    engine = toy_engine(seed=1)
    prompt = [*encode_prompt(toy_dialogues()[0][:1], TOKENS, BOOK), TOKENS.rec]
    assert beams_by_generate(engine, prompt, 4) == [one.item_id for one in engine.targets(prompt, k=4, beams=4)]


def test_a_measured_reply_has_full_length() -> None:
    from types import SimpleNamespace

    engine = toy_engine(processor=full_length(TOKENS))
    parts: Any = SimpleNamespace(tokens=TOKENS, book=BOOK)
    context = opened(BOOK, TOKENS, 120)
    for seed in range(3):
        engine.close()
        with recorded(engine.model.model) as forwards:
            made = three_calls(parts, engine)(context, Sampling(seed=seed, max_tokens=9))
        assert made == 1 + 5 + 1 + 9
        assert tokens(forwards) == len(encode_prompt(context, TOKENS, BOOK)) + made - 1  # as a plain generation's


def test_made_up_data_is_the_same_for_the_same_seed() -> None:
    codes = codes_of(500, 3, 16, seed=3)
    assert codes.shape == (500, 3) and len(np.unique(codes, axis=0)) == 500
    assert (codes == codes_of(500, 3, 16, seed=3)).all() and codes.max() < 16
    assert np.bincount(codes[:, 0])[0] > 2 * np.bincount(codes[:, 0])[15]
    assert dialogue(BOOK, 4) == dialogue(BOOK, 4) != dialogue(BOOK, 5)
    context = opened(BOOK, TOKENS, 200)
    assert context.turns[-1].role == "user"
    assert 200 <= len(encode_prompt(context, TOKENS, BOOK)) < 200 + 20
    assert math.isclose(len(codes_of(1000, 4, 256, skewed=False)), 1000)
