"""One contract for every family of base models: train, save, load, decode, merge, export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from base_models import FAMILIES, tokenizer_json, write_base, write_gguf
from gcrs.toolkit.dialogue.encode import encode, encode_prompt
from gcrs.toolkit.dialogue.turns import Dialogue, Turn, write_dialogues
from gcrs.toolkit.errors import DataError, MissingModelError, UsageError
from gcrs.toolkit.model.base import find_base, load_model
from gcrs.toolkit.model.bundle import Bundle, load_engine, load_merged
from gcrs.toolkit.model.export import export
from gcrs.toolkit.model.finetune import finetune
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.rows import initial_rows
from gcrs.toolkit.model.tokens import TokenSpace
from toys import toy_book, toy_dialogues, toy_prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The toy catalogue, prepared, and a file of dialogues."""
    root = tmp_path_factory.mktemp("bases")
    toy_prepared().save(root / "catalog")
    write_dialogues(toy_dialogues() * 4, root / "train.jsonl")
    return {"catalog": root / "catalog", "dialogues": root / "train.jsonl"}


def run(data: dict[str, Path], base: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"catalog": data["catalog"], "dialogues": (data["dialogues"],), "base": str(base)}
    settings |= {
        "out": out,
        "steps": 3,
        "rank": 4,
        "alpha": 8,
        "batch_tokens": 400,
        "warmup": 1,
        "threads": 1,
        "made": 40,
        "eval_limit": 5,
    }
    return finetune(FinetuneConfig(**(settings | changes)))


