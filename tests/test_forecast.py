"""A run's forecast against what comes: bytes that autograd keeps, minutes, the refusal before anything is loaded."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gcrs.cli import main
from gcrs.toolkit.dialogue.corpus import build_corpus
from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.errors import DataError, MissingModelError, UsageError
from gcrs.toolkit.model import finetune as finetuning
from gcrs.toolkit.model.adapter import AdapterShape, attach
from gcrs.toolkit.model.base_config import base_config
from gcrs.toolkit.model.batches import BatchPlan, pieces
from gcrs.toolkit.model.finetune import finetune
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.forecast import Shape, Work, memory_parts, trained_numbers
from gcrs.toolkit.model.loss import SupervisedLoss
from gcrs.toolkit.model.machine import free_memory, peak_memory
from gcrs.toolkit.model.outlook import Outlook, assumed_work, work_of
from gcrs.toolkit.model.probe import recompute
from gcrs.toolkit.model.recipes import read_recipe, shipped_recipes
from gcrs.toolkit.model.schedule import Schedule
from gcrs.toolkit.model.trainer import Phase, RunSettings, Trainer
from toys import moved_adapter, toy_book, toy_dialogues, toy_model, toy_prepared, toy_tokens

ADAPTER = "adapter_model.safetensors"
WHOLE = {"catalog": "c", "out": "o", "dialogues": "d"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The toy catalogue, prepared, and a file of dialogues."""
    root = tmp_path_factory.mktemp("forecast")
    toy_prepared().save(root / "catalog")
    write_dialogues(toy_dialogues() * 4, root / "train.jsonl")
    return {"catalog": str(root / "catalog"), "dialogues": str(root / "train.jsonl")}


def config(data: dict[str, str], base: Path, out: Path, **changes: Any) -> FinetuneConfig:
    settings = {"base": str(base), "out": str(out), "steps": 4, "rank": 4, "alpha": 8, "made": 20, "threads": 1}
    return FinetuneConfig.from_mapping(
        {**data, **settings, "batch_tokens": None if "batch_sequences" in changes else 300, **changes}
    )


# ------------------------------------------------------------------------------------------------ steps in parts


def gradients(tmp_path: Path, *, again: bool = False, **settings: Any) -> tuple[dict[str, torch.Tensor], int, float]:
    """(gradients of one step, passes it took, loss) on the toy model without dropout."""
    tokens = toy_tokens()
    model = attach(toy_model(tokens), tokens.new_ids, AdapterShape(4, 8, 0.0), 0)
    named = moved_adapter(model)
    if again:
        recompute(model)
    corpus, _ = build_corpus(toy_dialogues() * 4, tokens, toy_book())
    run = RunSettings(Schedule(2, None, 1, 0.3), 900, 0, tokens.rec, 5, **settings)
    groups: list[dict[str, Any]] = [{"params": list(named.values()), "lr": 1e-3}]
    trainer = Trainer(model, groups, named, [Phase("all", corpus, (0.0, 1.0, 1.0, 0.5, 0.5, 0.5), 1.0)], run, tmp_path)
    parts = trainer._batch()
    shown, _, count, _ = trainer._backward(parts)
    assert count == sum(ids.numel() for ids, _ in parts)
    return {name: parameter.grad.clone() for name, parameter in named.items()}, len(parts), shown  # type: ignore[union-attr]


@pytest.mark.parametrize("settings", [{"micro_tokens": 250}, {"micro_tokens": 1}, {"again": True}], ids=str)
def test_a_step_in_parts_has_the_gradient_of_the_whole(settings: dict[str, Any], tmp_path: Path) -> None:
    whole, one, loss = gradients(tmp_path)
    split, several, same = gradients(tmp_path, **settings)
    assert one == 1 and (several > 1) == ("micro_tokens" in settings) and same == pytest.approx(loss, rel=1e-3)
    for name, expected in whole.items():
        assert float((split[name] - expected).norm()) <= 0.02 * float(expected.norm()) + 1e-6, name


def test_a_batch_by_sequences_is_that_many_and_covers_the_epoch() -> None:
    lengths = [5, 9, 3, 30, 8, 8, 2, 7] * 9
    plan = BatchPlan(lengths, 32, 1, sequences=10)
    assert [len(batch) for batch in plan.first_epoch] == [10] * 7 + [2] and plan.steps_per_epoch == 8
    assert sorted(int(n) for batch in plan.first_epoch for n in batch) == list(range(72))
    batch = plan.first_epoch[0]
    parts = pieces(batch, np.asarray(lengths), 20)
    assert np.concatenate(parts).tolist() == batch.tolist() and len(parts) > 1
    assert all(len(part) == 1 or max(lengths[n] for n in part) * len(part) <= 20 for part in parts)


