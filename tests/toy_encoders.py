"""Tiny encoders with random weights, written as the public ones lie on the hub: one of each architecture.

Tokens are bytes, with the special tokens around a text that each architecture has. No network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toys import toy_tokenizer_json

LONGEST = 64
TEXTS = [
    "",
    "a",
    "title: Alien | year: 1979 | genres: horror, science fiction",
    ("word " * 400)[:2000],
    "فيلم عن الحرب والسلام",
    "🎬👩‍🚀 a film 🚀",
    "七人の侍 | 年: 1954",
    "MiXed CASE with  blanks",
]
_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def write_tokenizer(folder: Path, start: str | None, end: str | None, longest: int | None = LONGEST) -> None:
    """A byte tokenizer that writes `start` before and `end` behind a text."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    specials = ("<pad>", "<s>", "</s>", "<unk>")
    tokenizer = Tokenizer.from_str(toy_tokenizer_json(specials))
    around = [token for token in (start, end) if token]
    if around:
        single = " ".join([*([start] if start else []), "$A", *([end] if end else [])])
        ids = [(token, tokenizer.token_to_id(token)) for token in around]
        tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ids)
    named: dict[str, Any] = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": start, "eos_token": end}
    if longest:
        named["model_max_length"] = longest
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{key: value for key, value in named.items() if value is not None}
    )
    fast.save_pretrained(folder)


def write_transformer(folder: Path, kind: str, seed: int = 0) -> None:
    """Config, random weights and tokenizer of a bert, xlm-roberta, mpnet, t5, llama or qwen2."""
    import torch
    import transformers as t

    rows = {"vocab_size": 260, "pad_token_id": 0}
    positions = {"max_position_embeddings": LONGEST}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        if kind == "bert":
            model = t.BertModel(t.BertConfig(**rows, **_SIZES, **positions, initializer_range=0.5))
        elif kind == "xlm-roberta":
            config = t.XLMRobertaConfig(**rows, **_SIZES, max_position_embeddings=LONGEST + 1, initializer_range=0.5)
            model = t.XLMRobertaModel(config, add_pooling_layer=False)  # as most checkpoints of this kind are
        elif kind == "mpnet":
            config = t.MPNetConfig(**rows, **_SIZES, max_position_embeddings=LONGEST + 1, initializer_range=0.5)
            model = t.MPNetModel(config)
        elif kind == "t5":
            small = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
            model = t.T5EncoderModel(t.T5Config(**rows, **small, initializer_factor=5.0))
        else:
            config_of, model_of = {
                "llama": (t.LlamaConfig, t.LlamaForCausalLM),
                "qwen2": (t.Qwen2Config, t.Qwen2ForCausalLM),
            }[kind]
            model = model_of(config_of(**rows, **_SIZES, num_key_value_heads=1, initializer_range=0.5, **positions))
    model.save_pretrained(folder)
    around = {"t5": (None, "</s>"), "llama": ("<s>", None), "qwen2": (None, None)}
    write_tokenizer(folder, *around.get(kind, ("<s>", "</s>")))


def write_description(folder: Path, pooling: str, *, dense: bool = False, **stated: Any) -> None:
    """What sentence-transformers writes beside an encoder, in the older spelling that the hub is full of.

    `stated` may hold `prompts`, `default_prompt_name`, `include_prompt` and `lower`.
    """
    import torch
    from safetensors.torch import save_file

    names = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modes = {
        f"pooling_mode_{mode}": mode == pooling for mode in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    }
    put(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, **modes})
    if "include_prompt" in stated:
        put(
            folder / "1_Pooling" / "config.json",
            {"word_embedding_dimension": 16, **modes, "include_prompt": stated["include_prompt"]},
        )
    if dense:
        names.append(("2_Dense", "Dense"))
        identity = "torch.nn.modules.linear.Identity"
        shape = {"in_features": 16, "out_features": 24, "bias": False, "activation_function": identity}
        put(folder / "2_Dense" / "config.json", shape)
        weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(1))
        save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
    names.append((f"{len(names)}_Normalize", "Normalize"))
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(names)
    ]
    put(folder / "modules.json", modules)
    put(
        folder / "sentence_bert_config.json",
        {"max_seq_length": LONGEST - 4, "do_lower_case": stated.get("lower", False)},
    )
    prompts = {key: stated[key] for key in ("prompts", "default_prompt_name") if key in stated}
    put(folder / "config_sentence_transformers.json", {"__version__": {}, **prompts})


def put(path: Path, value: Any) -> None:
    """Write JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
