"""Encoders by name: every architecture against sentence-transformers, descriptions obeyed, families, hub, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcrs.cli import main
from gcrs.toolkit.catalog.encoder_names import HUB_IDS, family_of
from gcrs.toolkit.catalog.encoders import encode_like, encode_texts, find_encoder
from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.errors import DataError, MissingModelError, UsageError
from gcrs.toolkit.ids.build import assign_many
from gcrs.toolkit.prepared import BuildConfig, PreparedCatalog
from toy_encoders import LONGEST, TEXTS, put, write_description, write_tokenizer, write_transformer
from toys import toy_catalog

PASSAGE = {"prompts": {"query": "query: ", "passage": "passage: "}}
MODULES = "sentence_transformers.models"


@pytest.fixture(scope="module")
def transformers_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bare transformer of each architecture."""
    root = tmp_path_factory.mktemp("transformers")
    for kind in ("bert", "xlm-roberta", "mpnet", "t5", "llama", "qwen2"):
        write_transformer(root / kind, kind)
    return {path.name: path for path in root.iterdir()}


def reference(folder: Path, texts: list[str], **how: Any) -> np.ndarray:
    """Unit vectors by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True, **how)


@pytest.mark.parametrize(
    ("kind", "pooling", "stated", "prompt"),
    [
        ("bert", "mean_tokens", {}, ""),
        ("bert", "cls_token", {"lower": True, "prompts": {"query": "find: ", "document": ""}}, ""),
        ("bert", "max_tokens", {"prompts": {"a": "say: "}, "default_prompt_name": "a"}, "say: "),
        ("xlm-roberta", "mean_tokens", PASSAGE, "passage: "),
        ("bert", "mean_tokens", {**PASSAGE, "include_prompt": False}, "passage: "),
        ("mpnet", "mean_tokens", {}, ""),
        ("t5", "mean_tokens", {"dense": True}, ""),
        ("llama", "mean_tokens", {}, ""),
        ("llama", "lasttoken", PASSAGE, "passage: "),
    ],
    ids=["bert-mean", "bert-cls", "bert-max", "xlmr-prefix", "prefix-apart", "mpnet", "t5-dense", "llama", "last"],
)
def test_a_described_encoder_gives_what_sentence_transformers_gives(
    kind: str,
    pooling: str,
    stated: dict[str, Any],
    prompt: str,
    transformers_dirs: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(transformers_dirs[kind], folder)
    write_description(folder, pooling, **stated)
    expected = reference(folder, TEXTS, prompt=prompt)
    found = find_encoder(str(folder))
    vectors = encode_texts(TEXTS, found, batch_size=3)
    assert np.abs(vectors - expected).max() < 1e-5
    assert vectors.shape == (len(TEXTS), found.width) == (len(TEXTS), 24 if stated.get("dense") else 16)
    record = found.record()
    assert (record["prefix"], record["max_tokens"], record["source"]) == (prompt, LONGEST - 4, "modules.json")
    assert np.abs(vectors[1:] - vectors[0]).max() > 0.01  # the toy tells texts apart


def test_what_sentence_transformers_itself_saves_is_read(transformers_dirs: dict[str, Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    inner = Transformer(str(transformers_dirs["xlm-roberta"]), max_seq_length=40)
    modules = [inner, Pooling(16, ("mean", "cls")), Normalize(), Dense(32, 8), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"document": "text: "}, device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    vectors = encode_texts(TEXTS, str(tmp_path / "saved"))
    assert np.abs(vectors - model.encode_document(TEXTS)).max() < 1e-5
    record = find_encoder(str(tmp_path / "saved")).record()
    assert record["pooling"] in ("mean+cls", "cls+mean") and record["layers"] == ["normalise", "3_Dense"]
    assert (record["width"], record["max_tokens"], record["prefix"]) == (8, 40, "text: ")


@pytest.mark.parametrize(
    ("name", "kind", "pooling", "prompt"),
    [
        ("bge-large-en-v1.5", "bert", "cls_token", ""),
        ("mxbai-embed-large-v1", "bert", "cls_token", ""),
        ("e5-large-v2", "bert", "mean_tokens", "passage: "),
        ("multilingual-e5-large", "xlm-roberta", "mean_tokens", "passage: "),
        ("gte-base", "bert", "mean_tokens", ""),
    ],
)
def test_a_familys_name_serves_where_nothing_is_described(
    name: str, kind: str, pooling: str, prompt: str, transformers_dirs: dict[str, Path], tmp_path: Path
) -> None:
    bare, described = tmp_path / name, tmp_path / "described"
    shutil.copytree(transformers_dirs[kind], bare)
    shutil.copytree(transformers_dirs[kind], described)
    write_description(described, pooling)
    put(described / "sentence_bert_config.json", {"max_seq_length": LONGEST})
    assert np.abs(encode_texts(TEXTS, str(bare)) - reference(described, TEXTS, prompt=prompt)).max() < 1e-5
    assert find_encoder(str(bare)).record()["source"] == f"the {family_of(name).name} family"  # type: ignore[union-attr]
    write_description(bare, pooling)  # e5 on the hub describes its pooling and not its prefix
    assert find_encoder(str(bare)).recipe.prefix == prompt


def test_short_names_are_of_known_families() -> None:
    assert all(family_of(name) == family_of(hub_id) is not None for name, hub_id in HUB_IDS.items())
    assert HUB_IDS["e5-large-v2"] == "intfloat/e5-large-v2"
    assert family_of("multilingual-e5-large-instruct") is None and family_of("/models/my-encoder") is None
    assert family_of("/c/models--intfloat--e5-small-v2/snapshots/abc").name == "e5"  # type: ignore[union-attr]


def test_sentence_t5_without_its_projection_is_refused(transformers_dirs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "sentence-t5-base"
    shutil.copytree(transformers_dirs["t5"], folder)
    with pytest.raises(DataError, match="has no 2_Dense: sentence-t5 needs this linear layer"):
        find_encoder(str(folder))
    write_description(folder, "mean_tokens", dense=True)
    described = encode_texts(TEXTS, str(folder))
    (folder / "modules.json").unlink()
    assert np.abs(encode_texts(TEXTS[:3], str(folder)) - described[:3]).max() < 1e-5
    shutil.move(folder / "2_Dense" / "model.safetensors", folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(DataError, match="only pickled weights, which are not loaded"):
        find_encoder(str(folder))


def by_hand(folder: Path, text: str, skip: int) -> np.ndarray:
    """A causal model's vector, one text at a time without padding: the mean of its last layer from token `skip` on."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, truncation=True)["input_ids"]
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0, skip:]
    return torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()


