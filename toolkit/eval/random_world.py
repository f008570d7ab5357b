"""A random catalogue and a tiny random model over it: any depth, any code counts, any crowding, any logits.

Knows nothing of what is proven with it.
"""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np

from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.ids.keys import id_keys
from gcrs.toolkit.model.engine import Engine
from gcrs.toolkit.model.tokens import ROLE_MARKS, TokenSpace

MOST_LEVELS, MOST_CODES, MOST_ITEMS = 6, 300, 4000
SPREADS = (0.0, 0.02, 0.3, 1.0)  # of the weights: from all items equally likely to one item certain


def random_book(rng: np.random.Generator) -> Codebook:
    """Between one item and `MOST_ITEMS`, crowded under few codes or spread over all."""
    levels = int(rng.integers(1, MOST_LEVELS + 1))
    counts = tuple(log_uniform(rng, MOST_CODES) for _ in range(levels))
    size = log_uniform(rng, MOST_ITEMS) if rng.random() < 0.5 else int(rng.integers(1, MOST_ITEMS + 1))
    wanted = min(size, math.prod(counts))
    crowding = float(rng.choice([1.0, 1.0, 2.0, 5.0]))
    drawn = (rng.random((2 * wanted, levels)) ** crowding * counts).astype(np.int64)
    _, first = np.unique(id_keys(drawn, counts), return_index=True)
    codes = drawn[rng.permutation(first)[:wanted]]
    return Codebook(counts, {f"i{row}": tuple(sid) for row, sid in enumerate(codes.tolist())})


def random_engine(rng: np.random.Generator) -> Engine:
    """A one-layer Llama of width 16 with random weights over a random catalogue; in half of them items have joined."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    book = random_book(rng)
    text = _byte_tokenizer()
    tokens = TokenSpace(text, len(json.loads(text)["model"]["vocab"]), book.codes)
    config = LlamaConfig(
        vocab_size=tokens.size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=float(rng.choice(SPREADS)),
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=bool(rng.random() < 0.5),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        model = LlamaForCausalLM(config).eval()
    if rng.random() < 0.5:
        return Engine(model, tokens, book)
    taught = rng.random(len(book)) < rng.random()
    taught[rng.integers(len(book))] = True
    known = {item: sid for (item, sid), was in zip(book.ids.items(), taught, strict=True) if was}
    return Engine(model, tokens, Codebook(book.codes, known)).over(book)


def log_uniform(rng: np.random.Generator, most: int) -> int:
    """A whole number from 1 to `most`, small ones as often as large ones."""
    return min(most, int(math.exp(rng.random() * math.log(most + 1))))


@cache
def _byte_tokenizer() -> str:
    """A tokenizer whose words are single bytes, with the role marks; tokenizers JSON."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    symbols = [*ROLE_MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: n for n, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ROLE_MARKS])
    out: str = tokenizer.to_str()
    return out
