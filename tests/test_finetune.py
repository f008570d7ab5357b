"""Fine-tuning end to end on a random two-layer base: the same bytes after a kill, and a bundle that loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import sha256_file
from gcrs.toolkit.model.batches import BatchPlan
from gcrs.toolkit.model.bundle import Bundle
from gcrs.toolkit.model.checkpoint import latest_checkpoint, save_checkpoint
from gcrs.toolkit.model.finetune import finetune
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.schedule import Schedule
from gcrs.toolkit.prepared import PreparedCatalog
from toys import toy_book, toy_catalog, toy_dialogues, toy_prepared, toy_tokenizer_json

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A toy base in the Hugging Face layout, a prepared catalogue and a file of dialogues."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("finetune")
    rows = len(json.loads(toy_tokenizer_json())["model"]["vocab"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        marks = {"bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": True}
        config = LlamaConfig(vocab_size=rows, num_key_value_heads=2, **sizes, **marks)
        LlamaForCausalLM(config).save_pretrained(root / "base")
    (root / "base" / "tokenizer.json").write_text(toy_tokenizer_json(), encoding="utf-8")
    toy_prepared().save(root / "catalog")
    write_dialogues(toy_dialogues() * 4, root / "train.jsonl")
    return {"root": root, "catalog": root / "catalog", "dialogues": (root / "train.jsonl",), "base": str(root / "base")}


def config(parts: dict[str, Any], out: Path, **changes: Any) -> FinetuneConfig:
    settings: dict[str, Any] = {"catalog": parts["catalog"], "dialogues": parts["dialogues"], "base": parts["base"]}
    settings |= {
        "out": out,
        "steps": 12,
        "rank": 4,
        "alpha": 8,
        "batch_tokens": 300,
        "warmup": 2,
        "save_steps": 2,
        "made": 20,
    }
    return FinetuneConfig(**(settings | {"threads": 1} | changes))


@pytest.fixture(scope="module")
def finished(parts: dict[str, Any]) -> Path:
    out = parts["root"] / "finished"
    report = finetune(config(parts, out, valid=parts["dialogues"][0], eval_limit=3))
    assert report["finished"] and report["steps"] == 12 and report["validation"]
    return out


RUN = """
import json, os, signal, sys
from pathlib import Path
from gcrs.toolkit.eval import one_pass
from gcrs.toolkit.model import checkpoint, finetune, trainer
plan = json.loads(sys.argv[1])
raw = plan["config"]
config = finetune.FinetuneConfig.from_mapping(raw)
if plan.get("kill_in_save"):
    real, calls = checkpoint.sha256_file, [0]
    def dying(path):  # called while the checkpoint's directory is staged and not yet renamed
        if str(path.parent.name).startswith(".step-"):
            calls[0] += 1
            if calls[0] == plan["kill_in_save"]:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(path)
    checkpoint.sha256_file = dying
step = trainer.Trainer.step
def counted(self):
    out = step(self)
    if plan.get("kill_at") == self.state.step:
        os.kill(os.getpid(), signal.SIGKILL)
    if plan.get("term_at") == self.state.step:
        os.kill(os.getpid(), signal.SIGTERM)
    return out
