"""Tree attention, prefix re-use and the sliced head give what a plain forward gives, architecture by architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.errors import GcrsError
from gcrs.toolkit.model.cache import PROVEN, PrefixCache
from gcrs.toolkit.model.engine import Engine
from toys import toy_book, toy_dialogues, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
PROMPT = [*encode_prompt(toy_dialogues()[0][:1], TOKENS, BOOK), TOKENS.rec]

EXTRA: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 8, "attn_implementation": "eager", "final_logit_softcapping": 5.0},
    "gemma3_text": {"head_dim": 8},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5},
    "qwen3": {"head_dim": 8},
    "ministral3": {"head_dim": 8},
    "mistral": {"sliding_window": 4096},
}


def random_model(kind: str, **more: Any) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    extra = {**EXTRA.get(kind, {}), **more}
    attention = extra.pop("attn_implementation", "sdpa")
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    rest: dict[str, Any] = {"vocab_size": TOKENS.size, "num_key_value_heads": 2, "initializer_range": 0.3, **ends}
    config = CONFIG_MAPPING[kind](**sizes, **rest, **extra)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def plain_scores(model: Any) -> list[float]:
    """log P of every item from one plain forward each."""
    out = []
    for sid in BOOK.ids.values():
        span = TOKENS.span(sid)
        with torch.no_grad():
            logits = model(torch.tensor([[*PROMPT, *span]])).logits[0, len(PROMPT) :].double()
        total = 0.0
        for level, code in enumerate(sid):
            siblings = sorted({other[level] for other in BOOK.ids.values() if other[:level] == sid[:level]})
            row = logits[level, [TOKENS.level_range(level)[c] for c in siblings]]
            total += float(torch.log_softmax(row, dim=0)[siblings.index(code)])
        out.append(total)
    return out


@pytest.mark.parametrize("kind", sorted(PROVEN | {"gemma2", "gemma3_text", "phi3", "cohere", "granite"}))
def test_scores_are_those_of_plain_forwards(kind: str) -> None:
    model = random_model(kind)
    engine = Engine(model, TOKENS, BOOK)
    engine.intent(PROMPT[:-1])
    assert engine.score_all(PROMPT) == pytest.approx(plain_scores(model), abs=1e-4)
    ranking = engine.targets(PROMPT, k=len(BOOK))
    scores = dict(zip(BOOK.ids, plain_scores(model), strict=True))
    assert [one.score for one in ranking] == pytest.approx([scores[one.item_id] for one in ranking], abs=1e-4)
    assert len(list(engine.respond([*PROMPT, TOKENS.resp], licensed=["m01"]))) > 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bfloat16_scores_are_close(attention: str) -> None:
    model = toy_model(TOKENS, attn_implementation=attention)
    exact = Engine(model, TOKENS, BOOK).score_all(PROMPT)
    half = Engine(model.to(torch.bfloat16), TOKENS, BOOK).score_all(PROMPT)
    assert half == pytest.approx(exact, abs=0.5) and np.exp(half).sum() == pytest.approx(1, abs=1e-4)


def test_branches_do_not_see_one_another() -> None:
    """The mask reaches the attention: siblings in one tree have the hidden states that each has alone."""
    held = PrefixCache(toy_model(TOKENS))
    held.extend(PROMPT)
    tokens, depths = np.array([30, 40, 50, 60, 70]), np.array([0, 0, 1, 1, 2])
    ancestors = np.array([[-1, -1], [-1, -1], [0, -1], [1, -1], [0, 2]])
    tree = held.branch(tokens, depths, ancestors)
    for node, path in enumerate([[30], [40], [30, 50], [40, 60], [30, 50, 70]]):
        alone = PrefixCache(held.model).extend([*PROMPT, *path])[0]
        assert torch.allclose(tree[node], alone, atol=1e-4)
    held.keep([30, 50, 70], [0, 2, 4])
    after = held.extend([*PROMPT, 30, 50, 70, 80])
    assert held.forwarded == len(PROMPT) + 1
    assert torch.allclose(after, PrefixCache(held.model).extend([*PROMPT, 30, 50, 70, 80]), atol=1e-4)


def test_a_model_that_cannot_take_tree_masks_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=TOKENS.size, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(GcrsError, match="does not take tree masks"):
        Engine(MambaForCausalLM(config).eval(), TOKENS, BOOK)


def test_a_wrapped_head_is_asked_and_not_read() -> None:
    """A PEFT layer holds more than its weight says: the head's own forward counts."""

    class Doubled(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.weight = inner, inner.weight

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = 2 * self.inner(hidden)
            return out

    model = toy_model(TOKENS, tie_word_embeddings=False)
    model.set_output_embeddings(Doubled(model.get_output_embeddings()))
    assert Engine(model, TOKENS, BOOK).score_all(PROMPT) == pytest.approx(plain_scores(model), abs=1e-4)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(GcrsError, match="training mode"):
        Engine(toy_model(TOKENS).train(), TOKENS, BOOK)


def test_a_sliding_window_bounds_the_dialogue() -> None:
    model = random_model("mistral", sliding_window=len(PROMPT) - 3)
    with pytest.raises(GcrsError, match=f"the model reads {len(PROMPT) - 3}"):
        Engine(model, TOKENS, BOOK).targets(PROMPT, k=1)