def test_a_causal_model_is_pooled_over_its_text(transformers_dirs: dict[str, Path], tmp_path: Path) -> None:
    for kind, skip in (("llama", 1), ("qwen2", 0)):  # the toy llama writes a start token, qwen2 none
        found = find_encoder(str(transformers_dirs[kind]))
        assert found.record()["source"].startswith("a causal language model: mean of the last layer")
        vectors = encode_texts(TEXTS, found)
        expected = np.stack([by_hand(transformers_dirs[kind], text, skip) for text in TEXTS[1:]])
        assert np.abs(vectors[1:] - expected).max() < 1e-5
        assert not vectors[0].any()  # no token of its own
    shutil.copytree(transformers_dirs["qwen2"], tmp_path / "described")
    write_description(tmp_path / "described", "mean_tokens")
    put(tmp_path / "described" / "sentence_bert_config.json", {"max_seq_length": LONGEST})
    assert np.abs(vectors[1:] - reference(tmp_path / "described", TEXTS[1:])).max() < 1e-5


def test_an_unknown_encoder_is_pooled_by_mean_and_says_so(transformers_dirs: dict[str, Path], tmp_path: Path) -> None:
    folder = transformers_dirs["mpnet"]
    record = find_encoder(str(folder)).record()
    assert record["source"] == "nothing describes this encoder: mean pooling assumed"
    assert (record["pooling"], record["prefix"], record["normalise"], record["width"]) == ("mean", "", True, 16)
    assert record["max_tokens"] == LONGEST
    assert np.abs(encode_texts(TEXTS, str(folder)) - reference(folder, TEXTS)).max() < 1e-5
    shutil.copytree(folder, tmp_path / "all")
    write_tokenizer(tmp_path / "all", "<s>", "</s>", longest=None)  # a tokenizer that states no length
    assert find_encoder(str(tmp_path / "all")).recipe.max_tokens == LONGEST


