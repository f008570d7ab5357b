"""Tiny random base models of the families that gcrs trains, in the layout of the real ones.

Real are: config class, tied or untied head, kind of tokenizer (byte-level BPE, or SentencePiece-like BPE with byte
fallback), beginning-of-sequence token, rows of the embedding beyond the tokenizer (Qwen), a text model inside a model
of images (Ministral 3), and sharded files. Nothing here is a mock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    """How a tiny base differs from another."""

    kind: str
    tied: bool
    tokenizer: str = "bytes"  # bytes: byte-level BPE; pieces: Metaspace BPE; prepend: the same by a normalizer
    bos: str | None = None
    specials: tuple[str, ...] = ()  # such as the role marks that we use as well
    spare_rows: int = 0
    nested: bool = False  # the text model of a model that reads images as well
    shard: str = "1GB"
    more: dict[str, Any] = field(default_factory=dict)


MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FAMILIES = {
    "smollm2": Family("llama", True, specials=MARKS),
    "llama-2": Family("llama", False, "prepend", "<s>"),
    "llama-3": Family("llama", False, bos="<|begin_of_text|>", shard="50KB"),
    "qwen2.5": Family("qwen2", False, specials=MARKS, spare_rows=7),
    "qwen3": Family("qwen3", True, specials=MARKS, spare_rows=7, more={"head_dim": 8}),
    "mistral": Family("mistral", False, "pieces", "<s>", shard="50KB"),
    "ministral-3": Family("ministral3", False, bos="<s>", nested=True, more={"head_dim": 8}),
    "ministral-3-tied": Family("ministral3", True, bos="<s>", nested=True, more={"head_dim": 8}),
}
SENTENCES = (
    "I loved it. Something funnier?",
    "Then try this one instead, it is a lot of fun!",
    "Hello, how are you? Fine! What do you like? Crime, like Fargo or Heat",
    "You could watch The Matrix, Alien, Aliens, Galaxy Quest or The Big Lebowski from 1998",
)


def tokenizer_json(family: Family) -> str:
    """A small tokenizer of the family's kind, as tokenizers JSON."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    specials = [*([family.bos] if family.bos else []), *family.specials]
    tokenizer: Any
    if family.tokenizer == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        if family.kind.startswith("qwen"):
            tokenizer.normalizer = normalizers.NFC()
        alphabet, first = pre_tokenizers.ByteLevel.alphabet(), []
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        if family.tokenizer == "prepend":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            tokenizer.decoder = decoders.Sequence([*pieces, decoders.Strip(" ", 1, 0)])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            tokenizer.decoder = decoders.Sequence([*pieces, decoders.Strip(" ", 1, 0)])
        alphabet, first = [], ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*first, *specials], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [one for one in raw["added_tokens"] if one["content"] in ("<unk>", *specials)]
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if family.bos:
        place = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", pair=f"{family.bos} $A $B", special_tokens=[(family.bos, place)]
        )
    out: str = tokenizer.to_str()
    return out


def write_base(family: Family, directory: Path, *, width: int = 32, tokenizer: bool = True) -> Path:
    """Write a base model of random fp32 weights from a seed; returns its directory."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    text = tokenizer_json(family)
    rows = len(json.loads(text)["model"]["vocab"]) + family.spare_rows
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.1}
    settings = {**sizes, **ends, **family.more, "vocab_size": rows, "num_key_value_heads": 2}
    config = CONFIG_MAPPING[family.kind](**settings, tie_word_embeddings=family.tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family.nested:
            sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            eyes = CONFIG_MAPPING["pixtral"](**sight, head_dim=8, image_size=16, patch_size=8)
            whole = CONFIG_MAPPING["mistral3"](
                text_config=config, vision_config=eyes, tie_word_embeddings=family.tied, image_token_index=3
            )
            model: Any = AutoModelForImageTextToText.from_config(whole)
        else:
            model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory, max_shard_size=family.shard)
    if tokenizer:
        (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    return directory


def write_gguf(base: Path, path: Path) -> Path:
    """Write a Llama directory of `write_base` as one GGUF file with fp32 tensors."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    raw = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = sorted(raw["model"]["vocab"], key=raw["model"]["vocab"].get)
    special = {token["content"] for token in raw["added_tokens"]}
    kinds = gguf.TokenType
    types = [kinds.CONTROL if token in special else kinds.NORMAL for token in vocabulary]
    if raw["decoder"]["type"] == "ByteLevel":
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_merges([" ".join(pair) for pair in raw["model"]["merges"]])
    else:  # SentencePiece: the earlier a piece was merged, the higher its score
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(place) for place in range(len(vocabulary))])
        types = [kinds.BYTE if token.startswith("<0x") else kind for token, kind in zip(vocabulary, types, strict=True)]
        types[vocabulary.index("<unk>")] = kinds.UNKNOWN
        writer.add_unk_token_id(vocabulary.index("<unk>"))
        writer.add_eos_token_id(vocabulary.index("<unk>"))
    writer.add_token_list(vocabulary)
    writer.add_token_types(types)
    if raw.get("post_processor"):
        writer.add_bos_token_id(vocabulary.index(raw["post_processor"]["single"][0]["SpecialToken"]["id"]))
        writer.add_add_bos_token(True)

    def interleaved(weight: Any, count: int) -> Any:  # llama.cpp pairs neighbours where transformers pairs halves
        rows, width = weight.shape
        return weight.reshape(count, 2, rows // count // 2, width).swapaxes(1, 2).reshape(rows, width)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, value in load_file(base / "model.safetensors").items():
        if name.endswith("q_proj.weight"):
            value = interleaved(value, heads)
        if name.endswith("k_proj.weight"):
            value = interleaved(value, groups)
        found = names.get_name(name, try_suffixes=(".weight",))
        assert found is not None, name
        writer.add_tensor(found, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
