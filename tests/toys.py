"""Small real parts for tests: a 12-item catalogue, its semantic IDs, a byte-level tokenizer, a two-layer random Llama.

Nothing here is a mock: the tokenizer is a tokenizers BPE whose words are single bytes, the model a transformers
Llama with random weights from a seed. No network, no files.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.tokens import TokenSpace

if TYPE_CHECKING:
    from gcrs.toolkit.model.engine import Engine
    from gcrs.toolkit.prepared import PreparedCatalog

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CODES = (4, 3, 5)

_FILMS = (
    ("m01", "Alien", 1979, ["horror", "sci-fi"], (0, 0, 0)),
    ("m02", "Aliens", 1986, ["action", "sci-fi"], (0, 0, 1)),
    ("m03", "The Matrix", 1999, ["action", "sci-fi"], (0, 0, 4)),
    ("m04", "Inception", 2010, ["action", "sci-fi"], (0, 1, 0)),
    ("m05", "Galaxy Quest", 1999, ["comedy", "sci-fi"], (0, 2, 3)),
    ("m06", "Airplane!", 1980, ["comedy"], (1, 0, 2)),
    ("m07", "The Big Lebowski", 1998, ["comedy", "crime"], (1, 0, 3)),
    ("m08", "Fargo", 1996, ["crime"], (1, 1, 1)),
    ("m09", "Heat", 1995, ["action", "crime"], (1, 2, 1)),
    ("m10", "Casablanca", 1942, ["drama", "romance"], (3, 0, 0)),
    ("m11", "Amélie", 2001, ["comedy", "romance"], (3, 2, 2)),
    ("m12", "It", 2017, ["horror"], (3, 2, 4)),
)


def toy_catalog() -> Catalog:
    """Twelve films with a year and genres."""
    items = [Item(i, title, {"year": year, "genre": genre}) for i, title, year, genre, _ in _FILMS]
    return Catalog(items, {"year": "integer", "genre": "list"})


def toy_book() -> Codebook:
    """Their semantic IDs: three levels of 4, 3 and 5 codes; code 2 of the first level is unused."""
    return Codebook(CODES, {i: sid for i, _, _, _, sid in _FILMS})


def toy_prepared() -> PreparedCatalog:
    """The same films with semantic IDs of random vectors, as `gcrs catalog build` makes them: three levels of 4."""
    import numpy as np

    from gcrs.toolkit.ids.build import build_codebook
    from gcrs.toolkit.prepared import PreparedCatalog

    catalog = toy_catalog()
    vectors = np.random.default_rng(0).normal(size=(len(catalog), 8)).astype(np.float32)
    ids = [item.id for item in catalog]
    quantizer, book, health = build_codebook(vectors, ids, quantizer="rqkmeans", levels=3, codes=4, seed=0)
    settings = {"text": {"template": "", "columns": ["year", "genre"]}}
    return PreparedCatalog(catalog, book, quantizer, settings, health.to_json())


@cache
def toy_tokenizer_json(specials: tuple[str, ...] = SPECIALS) -> str:
    """A byte-level BPE without merges: `specials`, then the 256 bytes; tokenizers JSON."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: n for n, token in enumerate(specials)}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    out: str = tokenizer.to_str()
    return out


def toy_tokens(codes: tuple[int, ...] = CODES) -> TokenSpace:
    """The toy tokenizer extended by our tokens for these code counts."""
    base = toy_tokenizer_json()
    return TokenSpace(base, len(json.loads(base)["model"]["vocab"]), codes)


def toy_model(tokens: TokenSpace | None = None, *, seed: int = 0, layers: int = 2, **config: Any) -> Any:
    """A Llama of width 32 with random fp32 weights, rows for every token of `tokens`, in eval mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = tokens or toy_tokens()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    extra = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "initializer_range": 0.3}
    settings = {"num_hidden_layers": layers, "vocab_size": tokens.size, "tie_word_embeddings": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**sizes, **extra, **settings, **config}))
    return model.eval()


def toy_engine(*, seed: int = 0, **options: Any) -> Engine:
    """An Engine over the toy model, tokens and codebook; `options` go to Engine."""
    from gcrs.toolkit.model.engine import Engine

    tokens = toy_tokens()
    return Engine(toy_model(tokens, seed=seed), tokens, toy_book(), **options)


def moved_adapter(model: Any) -> dict[str, Any]:
    """A PEFT model's trained parameters by name, moved a little: with LoRA's B at its zeros A has no gradient."""
    import torch

    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for n, parameter in enumerate(named.values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n)))
    return named


def toy_dialogues() -> list[Dialogue]:
    """Three short dialogues: a recommendation, a chat, and two recommendations in one reply."""
    return [
        Dialogue(
            "d1",
            (
                Turn("user", "I loved <item:m01>. Something funnier?"),
                Turn("assistant", "Then try <item:m05>!"),
            ),
        ),
        Dialogue(
            "d2",
            (
                Turn("user", "Hello, how are you?"),
                Turn("assistant", "Fine! What do you like?", intent="chat"),
                Turn("user", "Crime, like <item:m08>"),
                Turn("assistant", "You could watch <item:m09>."),
            ),
        ),
        Dialogue(
            "d3",
            (
                Turn("user", "Romance? 🎬 I know <item:m10>."),
                Turn("assistant", "How about <item:m11> or <item:m12>?"),
            ),
        ),
    ]
