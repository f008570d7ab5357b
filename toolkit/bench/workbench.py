"""Workbench: the loaded bundle, its engines and the machine's rates, shared by the rows of one run.

Knows nothing of single rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from gcrs.toolkit.bench.limits import Rates, measure_rates

if TYPE_CHECKING:
    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.engine import Engine, Sampling
    from gcrs.toolkit.model.grammar import Grammar
    from gcrs.toolkit.model.tokens import TokenSpace

Value = TypeVar("Value")
Progress = Callable[[int, int, str], None]
ThreeSteps = Callable[["Dialogue", "Sampling"], int]  # decides all three, returns the tokens made before the end


@dataclass
class Workbench:
    """What rows need. `three_steps` makes, from an engine, the program whose turn is measured."""

    bundle: Bundle
    quick: bool = False
    three_steps: Callable[[Bundle, Engine], ThreeSteps] | None = None
    _engines: dict[str, Engine] = field(default_factory=dict)
    _rates: dict[str, Rates] = field(default_factory=dict)

    def pick(self, whole: Value, quick: Value) -> Value:
        """The size of something in a whole run or in a quick one."""
        return quick if self.quick else whole

    def engine(self, dtype: str = "auto") -> Engine:
        """The bundle's engine; its replies are as long as they may be, so that all runs make as many tokens."""
        if dtype not in self._engines:
            from gcrs.toolkit.model.bundle import load_merged
            from gcrs.toolkit.model.device import pick_dtype
            from gcrs.toolkit.model.engine import Engine

            model = load_merged(self.bundle, pick_dtype("cpu", dtype))
            self._engines[dtype] = Engine(
                model, self.bundle.tokens, self.bundle.book, processor=full_length(self.bundle.tokens)
            )
            self._engines[dtype].targets([*range(20)], k=2)  # warm
            self._engines[dtype].close()
        return self._engines[dtype]

    def rates(self, dtype: str = "auto") -> Rates:
        """The machine's, with the threads of this run."""
        if dtype not in self._rates:
            from gcrs.toolkit.model.device import pick_dtype

            self._rates[dtype] = measure_rates(pick_dtype("cpu", dtype))
        return self._rates[dtype]

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What the numbers were measured on."""
        import os
        import platform
        from importlib import metadata

        import torch

        from gcrs.toolkit.model.device import pick_dtype

        rates = self.rates()
        return {
            "processor": _processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
            "dtype": str(pick_dtype("cpu")).removeprefix("torch."),
            "gigabytes_per_second": round(rates.bytes / 1e9, 1),
            "gigaflops_per_second": round(rates.flops / 1e9, 1),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "transformers", "outlines")},
        }


def full_length(tokens: TokenSpace) -> Callable[[Grammar], Any]:
    """The MaskProcessor whose replies end only where they must."""
    import torch

    from gcrs.toolkit.model.grammar import ResponseGrammar
    from gcrs.toolkit.model.processor import MaskProcessor

    class FullLength(MaskProcessor):
        def process_logits(self, input_ids: Any, logits: Any) -> Any:
            scores = super().process_logits(input_ids, logits)
            whole = isinstance(self.grammar, ResponseGrammar) and scores.shape[1] == tokens.size
            if whole and int(scores[0].isfinite().sum()) > 1:
                scores[:, tokens.end] = -torch.inf
            return scores

    return FullLength


def greedy(model: Any, prompt: Sequence[int], count: int, tokens: TokenSpace, *processors: Any) -> list[int]:
    """`count` ids after the prompt by transformers' own `generate`, greedy, with its key/value cache."""
    import torch

    out = model.generate(
        torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),  # else every id equal to the pad token is hidden
        logits_processor=list(processors),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=tokens.end,
    )
    ids: list[int] = out[0, len(prompt) :].tolist()
    return ids


def _processor() -> str | None:
    """The processor's name, where Linux tells it."""
    from pathlib import Path

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