def plain_scores(model: Any, bundle: Bundle, prompt: list[int]) -> dict[str, float]:
    """log P of every item from one plain forward each."""
    book, tokens, out = bundle.book, bundle.tokens, {}
    for item, sid in book.ids.items():
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *tokens.span(sid)]])).logits[0, len(prompt) :].double()
        out[item] = 0.0
        for level, code in enumerate(sid):
            siblings = sorted({other[level] for other in book.ids.values() if other[:level] == sid[:level]})
            row = logits[level, [tokens.level_range(level)[c] for c in siblings]]
            out[item] += float(torch.log_softmax(row, dim=0)[siblings.index(code)])
    return out


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_family_keeps_the_whole_contract(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    family = FAMILIES[name]
    base = write_base(family, tmp_path / "base")
    out = tmp_path / "bundle"
    assert run(data, base, out)["finished"]
    bundle = Bundle.load(out)
    tokens = bundle.tokens
    assert tokens.new_ids.start == find_base(str(base)).rows

    merged = load_merged(bundle, torch.float32)
    plain = load_model(find_base(str(base)), torch.float32, rows=tokens.size)
    apart = merged.get_output_embeddings().weight is not merged.get_input_embeddings().weight
    assert apart != family.tied
    words = [bundle.prepared.words(item) for item in bundle.book]
    before = initial_rows(plain.get_output_embeddings().weight.detach(), tokens, bundle.book, words)
    now = merged.get_output_embeddings().weight.detach()[tokens.base_rows :]
    assert (now - before).abs().amax(dim=1).min() > 1e-3, "every new row of the head was trained"
    heads = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    assert torch.equal(heads[0][tokens.base_rows :], heads[1][tokens.base_rows :]) == family.tied
    theirs = PeftModel.from_pretrained(plain, str(out)).eval()
    ids = torch.arange(tokens.size)[None, :300]
    with torch.no_grad():
        expected = merged(input_ids=ids).logits
        assert torch.allclose(theirs(input_ids=ids).logits, expected, atol=1e-4)

    engine = load_engine(bundle, dtype="fp32")
    prompt = [*encode_prompt(toy_dialogues()[0][:1], tokens, bundle.book), tokens.rec]
    ranking = {one.item_id: one.score for one in engine.targets(prompt, k=50)}
    assert ranking == pytest.approx(plain_scores(merged, bundle, prompt), abs=1e-3), "each item once, and nothing else"
    assert "".join(str(part) for part in engine.respond([*prompt, tokens.resp], licensed=["m01"]))

    report = export(bundle, tmp_path / "plain", torch.float32, shard="50KB")
    assert (
        report["parameters"] == merged.num_parameters() and (tmp_path / "plain/model.safetensors.index.json").is_file()
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, expected)
    assert loaded.generation_config.do_sample is False and loaded.generation_config.eos_token_id == tokens.end
    speller = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert len(speller) == tokens.size
    said = "Something  funnier, Amélie? "
    assert speller(said, add_special_tokens=False).input_ids == tokens.encode_text(said)
    talk = [{"role": "user", "content": said}]
    encoded = encode_prompt(Dialogue("d", (Turn("user", said),)), tokens, bundle.book)
    assert speller.apply_chat_template(talk, add_generation_prompt=True, return_dict=False) == encoded
    assert Bundle.load(tmp_path / "plain" / "gcrs").hash == bundle.hash


@pytest.mark.parametrize("family", ["smollm2", "llama-3", "llama-2"])
def test_a_gguf_file_is_a_base(
    family: str, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tied or not: the same logits as the directory it was made of, and a bundle."""
    from dataclasses import replace

    monkeypatch.setenv("GCRS_CACHE", str(tmp_path / "cache"))  # a person's own cache takes no toys
    base = write_base(replace(FAMILIES[family], shard="1GB"), tmp_path / "base")
    file = write_gguf(base, tmp_path / "tiny.gguf")
    ours, theirs = load_model(find_base(str(file)), torch.float32), load_model(find_base(str(base)), torch.float32)
    ids = torch.arange(300)[None]
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-4)
    said = "Hello, how are you?"
    tokens = [TokenSpace(find_base(str(path)).tokenizer_json, 400, (2,)) for path in (file, base)]
    assert tokens[0].encode_text(said) == tokens[1].encode_text(said) and tokens[0].bos == tokens[1].bos
    assert run(data, file, tmp_path / "out")["finished"]
    assert load_engine(Bundle.load(tmp_path / "out"), dtype="fp32")
    file.write_bytes(b"GGUF and no more")
    with pytest.raises(DataError, match="cannot be read as GGUF"):
        find_base(str(file))


def test_the_text_model_of_a_larger_one_keeps_its_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    base = write_base(FAMILIES["ministral-3"], tmp_path / "base")
    whole = AutoModelForImageTextToText.from_pretrained(base).eval()
    ids = torch.arange(10, 300)[None]
    with torch.no_grad():
        expected = whole(input_ids=ids).logits
        assert torch.allclose(load_model(find_base(str(base)), torch.float32)(ids).logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bytes", "pieces", "prepend"])
def test_a_dialogue_grows_at_its_end_alone_with_every_kind_of_tokenizer(kind: str) -> None:
    family = next(one for one in FAMILIES.values() if one.tokenizer == kind and one.bos)
    tokens, book = TokenSpace(tokenizer_json(family), 420, (4, 3, 5)), toy_book()
    spelled = tokens.text_tokenizer.token_to_id
    assert tokens.bos == (spelled(family.bos),) and not tokens.forbidden_in_text.isdisjoint(tokens.bos)
    for dialogue in toy_dialogues():
        whole = encode(dialogue, tokens, book).ids.tolist()
        for n in range(len(dialogue) + 1):
            part = encode(dialogue[:n], tokens, book).ids.tolist()
            assert part == whole[: len(part)] and part[:1] == list(tokens.bos)
    for text in (" or ", "!", "or", "  two spaces", "tail ", "\n", "née 🎬", f"{family.bos}<REC><gcrs_unused_410>"):
        assert tokens.decode_text(tokens.encode_text(text)) == text, "pieces around items read back as they were"
    again = json.loads(tokens.extended_json())
    again["added_tokens"] = [one for one in again["added_tokens"] if one["id"] < 420]
    reread = TokenSpace(json.dumps(again), 420, (4, 3, 5))
    assert reread.new_tokens == tokens.new_tokens and reread.extended_json() == tokens.extended_json()
    typed = f"{family.bos}<REC><gcrs_unused_410>"
    assert reread.encode_text(typed) == tokens.encode_text(typed)
    assert set(range(len(json.loads(family_vocab(family))), 420)) <= tokens.forbidden_in_text


def family_vocab(family: Any) -> str:
    return json.dumps(json.loads(tokenizer_json(family))["model"]["vocab"])


def test_a_tokenizer_that_marks_the_end_has_no_beginning() -> None:
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_str(tokenizer_json(FAMILIES["qwen3"]))
    end = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[end])
    assert TokenSpace(tokenizer.to_str(), 400, (2,)).bos == ()
    with pytest.raises(DataError, match="its embedding 300 rows"):
        _ = TokenSpace(tokenizer.to_str(), 300, (2,)).new_tokens


def test_the_beginning_that_a_config_asks_for_is_added(tmp_path: Path) -> None:
    base = write_base(FAMILIES["llama-3"], tmp_path / "base")
    path, rows = base / "tokenizer.json", find_base(str(base)).rows
    first = TokenSpace(path.read_text(), rows, (2,)).bos
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    assert TokenSpace(find_base(str(base)).tokenizer_json, rows, (2,)).bos == ()
    settings = base / "tokenizer_config.json"
    settings.write_text(json.dumps({"add_bos_token": True, "bos_token": {"content": "<|begin_of_text|>"}}))
    assert TokenSpace(find_base(str(base)).tokenizer_json, rows, (2,)).bos == first != ()
    settings.write_text(json.dumps({"add_bos_token": True, "bos_token": "<nothing>"}))
    with pytest.raises(DataError, match="<nothing>"):
        _ = find_base(str(base)).tokenizer_json


def test_a_base_that_lacks_a_part_is_refused_in_a_sentence(data: dict[str, Path], tmp_path: Path) -> None:
    whole = write_base(FAMILIES["llama-3"], tmp_path / "whole")

    def spoiled(name: str, **files: str | None) -> str:
        copy = tmp_path / name
        shutil.copytree(whole, copy)
        for part, text in files.items():
            path = copy / part.replace("__", ".").replace("_of_", "-of-").replace("model_0", "model-0")
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text, encoding="utf-8")
        return str(copy)

    missing = {
        "no tokenizer": spoiled("a", tokenizer__json=None),
        "only tokenizer.model": spoiled("b", tokenizer__json=None, tokenizer__model="x"),
        "no config.json": spoiled("c", config__json=None),
        "model-00002-of-00004.safetensors is missing": spoiled("d", model_00002_of_00004__safetensors=None),
        "no such file": str(tmp_path / "nothing.gguf"),
    }
    for words, path in missing.items():
        with pytest.raises(MissingModelError, match=words):
            find_base(path)
    config = json.loads((whole / "config.json").read_text())
    quantised = json.dumps(config | {"quantization_config": {"quant_method": "fp8"}})
    wrong = {
        "no language model": spoiled("e", config__json="[]"),
        "not valid JSON": spoiled("f", config__json="{"),
        "quantised \\(fp8\\)": spoiled("g", config__json=quantised),
        "has no weight_map": spoiled("h", model__safetensors__index__json="{}"),
    }
    for words, path in wrong.items():
        with pytest.raises(DataError, match=words):
            find_base(path)
    with pytest.raises(DataError, match="is no tokenizer"):
        run(data, Path(spoiled("i", tokenizer__json="{}")), tmp_path / "out")
    larger = json.dumps(config | {"num_hidden_layers": 3})
    with pytest.raises(DataError, match="its files lack model"):
        load_model(find_base(spoiled("j", config__json=larger)), torch.float32)
    assert not (tmp_path / "out").exists()


def test_offline_a_hub_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    with pytest.raises(MissingModelError, match="'nobody/nothing' is no directory here"):
        find_base("nobody/nothing")
    with pytest.raises(MissingModelError, match=r"nobody/nothing:tiny\.gguf is not here"):
        find_base("nobody/nothing:tiny.gguf")


def test_full_fine_tuning_trains_the_rows_of_an_untied_head(data: dict[str, Path], tmp_path: Path) -> None:
    base = write_base(FAMILIES["qwen2.5"], tmp_path / "base")
    run(data, base, tmp_path / "out", method="full", rank=32, alpha=32, lr=3e-3)
    bundle = Bundle.load(tmp_path / "out")
    merged, first = load_merged(bundle, torch.float32), bundle.tokens.base_rows
    plain = load_model(find_base(str(base)), torch.float32)
    for now, before in zip(
        (merged.get_input_embeddings(), merged.get_output_embeddings()),
        (plain.get_input_embeddings(), plain.get_output_embeddings()),
        strict=True,
    ):
        assert torch.equal(now.weight[:first], before.weight), "the base's own rows stay"
    assert load_engine(bundle, dtype="fp32")


@pytest.mark.parametrize("name", ["smollm2", "llama-2"])
def test_all_embeddings_are_trained_and_read_as_peft_reads_them(
    name: str, data: dict[str, Path], tmp_path: Path
) -> None:
    """An ablation, on a tied and on an untied head: rows of words move too, and no run starts from the bundle."""
    from peft import PeftModel

    base = write_base(FAMILIES[name], tmp_path / "base")
    run(data, base, tmp_path / "all", embeddings="all", made=0, item_share=0)
    bundle = Bundle.load(tmp_path / "all")
    ours = load_merged(bundle, torch.float32)
    plain = load_model(find_base(str(base)), torch.float32, rows=bundle.tokens.size)
    before = plain.get_input_embeddings().weight[: bundle.tokens.base_rows].clone()
    theirs: Any = PeftModel.from_pretrained(plain, str(tmp_path / "all")).eval()
    ids = torch.arange(bundle.tokens.size)[None]
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5)
    moved = (ours.get_input_embeddings().weight[: bundle.tokens.base_rows] - before).norm(dim=1)
    assert 0 < int((moved > 1e-4).sum()) <= len(before)
    with pytest.raises(UsageError, match="trained all embeddings"):
        run(data, base, tmp_path / "next", warm_start=str(tmp_path / "all"))
    with pytest.raises(UsageError, match="method: lora"):
        run(data, base, tmp_path / "next", embeddings="all", method="full")


def test_an_export_replaces_an_export_and_nothing_else(data: dict[str, Path], tmp_path: Path) -> None:
    from gcrs.cli import main

    run(data, write_base(FAMILIES["qwen3"], tmp_path / "base"), tmp_path / "bundle", steps=1)
    command = ["export", "--bundle", str(tmp_path / "bundle"), "--out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert main([*command, str(tmp_path / "mine")]) == 3
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert main([*command, str(tmp_path / "out")]) == 0 and main([*command, str(tmp_path / "out"), "--json"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for place in ("", "gcrs", "gcrs/mine"):
        (tmp_path / "out" / place).mkdir(exist_ok=True)
        (letter := tmp_path / "out" / place / "letter.txt").write_text("dear")
        assert main([*command, str(tmp_path / "out")]) == 3 and letter.read_text() == "dear"
        letter.unlink()
    (tmp_path / "out" / "gcrs" / "mine").rmdir()
    assert main([*command, str(tmp_path / "out")]) == 0
    assert config["dtype"] == "bfloat16" and config["vocab_size"] == Bundle.load(tmp_path / "bundle").tokens.size
    shutil.rmtree(tmp_path / "base")
    assert main([*command, str(tmp_path / "later")]) == 4 and not (tmp_path / "later").exists()


def test_four_bits_train_and_the_bundle_is_whole(data: dict[str, Path], tmp_path: Path) -> None:
    """NF4 on the CPU kernels of bitsandbytes: linear layers are 4-bit, the loss falls, the adapter merges into fp32."""
    import bitsandbytes as bnb

    base = write_base(FAMILIES["qwen2.5"], tmp_path / "base", width=64)
    model = load_model(find_base(str(base)), torch.float32, rows=420, quantize="4bit")
    kinds = {type(part) for name, part in model.named_modules() if name.endswith("_proj")}
    assert kinds == {bnb.nn.Linear4bit} and type(model.get_output_embeddings()) is torch.nn.Linear
    run(data, base, tmp_path / "out", quantize="4bit", steps=12, item_share=0.0)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["plain_loss"] < rows[0]["plain_loss"]
    merged = load_merged(Bundle.load(tmp_path / "out"), torch.float32)
    assert merged.get_output_embeddings().weight.shape[0] == Bundle.load(tmp_path / "out").tokens.size
    with pytest.raises(UsageError, match="no 4-bit kernels for cuda:99"):
        load_model(find_base(str(base)), torch.float32, quantize="4bit", device="cuda:99")
    with pytest.raises(UsageError, match="method: lora"):
        run(data, base, tmp_path / "full", quantize="4bit", method="full")


def test_without_bitsandbytes_four_bits_are_refused(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    base = write_base(FAMILIES["qwen3"], tmp_path / "base")
    with pytest.raises(MissingModelError, match="bitsandbytes, which is not installed"):
        run(data, base, tmp_path / "out", quantize="4bit")