@pytest.mark.real
def test_the_default_base_is_an_encoder_too(base_weights: Path) -> None:
    vectors = encode_texts(["a scary ghost movie", "a horror film", "tax accounting"], "smollm2-135m-instruct")
    assert vectors.shape == (3, 576) and vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_hub_ids_and_short_names_come_from_the_hubs_cache(
    transformers_dirs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "models--intfloat--e5-small-v2"
    shutil.copytree(transformers_dirs["bert"], kept / "snapshots" / "0123")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    by_name, by_id = find_encoder("e5-small-v2"), find_encoder("intfloat/e5-small-v2")
    assert by_name.folder == by_id.folder == kept / "snapshots" / "0123"
    assert by_name.recipe.prefix == "passage: " and by_name.sha256 == by_id.sha256
    plain = encode_texts([f"passage: {TEXTS[2]}"], str(transformers_dirs["bert"]))
    assert np.abs(encode_texts([TEXTS[2]], by_name) - plain).max() < 1e-6
    (kept / "snapshots" / "0123" / "tokenizer.json").unlink()
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    with pytest.raises(MissingModelError, match=r"the hub's cache: tokenizer.json is not in .* GCRS_OFFLINE is set"):
        find_encoder("e5-small-v2")


def test_what_cannot_be_had_is_4_and_says_how_to_put_it_there(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_text("id,title\n1,Alien\n2,Up\n", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(in_tmp / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("GCRS_OFFLINE", raising=False)
    build = ["catalog", "build", "a.csv", "--out", "out", "--encoder"]
    assert main([*build, "e5-large-v2"]) == 4
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "The encoder 'intfloat/e5-large-v2' is no directory here" in err
    assert "the Hugging Face hub: " in err and "hf download intfloat/e5-large-v2 --local-dir DIR" in err
    assert main([*build, "e5-larg-v2"]) == 4
    assert "Did you mean e5-large-v2?" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: put(d / "modules.json", [{"type": f"{MODULES}.CNN", "path": ""}]), "asks for CNN"),
        (lambda d: put(d / "modules.json", {"a": 1}), "is no list of modules"),
        (lambda d: put(d / "modules.json", []), "has no Transformer with a Pooling behind it"),
        (lambda d: put(d / "1_Pooling" / "config.json", {"pooling_mode": "median"}), "asks for pooling 'median'"),
        (lambda d: (d / "1_Pooling" / "config.json").unlink(), "names 1_Pooling/config.json, which is not there"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is not in"),
        (lambda d: (d / "model.safetensors").write_bytes(b"{}"), "does not load as an encoder"),
        (lambda d: put(d / "config.json", {"model_type": "new", "hidden_size": 16}), "does not load as an encoder"),
        (lambda d: put(d / "tokenizer.json", {"model": 1}), "its tokenizer is broken"),
        (lambda d: put(d / "config.json", {"model_type": "bert", "num_hidden_layers": 2}), "another shape in"),
        (lambda d: put(d / "2_Dense" / "config.json", {"out_features": 9}), "24 numbers, its config says 9"),
        (
            lambda d: put(d / "2_Dense" / "config.json", {"activation_function": "os.system", "out_features": 24}),
            "a layer that gcrs does not have: os.system",
        ),
    ],
    ids=[
        "module",
        "no-list",
        "empty",
        "pooling",
        "no-pooling",
        "no-weights",
        "bytes",
        "kind",
        "tokens",
        "sizes",
        "dense",
        "code",
    ],
)
def test_broken_descriptions_are_one_sentence(
    change: Any, message: str, transformers_dirs: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(transformers_dirs["bert"], folder)
    write_description(folder, "mean_tokens", dense=True)
    change(folder)
    with pytest.raises(DataError, match=message) as caught:
        encode_texts(["a"], str(folder))
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(transformers_dirs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(transformers_dirs["bert"], tmp_path / "mixed")
    shutil.copy(transformers_dirs["llama"] / "model.safetensors", tmp_path / "mixed")
    with pytest.raises(DataError, match="its weights lack "):
        encode_texts(["a"], str(tmp_path / "mixed"))
    with pytest.raises(UsageError, match="The encoder cannot run on device 'nowhere'"):
        encode_texts(["b"], str(transformers_dirs["bert"]), device="nowhere")


def test_the_catalogue_records_its_encoder_and_refuses_another(
    transformers_dirs: dict[str, Path], tmp_path: Path
) -> None:
    folder, wide = tmp_path / "e5-base-v2", tmp_path / "wide"
    shutil.copytree(transformers_dirs["bert"], folder)
    built = PreparedCatalog.build(toy_catalog(), BuildConfig(encoder=str(folder)))
    built.save(tmp_path / "films")
    prepared = PreparedCatalog.load(tmp_path / "films")
    record = prepared.settings["encoder"]
    assert record == find_encoder(str(folder)).record() and len(record["sha256"]) == 64
    assert {"pooling": "mean", "prefix": "passage: ", "normalise": True, "width": 16}.items() <= record.items()
    new = Item("m13", "Stalker", {"year": 1979, "genre": ["sci-fi"]})
    assert len(assign_many(prepared.quantizer, prepared.vectors_of([new]), prepared.book.ids.values())) == 1

    write_description(folder, "cls_token")  # the same weights, pooled in another way
    with pytest.raises(DataError, match=r"was encoded by .* with pooling 'mean', here it is 'cls'"):
        prepared.vectors_of([new])
    shutil.copytree(transformers_dirs["t5"], wide)
    write_description(wide, "mean_tokens", dense=True)
    with pytest.raises(DataError, match="with sha256 "):
        encode_like(["a"], {"name": str(wide), "sha256": record["sha256"]})

    manifest = json.loads((tmp_path / "films" / "catalog.json").read_text())
    manifest["settings"]["encoder"] = find_encoder(str(wide)).record()  # a record that differs from the codebook
    put(tmp_path / "films" / "catalog.json", manifest)
    mixed = PreparedCatalog.load(tmp_path / "films")
    with pytest.raises(DataError, match="have 24 numbers, the quantizer was fitted on 16") as caught:
        assign_many(mixed.quantizer, mixed.vectors_of([new]), mixed.book.ids.values())
    assert caught.value.exit_code == 3
