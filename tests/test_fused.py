"""The training step's own layers against PEFT's and torch's: the same values, the same gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from base_models import FAMILIES, write_base
from gcrs.toolkit.model import adapter as adapters
from gcrs.toolkit.model import causal_attention, fused, head_chunks, loss
from gcrs.toolkit.model.adapter import AdapterShape, attach
from gcrs.toolkit.model.base import find_base, load_model
from gcrs.toolkit.model.loss import SupervisedLoss
from gcrs.toolkit.model.probe import recompute
from toys import moved_adapter

NEW = 9


def step(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    plain: bool,
    bf16: bool,
    dropout: float = 0.0,
    again: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """(loss, cross-entropies, gradients) of one step; `plain`: as PEFT and torch compute it."""
    with monkeypatch.context() as patch:
        if plain:
            patch.setattr(adapters, "fuse", lambda model: 0)
            patch.setattr(loss, "head_loss", lambda *_: None)
            patch.setattr(loss, "use_causal_attention", lambda model: None)
        base = find_base(str(directory))
        rows = base.rows + NEW
        new = range(base.rows, rows)
        model = load_model(base, torch.bfloat16 if bf16 else torch.float32, rows=rows)
        trained: Any = attach(model, new, AdapterShape(4, 8, dropout), 0)
        named = moved_adapter(trained)
        if again:
            recompute(trained)
        generator = torch.Generator().manual_seed(7)
        ids = torch.randint(0, rows, (3, 40), generator=generator)
        ids[:, ::3] = torch.randint(new.start, new.stop, ids[:, ::3].shape, generator=generator)
        weights = torch.rand(3, 40, generator=generator) * (torch.rand(3, 40, generator=generator) > 0.4)
        torch.manual_seed(3)  # what dropout draws
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value, losses = SupervisedLoss(trained).train()(ids, weights)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach(), losses, {name: parameter.grad for name, parameter in named.items()}


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_step_is_pefts(family: str, bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tied and untied heads, biases (Qwen2.5), a text model inside another; chunks smaller than the positions."""
    monkeypatch.setattr(head_chunks, "ENTRIES", 3000)
    base = write_base(FAMILIES[family], tmp_path / family)
    value, losses, gradients = step(base, monkeypatch, plain=False, bf16=bf16)
    wanted, each, theirs = step(base, monkeypatch, plain=True, bf16=bf16)
    near = 0.02 if bf16 else 1e-5
    assert float(value) == pytest.approx(float(wanted), rel=near)
    assert torch.allclose(losses, each, atol=0.1 if bf16 else 1e-4)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert (gradient - theirs[name]).norm() <= near * (1 + 2 * bf16) * theirs[name].norm(), name


@pytest.mark.parametrize(("heads", "groups", "length"), [(6, 2, 40), (4, 4, 16), (3, 1, 1)])
def test_attention_by_blocks_is_torchs(heads: int, groups: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal_attention, "BLOCK", 16)
    generator = torch.Generator().manual_seed(0)
    sizes = (heads, groups, groups)
    ours = [torch.randn(2, length, n, 8, generator=generator).transpose(1, 2).requires_grad_() for n in sizes]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    got = causal_attention.causal_attention(*ours, 0.3)
    wanted = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3, enable_gqa=True)
    along = torch.randn(got.shape, generator=generator)
    for out in (got, wanted):
        out.backward(along)  # type: ignore[no-untyped-call]
    assert torch.allclose(got, wanted, atol=1e-6)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_a_sliding_window_is_left_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistral's attention looks back over a window: another one than ours computes."""
    family = replace(FAMILIES["mistral"], more={"sliding_window": 8})
    base = write_base(family, tmp_path / "base")
    value, *_ = step(base, monkeypatch, plain=False, bf16=True)
    wanted, *_ = step(base, monkeypatch, plain=True, bf16=True)
    whole, *_ = step(write_base(FAMILIES["mistral"], tmp_path / "whole"), monkeypatch, plain=False, bf16=True)
    assert float(value) == pytest.approx(float(wanted), rel=0.003)
    assert float(value) != pytest.approx(float(whole), rel=0.003)


def test_what_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All seven linear layers of both blocks and the embedding; with dropout PEFT's own linear layers stay."""
    from transformers import AutoModelForCausalLM

    base = write_base(FAMILIES["llama-3"], tmp_path / "base")
    counts = []
    monkeypatch.setattr(adapters, "fuse", lambda model: counts.append(fused.fuse(model)))
    for dropout in (0.0, 0.1):
        model = AutoModelForCausalLM.from_pretrained(base)
        attach(model, range(5, 9), AdapterShape(4, 8, dropout), 0)
    assert counts == [15, 1]


def test_with_dropout_the_step_is_pefts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_base(FAMILIES["smollm2"], tmp_path / "base")
    value, _, gradients = step(base, monkeypatch, plain=False, bf16=False, dropout=0.3)
    wanted, _, theirs = step(base, monkeypatch, plain=True, bf16=False, dropout=0.3)
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    assert all((gradients[name] - theirs[name]).norm() <= 1e-5 * theirs[name].norm() for name in theirs)


def test_recomputed_activations_give_the_same_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_base(FAMILIES["smollm2"], tmp_path / "base")
    _, _, kept = step(base, monkeypatch, plain=False, bf16=False)
    _, _, again = step(base, monkeypatch, plain=False, bf16=False, again=True)
    assert all(torch.equal(kept[name], again[name]) for name in kept)
