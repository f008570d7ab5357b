"""Two processes share one run: the steps, and the adapter, that one process would have made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from base_models import FAMILIES, write_base
from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.processes import join, own_share, summed
from toys import toy_dialogues, toy_prepared


def test_shares_cover_a_batch_once_and_nobody_is_idle() -> None:
    for count in range(1, 9):
        rows = np.arange(count)
        shares = [own_share(rows, rank, 3) for rank in range(3)]
        assert sorted(int(row) for mine, counts in shares if counts for row in mine) == list(range(count))
        assert all(len(mine) for mine, _ in shares)
    assert own_share(rows, 0, 1)[0].tolist() == rows.tolist() and summed([1.5], torch.device("cpu"), 1) == [1.5]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    toy_prepared().save(tmp_path / "catalog")
    write_dialogues(toy_dialogues() * 5, tmp_path / "train.jsonl")
    write_base(FAMILIES["llama-3"], tmp_path / "base")
    return tmp_path


def finetune(place: Path, name: str, launcher: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    gcrs = str(Path(sys.executable).with_name("gcrs"))
    command = [sys.executable, *launcher, gcrs, "finetune", "--catalog", str(place / "catalog"), "--json"]
    command += ["--dialogues", str(place / "train.jsonl"), "--base", str(place / "base"), "--out", str(place / name)]
    for setting in ("rank=4", "dropout=0", "batch_tokens=300", "warmup=1", "threads=1", "save_steps=2"):
        command += ["--set", setting]
    return subprocess.run(
        [*command, *more],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        return
    with pytest.raises(UsageError, match="finds no GPU"):
        join("cuda")


def test_two_processes_take_the_steps_of_one(place: Path) -> None:
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    valid = ("--valid", str(place / "train.jsonl"), "--set", "eval_limit=2")
    both = finetune(place, "both", launch, "--steps", "6", *valid)
    assert both.returncode == 0, both.stderr[-2000:]
    report = json.loads(both.stdout.strip())  # one report, so one process speaks
    assert report["finished"] and report["steps"] == 6
    one = finetune(place, "one", [], "--steps", "6", *valid)
    assert one.returncode == 0, one.stderr[-2000:]
    logs = [(place / name / "metrics.jsonl").read_text().splitlines() for name in ("both", "one")]
    assert len(logs[0]) == len(logs[1]) == 6
    pairs = [(json.loads(a), json.loads(b)) for a, b in zip(*logs, strict=True)]
    assert all(a["loss"] == pytest.approx(b["loss"], rel=0.02) for a, b in pairs)
    assert pairs[0][0]["grad_norm"] == pytest.approx(pairs[0][1]["grad_norm"], rel=0.02), "the mean over all tokens"
    assert report["tokens"] >= json.loads(one.stdout)["tokens"] * 0.8
    ours, theirs = (load_file(place / name / "adapter_model.safetensors") for name in ("both", "one"))
    for name, value in ours.items():
        assert torch.allclose(value.float(), theirs[name].float(), atol=0.02), name
