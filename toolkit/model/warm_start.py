"""Starting a run from another bundle: its adapter and control tokens are kept, the catalogue's ID rows are made anew.

Where the catalogue is the bundle's own, the ID rows are kept as well: the run goes on where that one ended. Knows
nothing of data or schedules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.model.adapter import PREFIX, ROWS_SUFFIX, AdapterShape, read_adapter

if TYPE_CHECKING:
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.base import Base
    from gcrs.toolkit.model.tokens import TokenSpace

NONE = "none"


class WarmStart:
    """A verified bundle to start from. Raises UsageError when it stands on another base model."""

    def __init__(self, source: str | Path, base: Base) -> None:
        from gcrs.toolkit.model.bundle import Bundle

        self.bundle = Bundle.load(source)
        pinned = self.bundle.manifest["base"]
        if pinned["sha256"] != base.sha256:
            raise UsageError(
                f"--from {source} was trained on the base {pinned['name']}, this run's base is {base.name}.",
                hint=f"Pass --base {pinned['name']}, or --from none.",
            )
        self.state, self.scale = read_adapter(self.bundle.directory)
        new = len(self.bundle.tokens.new_tokens)
        if any(len(value) > new for name, value in self.state.items() if name.endswith(ROWS_SUFFIX)):
            raise UsageError(
                f"--from {source} trained all embeddings: no run starts from it.", hint="Pass another one."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rank, alpha) of its adapter, which the run keeps."""
        rank = next(value.shape[0] for name, value in self.state.items() if name.endswith(".lora_A.weight"))
        return rank, round(self.scale * rank)

    @property
    def hash(self) -> str:
        """The bundle's hash."""
        return self.bundle.hash

    @property
    def data(self) -> dict[str, str]:
        """The files that it, and what it was started from, was trained on, as far as it says: SHA-256 by name."""
        record = self.bundle.training
        out: dict[str, str] = dict(record.get("data_before") or {})
        for name, sha in dict(record.get("data") or {}).items():
            if sha not in out.values():
                out[name if name not in out else f"{name} ({sha[:8]})"] = sha
        return out

    def kept_rows(self, module: str, rows: torch.Tensor, tokens: TokenSpace, book: Codebook) -> torch.Tensor:
        """`rows` (fp32 [new tokens, dim]) of a module with the bundle's rows in place of those of control tokens.

        Those of the codes are kept too when `book` gives the same items the same semantic IDs: they mean the same.
        """
        held = self.state[f"{PREFIX}{module}.{ROWS_SUFFIX}"].float()
        old = {token: n for n, token in enumerate(self.bundle.tokens.new_tokens)}
        out = rows.clone()
        same = book.codes == self.bundle.book.codes and book.ids == self.bundle.book.ids
        kept = len(tokens.new_tokens) - (0 if same else sum(tokens.codes))
        for n, token in enumerate(tokens.new_tokens[:kept]):
            if token in old:
                out[n] = held[old[token]]
        return out

    def adapter_into(self, trained: Any) -> None:
        """Copy the low-rank matrices into a model that PEFT has wrapped. DataError when one has no place."""
        parameters = dict(trained.named_parameters())
        with torch.no_grad():
            for name, value in self.state.items():
                if ".lora_" not in name:
                    continue
                place = parameters.get(name.replace(".weight", ".default.weight"))
                if place is None or place.shape != value.shape:
                    raise DataError(f"The adapter's {name} does not fit this base model.")
                place.copy_(value.to(place.dtype))

    def merge_into(self, model: Any) -> None:
        """Add the low-rank products to a plain model's weights, which are then trained in full."""
        from gcrs.toolkit.model.adapter import add_products

        add_products(model, self.state, self.scale)


def shape_of(warm: WarmStart | None, rank: int, alpha: int, dropout: float) -> AdapterShape:
    """The run's adapter shape: the one asked for, or the one that the bundle brings."""
    return AdapterShape(*(warm.shape if warm else (rank, alpha)), dropout)