def test_a_stopped_run_in_parts_ends_with_the_same_bytes(
    data: dict[str, str], toy_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"batch_sequences": 5, "micro_tokens": 120, "recompute": True, "save_steps": 2}
    straight = config(data, toy_base_dir, tmp_path / "straight", **changes)
    finetune(straight)
    broken = config(data, toy_base_dir, tmp_path / "broken", **changes)
    step = Trainer.step

    def dying(self: Trainer) -> dict[str, float]:
        if self.state.step == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune(broken)
    monkeypatch.setattr(Trainer, "step", step)
    assert finetune(broken, resume=True)["resumed"]
    assert (broken.out / ADAPTER).read_bytes() == (straight.out / ADAPTER).read_bytes()


def test_a_setting_that_came_later_does_not_orphan_a_run_that_is_there() -> None:
    plain = FinetuneConfig.from_mapping(WHOLE)
    later = {"batch_sequences", "micro_tokens", "recompute", "memory_check", "mixture", "tokens", "ratings", "chat"}
    later |= {"titles", "embeddings"}
    assert set(plain.resolved()) - set(plain.deciding()) == later
    used = FinetuneConfig.from_mapping({**WHOLE, "micro_tokens": 9, "memory_check": "off", "titles": True})
    assert used.deciding()["micro_tokens"] == 9 and used.deciding()["titles"] and "memory_check" not in used.deciding()


# ------------------------------------------------------------------------------------------------ the arithmetic


@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("method", "dropout"), [("lora", 0.05), ("lora", 0.0), ("full", 0.0)])
def test_the_bytes_counted_are_those_that_autograd_keeps(method: str, dropout: float, bf16: bool) -> None:
    """Blocks 2 and 3 of a model against what the forecast says of two blocks."""
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens, count, length = toy_tokens(), 2, 256
    kept = []
    for layers in (1, 3):
        model = toy_model(tokens, layers=layers, **sizes).to(
            torch.bfloat16 if method == "lora" and bf16 else torch.float32
        )
        if method == "lora":
            model = attach(model, tokens.new_ids, AdapterShape(8, 16, dropout), 0)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        seen: dict[int, torch.Tensor] = {}

        def keep(value: torch.Tensor, seen: dict[int, torch.Tensor] = seen) -> torch.Tensor:
            seen[value.untyped_storage().data_ptr()] = value
            return value

        ids = torch.randint(0, tokens.base_rows, (count, length))
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = SupervisedLoss(model).train()(ids, torch.ones(count, length))
        kept.append(sum(v.untyped_storage().nbytes() for place, v in seen.items() if place not in weights))
        del loss
    shape = Shape.of({"num_hidden_layers": 2, "vocab_size": 300, **sizes})
    run = FinetuneConfig.from_mapping({**WHOLE, "method": method, "dropout": dropout, "rank": 8})
    work = Work(512, 512, count * length, 0, length)
    told = memory_parts(shape, run, work, 0, bf16=bf16, validates=False)["activations"]
    assert told == pytest.approx(kept[1] - kept[0], rel=0.03)


def test_the_shape_counts_the_parameters_of_the_model() -> None:
    tokens = toy_tokens()
    model = toy_model(tokens)
    shape = Shape.of(model.config.to_dict())
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert shape.linear + shape.table() == model.num_parameters() - norms
    adapter = attach(model, tokens.new_ids, AdapterShape(4, 8, 0.0), 0)
    run = FinetuneConfig.from_mapping({**WHOLE, "rank": 4})
    trained = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert trained_numbers(shape, run, len(tokens.new_ids)) == trained
    with pytest.raises(DataError, match="hidden_size"):
        Shape.of({"vocab_size": 3})


def test_the_papers_recipe_by_hand() -> None:
    """Qwen2.5-7B's sizes: 6.5 billion weights in blocks, twice 152,064 rows of 3,584; the sums by hand."""
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    shape = Shape.of({**sizes, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False})
    assert shape.linear == 28 * 3584 * (2 * 3584 + 2 * 512 + 3 * 18944) and shape.table() == 2 * 152064 * 3584
    run = FinetuneConfig.from_mapping({**WHOLE, **read_recipe("paper-redial")})
    parts = memory_parts(shape, run, assumed_work(run), 261, bf16=True, validates=False)
    assert parts["weights"] == int(shape.linear * 0.516) + 2 * shape.table(261)
    assert parts["optimizer"] == 12 * (28 * shape.sides * 16 + 2 * 261 * 3584)
    without = memory_parts(shape, FinetuneConfig.from_mapping({**WHOLE, **read_recipe("paper-redial"),
                           "recompute": False}), assumed_work(run), 261, bf16=True, validates=False)  # fmt: skip
    assert without["activations"] > 10 * parts["activations"]