trainer.Trainer.step = counted
if plan.get("term_in_validation"):
    scored = one_pass.score_dialogue
    def slow(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return scored(*args, **options)
    one_pass.score_dialogue = slow
print(json.dumps(finetune.finetune(config, resume=plan["resume"])))
"""


def run(cfg: FinetuneConfig, **plan: Any) -> subprocess.CompletedProcess[str]:
    raw = cfg.resolved()
    plan = {"config": raw, "resume": False} | plan
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(plan)], capture_output=True, text=True, env=environment
    )


def test_a_killed_run_ends_with_the_same_bytes(parts: dict[str, Any], tmp_path: Path) -> None:
    straight = config(parts, tmp_path / "straight")
    assert run(straight).returncode == 0
    broken = config(parts, tmp_path / "broken")
    assert run(broken, kill_at=5).returncode == -signal.SIGKILL
    assert run(broken, resume=True, kill_in_save=2).returncode == -signal.SIGKILL
    assert run(broken, resume=True, kill_at=11).returncode == -signal.SIGKILL
    done = run(broken, resume=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"]
    assert sha256_file(broken.out / ADAPTER) == sha256_file(straight.out / ADAPTER)
    assert not list((tmp_path / "broken.run" / "checkpoints").glob(".step-*")), "no litter is left"
    steps = [json.loads(line)["step"] for line in (broken.out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


def test_sigterm_writes_a_checkpoint_and_resumes(parts: dict[str, Any], tmp_path: Path) -> None:
    cfg = config(parts, tmp_path / "term", save_steps=100)
    stopped = run(cfg, term_at=4)
    assert stopped.returncode == 0 and json.loads(stopped.stdout)["finished"] is False
    found = latest_checkpoint(tmp_path / "term.run" / "checkpoints")
    assert found is not None and found[0] == 4 and not cfg.out.exists()
    assert json.loads(run(cfg, resume=True).stdout)["finished"] is True


def test_sigterm_in_a_validation_gives_it_up_and_the_next_session_makes_up_for_it(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"valid": parts["dialogues"][0], "eval_limit": 6, "steps": 4}
    straight = finetune(config(parts, tmp_path / "straight", **settings))
    cfg = config(parts, tmp_path / "term", **settings)
    stopped = run(cfg, term_in_validation=True)
    assert stopped.returncode == 0, stopped.stderr
    assert json.loads(stopped.stdout)["finished"] is False and not cfg.out.exists()
    report = json.loads(run(cfg, resume=True).stdout)
    assert report["finished"] and report["validation"] == straight["validation"]
    assert sha256_file(cfg.out / ADAPTER) == sha256_file(tmp_path / "straight" / ADAPTER)


def test_minutes_decide_when_steps_do_not(parts: dict[str, Any], tmp_path: Path) -> None:
    cfg = config(parts, tmp_path / "minutes", steps=None, max_minutes=0.05)
    began = time.monotonic()
    report = finetune(cfg)
    assert report["finished"] and 0.05 <= report["minutes"] < 0.2 and time.monotonic() - began < 60
    training = json.loads((cfg.out / "training.json").read_text())
    assert training["decay_start"] is not None


def test_loss_falls_and_what_lies_beside_the_adapter(finished: Path) -> None:
    rows = [
        json.loads(line) for line in (finished.with_name("finished.run") / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["plain_loss"] < rows[0]["plain_loss"]
    assert (finished / "metrics.jsonl").read_text().count("\n") == 12
    training = json.loads((finished / "training.json").read_text())
    assert training["config"]["rank"] == 4 and set(training["data"]) == {"train.jsonl"}
    assert (finished / ADAPTER).stat().st_size < 200_000, "the resized embedding must not be saved with the adapter"


def test_bundle_loads_and_our_merge_is_pefts(finished: Path, parts: dict[str, Any]) -> None:
    import torch
    from peft import PeftModel

    from gcrs.toolkit.model.base import find_base, load_model
    from gcrs.toolkit.model.bundle import Bundle, load_engine, load_merged

    bundle = Bundle.load(finished)
    assert len(bundle.catalog) == 12 and bundle.tokens.new_tokens[-1] == "<c_3>"
    ours = load_merged(bundle, torch.float32)
    again = load_merged(bundle, torch.float32)  # from the cache this time
    plain = load_model(find_base(parts["base"]), torch.float32, rows=bundle.tokens.size)
    theirs = PeftModel.from_pretrained(plain, str(finished)).eval()
    ids = torch.arange(bundle.tokens.size)[None]
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        assert torch.allclose(ours(input_ids=ids).logits, expected, atol=1e-5)
        assert torch.equal(again(input_ids=ids).logits, ours(input_ids=ids).logits)
    engine = load_engine(bundle, dtype="fp32")
    assert len(engine.targets([*bundle.tokens.header("assistant"), bundle.tokens.rec], k=12)) == 12


def test_a_broken_or_mixed_bundle_is_refused_by_the_part_that_does_not_fit(finished: Path, tmp_path: Path) -> None:
    import shutil

    from gcrs.toolkit.model.bundle import Bundle

    def spoiled(name: str, data: bytes | None) -> Path:
        copy = tmp_path / name.replace(".", "_")
        shutil.copytree(finished, copy)
        (copy / name).unlink()
        if data is not None:
            (copy / name).write_bytes(data)
        return copy

    for name, data in {ADAPTER: b"x", "items.jsonl": b"", "semantic_ids.json": b"{", "tokenizer.json": None}.items():
        with pytest.raises(DataError, match=name):
            Bundle.load(spoiled(name, data))
    with pytest.raises(DataError, match=r"gcrs\.json"):
        Bundle.load(spoiled("gcrs.json", b"{"))
    with pytest.raises(DataError, match="no directory"):
        Bundle.load(tmp_path / "nothing")


def test_full_fine_tuning_ships_as_a_low_rank_adapter(parts: dict[str, Any], tmp_path: Path) -> None:
    from gcrs.toolkit.model.bundle import Bundle, load_engine

    cfg = config(parts, tmp_path / "full", method="full", rank=32, alpha=32, lr=3e-3, steps=4)
    finetune(cfg)
    engine = load_engine(Bundle.load(cfg.out), dtype="fp32")
    assert engine.targets([*engine.tokens.header("assistant"), engine.tokens.rec], k=1)


def test_the_full_change_survives_an_extraction_of_full_rank() -> None:
    import torch

    from gcrs.toolkit.model.adapter import PREFIX, AdapterShape, extract_low_rank

    torch.manual_seed(0)
    old, new = torch.randn(6, 4), torch.randn(6, 4)
    out = extract_low_rank({"l": old}, {"l": new}, AdapterShape(rank=4, alpha=8))
    product = 2.0 * out[f"{PREFIX}l.lora_B.weight"] @ out[f"{PREFIX}l.lora_A.weight"]
    assert torch.allclose(old + product, new, atol=1e-5)


def test_another_run_in_the_same_place_is_refused(parts: dict[str, Any], finished: Path) -> None:
    with pytest.raises(UsageError, match="earlier run"):
        finetune(config(parts, finished))
    with pytest.raises(UsageError, match="other settings"):
        finetune(config(parts, finished, lr=1.0), resume=True)


def test_config_errors_name_the_setting() -> None:
    base = {"catalog": "c", "dialogues": "d", "out": "o"}
    for extra, word in [({"steps": 1, "max_minutes": 1}, "budget"), ({"steps": 0}, "steps is 0"),
                        ({"steps": 1, "rnak": 2}, "rnak"), ({"steps": 1, "rank": "big"}, "rank"),
                        ({"steps": 1, "item_share": 2}, "item_share"), ({"steps": 1.5}, "steps")]:  # fmt: skip
        with pytest.raises(UsageError, match=word):
            FinetuneConfig.from_mapping(base | extra)


def test_checkpoint_falls_back_to_the_last_whole_one(tmp_path: Path) -> None:
    import torch

    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"w": torch.full((3,), float(step))}, {"step": step})
    (tmp_path / "step-00000002" / "tensors.safetensors").write_bytes(b"half")
    found = latest_checkpoint(tmp_path)
    assert found is not None and found[0] == 1 and found[1]["w"].tolist() == [1, 1, 1]
    assert latest_checkpoint(tmp_path / "none") is None


def test_batches_are_a_pure_function_and_cover_every_epoch() -> None:
    lengths = [5, 9, 3, 30, 8, 8, 2, 7] * 9
    plan, again = BatchPlan(lengths, 32, 1), BatchPlan(lengths, 32, 1)
    steps = plan.steps_per_epoch
    seen = sorted(int(i) for step in range(steps) for i in plan.at(step)[1])
    assert seen == list(range(len(lengths)))
    assert all(plan.at(s)[1].tolist() == again.at(s)[1].tolist() for s in range(steps * 2))
    for step in range(steps):
        rows = plan.at(step)[1]
        assert len(rows) == 1 or max(lengths[i] for i in rows) * len(rows) <= 32


def test_schedule_warms_up_holds_and_decays() -> None:
    schedule = Schedule(steps=100, minutes=None, warmup=10, decay=0.2)
    assert schedule.factor(0, 0) == 0.1 and schedule.factor(50, 0) == 1 and schedule.factor(90, 0) == pytest.approx(0.5)
    assert not schedule.done(99, 0) and schedule.done(100, 0) and schedule.decaying(80, 0)
    timed = Schedule(steps=None, minutes=10, warmup=1, decay=0.5)
    slow = Schedule(steps=None, minutes=10, warmup=20, decay=0.5)  # 20 steps may be more than the minutes hold
    assert slow.factor(0, 0.0) == 0.05 and slow.factor(3, 0.25) == pytest.approx(0.5) and slow.factor(6, 0.5) == 1
    assert timed.factor(7, 2.0) == 1 and timed.factor(7, 7.5) == pytest.approx(0.5) and timed.done(7, 10.1)


def test_rows_start_apart_and_matched_in_norm() -> None:
    import torch

    from gcrs.toolkit.model.rows import initial_rows
    from toys import toy_tokens

    tokens, book = toy_tokens(), toy_book()
    embedding = torch.randn(tokens.base_rows, 16)
    texts = [f"title: {item.label}" for item in toy_catalog()]
    rows = initial_rows(embedding, tokens, book, texts)
    assert rows.shape == (len(tokens.new_ids), 16)
    assert torch.allclose(rows.norm(dim=1), embedding.norm(dim=1).median().expand(len(rows)), atol=1e-3)
    similar = torch.nn.functional.normalize(rows, dim=1)
    assert (similar @ similar.T - torch.eye(len(rows))).max() < 0.99


def test_a_bundle_does_not_say_where_its_files_lay(parts: dict[str, Any], finished: Path) -> None:
    where = str(parts["root"])
    assert where in json.dumps(config(parts, finished).resolved())
    told = (finished / "training.json").read_text() + (finished / "README.md").read_text()
    assert where not in told and "train.jsonl" in told


def test_a_catalogue_alone_is_taught_from_another_bundle(parts: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    cfg = config(
        parts, tmp_path / "alone", dialogues=(), warm_start=str(finished), noun="film", made=60, steps=3, rank=7
    )
    report = finetune(cfg)
    assert report["counts"]["dialogues made"] == 60 and report["counts"]["dialogues read"] == 0
    assert report["validated_on"].startswith("held-out requests") and "recall@10" in report["validation"][-1]
    training = json.loads((cfg.out / "training.json").read_text())
    first = json.loads((finished / "training.json").read_text(encoding="utf-8"))["data"]
    assert first and training["data_before"] == first and not training["data"]
    assert training["warm_start"] == Bundle.load(finished).hash and training["config"]["noun"] == "film"
    shape = json.loads((cfg.out / "adapter_config.json").read_text())
    assert (shape["r"], shape["lora_alpha"]) == (4, 8), "the adapter goes on in its own shape"


@pytest.mark.parametrize("same", [True, False])
def test_a_warm_start_keeps_the_adapter_and_the_rows_that_mean_the_same(
    parts: dict[str, Any], finished: Path, tmp_path: Path, same: bool
) -> None:
    """Control rows always; rows of codes where the items have the same semantic IDs as in the bundle."""
    from dataclasses import replace

    from safetensors.torch import load_file

    from gcrs.toolkit.ids.codebook import Codebook

    catalog = parts["catalog"]
    if not same:
        prepared, catalog = PreparedCatalog.load(catalog), tmp_path / "other"
        ids = list(prepared.book.ids.items())
        swapped = {item: sid for (item, _), (_, sid) in zip(ids, [*ids[1:], ids[0]], strict=True)}
        replace(prepared, book=Codebook(prepared.book.codes, swapped)).save(catalog)
    changes = {"warm_start": str(finished), "made": 60, "steps": 1, "lr": 0.0, "id_lr": 0.0}
    still = config(parts, tmp_path / "still", catalog=catalog, dialogues=(), **changes)
    finetune(still)
    before, after = load_file(finished / ADAPTER), load_file(still.out / ADAPTER)
    assert all((before[name] == after[name]).all() for name in before if ".lora_" in name)
    rows = next(name for name in before if "trainable_tokens" in name)
    tokens = Bundle.load(finished).tokens
    controls = len(tokens.new_ids) - sum(tokens.codes)
    assert (before[rows][:controls] == after[rows][:controls]).all()
    assert bool((before[rows][controls:] == after[rows][controls:]).all()) == same


def test_few_dialogues_are_repeated_beside_those_made(parts: dict[str, Any], tmp_path: Path) -> None:
    report = finetune(config(parts, tmp_path / "few", made=60, steps=1))
    assert report["counts"]["dialogues made"] == 60 and report["counts"]["dialogues read"] == 12
    assert 1 <= report["counts"]["repeats of a dialogue"] <= 8


def test_what_a_warm_start_refuses(parts: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was trained on the base smollm2"):
        finetune(config(parts, tmp_path / "a", warm_start="movies"))
    with pytest.raises(DataError, match="no shipped bundle"):
        finetune(config(parts, tmp_path / "b", warm_start="nowhere"))
    with pytest.raises(UsageError, match="nothing to learn from"):
        config(parts, tmp_path / "c", dialogues=(), made=0)
    assert not list(tmp_path.iterdir()), "a refused run leaves nothing behind"


def test_dialogues_of_another_catalogue_are_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    other = [dialogue.map_items(lambda item: f"x-{item}") for dialogue in toy_dialogues()]
    write_dialogues(other, tmp_path / "other.jsonl")
    with pytest.raises(DataError, match=r"None of the .* items that the dialogues mention is in the catalogue"):
        finetune(config(parts, tmp_path / "out", dialogues=(tmp_path / "other.jsonl",)))
    assert not (tmp_path / "out.run").exists()


def test_the_last_weights_are_validated_once_and_unknown_ids_are_named(parts: dict[str, Any], tmp_path: Path) -> None:
    from gcrs.toolkit.dialogue.turns import Dialogue, Turn

    odd = Dialogue("odd", (Turn("user", "I like <item:nope> and <item:m01>"), Turn("assistant", "<item:m02>?")))
    write_dialogues([odd], tmp_path / "odd.jsonl")
    said: list[str] = []
    settings = {"valid": parts["dialogues"][0], "eval_limit": 2, "steps": 40, "made": 0, "item_share": 0.0}
    asked = config(parts, tmp_path / "out", dialogues=(*parts["dialogues"], tmp_path / "odd.jsonl"), **settings)
    report = finetune(asked, warn=said.append, resume=True)
    assert [row["step"] for row in report["validation"]] == [20, 40], "20 steps apart at least, the last one once"
    assert any("1 mentions of 1 items outside the catalogue" in one and "nope" in one for one in said)
    assert any(one.startswith("There is no checkpoint in") for one in said)