def test_work_is_what_the_batches_hold() -> None:
    tokens = toy_tokens()
    corpus, _ = build_corpus(toy_dialogues() * 4, tokens, toy_book())
    run = FinetuneConfig.from_mapping({**WHOLE, "batch_sequences": 6, "micro_tokens": 250, "steps": 9})
    work = work_of(run, [Phase("all", corpus, (0.0, 1.0, 1.0, 1.0, 1.0, 1.0), 1.0)])
    batches = BatchPlan(corpus.lengths, 0, 0, 6).first_epoch
    parts = [part for batch in batches for part in pieces(batch, corpus.lengths, 250)]
    padded = [int(corpus.lengths[part].max()) * len(part) for part in parts]
    assert work.tokens == pytest.approx(sum(padded) / len(batches)) and work.at_once == max(padded)
    assert work.supervised * len(batches) == pytest.approx(int((corpus.kinds > 0).sum())) and work.steps == 9


# ------------------------------------------------------------------------------------------- against what comes


def test_the_forecast_is_within_a_factor(
    data: dict[str, str], toy_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time on the process's own clock, so that neighbours on the machine do not count; what only a first step costs
    (kernels made for its shapes) is a few of forty."""
    monkeypatch.setattr(time, "monotonic", time.process_time)
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    out = tmp_path / "out"
    report = finetune(config(data, toy_base_dir, out, steps=40))
    told, seen = report["forecast"], report["measured"]
    assert 1 / 8 < told["tokens_per_second"] / seen["tokens_per_second"] < 8
    assert 0.7 < told["memory_gb"] / seen["memory_gb"] < 1.4
    kept = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert kept["forecast"] == told and set(kept["measured"]) == {"minutes", "tokens_per_second", "memory_gb"}


def test_a_run_that_cannot_fit_stops_before_loading(
    data: dict[str, str], toy_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcrs.toolkit.model.outlook.free_memory", lambda device: 1_000)
    with pytest.raises(UsageError, match=r"forecast to need .* GB of memory \(weights .*memory_check=off"):
        finetune(config(data, toy_base_dir, tmp_path / "out"))
    assert not list(tmp_path.iterdir())
    said: list[str] = []
    monkeypatch.setattr(finetuning, "fitted", lambda config, data: (_ for _ in ()).throw(InterruptedError))
    for check in ("warn", "off"):
        outlook = Outlook.of(config(data, toy_base_dir, tmp_path / "out", memory_check=check),
                             base_config(str(toy_base_dir)), None, 9, validates=False)  # fmt: skip
        said.append(outlook.check() or "")
    assert said[0].startswith("The run is forecast to need ") and said[1] == ""


def test_a_base_that_cannot_fit_is_not_fetched(
    data: dict[str, str], toy_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config.json of a hub id decides before its weights are asked for."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text((toy_base_dir / "config.json").read_text(), encoding="utf-8")
    monkeypatch.setattr("gcrs.toolkit.model.base_config._of_hub", lambda name, fetch: tmp_path / "hub")
    monkeypatch.setattr("gcrs.toolkit.model.outlook.free_memory", lambda device: 1_000)
    with pytest.raises(UsageError, match="forecast to need"):
        finetune(config(data, Path("some/model"), tmp_path / "out"))


def test_this_machine_says_what_it_has() -> None:
    free, peak = free_memory(), peak_memory()
    assert free is None or free > 1e6
    assert peak is None or peak > 1e7


# ---------------------------------------------------------------------------------------------------- recipes


def test_recipes_are_whole_and_say_why() -> None:
    assert list(shipped_recipes()) == ["h100", "laptop", "paper-inspired", "paper-redial"]
    for name, path in shipped_recipes().items():
        text = path.read_text(encoding="utf-8")
        FinetuneConfig.from_mapping({**WHOLE, **read_recipe(name)})
        lines = [line for line in text.splitlines() if re.match(r"\w+:", line)]
        assert lines and all("#" in line for line in lines), f"{name}: every setting says why"
        assert "# Claim: " in text and "# Ran on: " in text and "gcrs doctor" in text
        assert ("UNVERIFIED" in text) == (name != "laptop")


def test_the_papers_recipes_are_the_papers() -> None:
    same = {"base": "Qwen/Qwen2.5-7B-Instruct", "quantize": "4bit", "rank": 16, "alpha": 32, "dropout": 0.05}
    same |= {"batch_sequences": 72, "max_length": 768, "layout": "instance", "item_share": 0, "user_item_weight": 0}
    for name, own in {
        "paper-redial": {"lr": 2e-4, "steps": 1800, "warmup": 150},
        "paper-inspired": {"lr": 1e-4, "steps": 240, "warmup": 50},
    }.items():
        recipe = read_recipe(name)
        assert {key: recipe[key] for key in (*same, *own)} == same | own
        assert {recipe[f"{part}_weight"] for part in ("intent", "target", "text", "mention")} == {1.0}


def test_what_a_recipe_may_not_be(in_tmp: Path) -> None:
    with pytest.raises(UsageError, match=r"No recipe is called 'labtop'.* Did you mean laptop\? .*paper-redial"):
        read_recipe("labtop")
    Path("mine.yaml").write_text("rank: 4\nrnak: 2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.yaml: unknown setting 'rnak'\. Did you mean rank\?"):
        read_recipe("mine.yaml")
    for text, message in {
        "method: loar": "method is 'loar', expected lora or full",
        "dialogues: {a: 1}": "dialogues is {'a': 1}, expected a path or a list of paths",
        "lr: -1": "lr is -1, expected a number of at least 0",
        "catalog: 3": "catalog is 3, expected a path",
        "recompute: maybe": "recompute is 'maybe', expected true or false",
        "noun: no": "noun is False, expected a text",
        "rank:": "rank is empty, expected a whole number of at least 1",
    }.items():
        Path("mine.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=re.escape(f"mine.yaml: {message}")):
            read_recipe("mine.yaml")
    with pytest.raises(UsageError, match="batch once"):
        FinetuneConfig.from_mapping({**WHOLE, "batch_tokens": 9, "batch_sequences": 9})


# ------------------------------------------------------------------------------------------------ gcrs doctor


def test_doctor_forecasts_a_run(
    data: dict[str, str], toy_base_dir: Path, movies_bundle: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--catalog", data["catalog"], "--dialogues", data["dialogues"], "--base", str(toy_base_dir)]
    flags += ["--steps", "6", "--set", "made=20", "--set", "threads=1"]
    main(["doctor", *flags])
    lines = capsys.readouterr().out.splitlines()[-5:]
    pattern = (
        rf"ok   step: [\d,]+ tokens, [\d,]+ of them with a loss, [\d,]+ at once \(from the data\)\n"
        rf"ok   memory: [\d.]+ GB of memory \(.*\) on cpu, where [\d.]+ GB are free: it fits\n"
        rf"ok   time: [\d.,]+ minutes for 6 steps, [\d.]+ M tokens; [\d,]+ tokens/s, measured just now; .*\n"
        rf"ok   disk: GB: checkpoints [\d.]+, bundle [\d.]+, merged [\d.]+; [\d.]+ free at {re.escape(str(in_tmp))}\n"
        rf"ok   verdict: {re.escape(str(toy_base_dir))} by lora on cpu: it can start"
    )
    assert re.fullmatch(pattern, "\n".join(lines)), lines
    assert not list(in_tmp.iterdir())


def test_doctor_says_what_a_recipe_lacks(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(in_tmp / "hub"))
    assert main(["doctor", "--config", "paper-redial", "--bundle", "nowhere", "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in answer["checks"]}
    assert answer["forecast"] is None and found["forecast"]["exit_code"] == 4
    assert found["forecast"]["found"].startswith("The config.json of the base Qwen/Qwen2.5-7B-Instruct is not at hand")
    assert found["weights"]["found"].startswith("Qwen/Qwen2.5-7B-Instruct is not here")
    assert found["verdict"]["found"].startswith("Qwen/Qwen2.5-7B-Instruct by lora on cuda: see ")
    with pytest.raises(MissingModelError, match="--base DIR"):
        base_config("Qwen/Qwen2.5-7B-Instruct")


def test_doctor_forecasts_for_a_gpu_that_is_not_here(
    toy_base_dir: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        return
    main(["doctor", "--config", "h100", "--base", str(toy_base_dir), "--json"])
    answer = json.loads(capsys.readouterr().out)
    forecast = answer["forecast"]
    assert forecast["memory_needed"] == sum(forecast["memory"].values()) > 0
    assert (forecast["memory_free"], forecast["fits"], forecast["minutes"]) == (None, None, None)
    memory = next(check for check in answer["checks"] if check["name"] == "memory")
    assert memory["found"].endswith(": THERE IS NO SUCH DEVICE HERE") and memory["exit_code"] == 2
