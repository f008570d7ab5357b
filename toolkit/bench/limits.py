"""What a machine could do at best: its measured rates, and the bytes and operations that a piece of work needs.

A forward of a few tokens waits for the weights to come from memory, one of many tokens for the multiplications; each
counts as the larger of the two. Attention and the output head are left out, so the limit is a little too low. Knows
nothing of what the work is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.bench.measure import seconds

if TYPE_CHECKING:
    import torch

Forwards = list[tuple[int, int]]  # sequences and tokens of each call of the decoder

COPIED = 2**26  # floats: larger than any cache
SIDE = 1024  # of the matrices that are multiplied


@dataclass(frozen=True)
class Rates:
    """Bytes a second that are read from memory, and floating-point operations a second, in the model's dtype."""

    bytes: float
    flops: float


@dataclass(frozen=True)
class Limit:
    """The least time that work can take on this machine, its bytes and operations, and which of them decides."""

    seconds: float
    bytes: float
    flops: float
    bound: str  # "bytes" or "flops"


def measure_rates(dtype: torch.dtype, tries: int = 3) -> Rates:
    """The best of a few reads of a large array and of a few products of large matrices."""
    import torch

    big, side = torch.ones(COPIED), torch.ones(SIDE, SIDE, dtype=dtype)
    read = min(seconds(big.sum) for _ in range(tries))
    product = min(seconds(lambda: side @ side) for _ in range(tries + 1))
    return Rates(big.nbytes / read, 2 * SIDE**3 / product)


def moving(rates: Rates, size: float) -> Limit:
    """The limit of work that only moves bytes."""
    return Limit(size / rates.bytes, size, 0.0, "bytes")


def forwarding(rates: Rates, model: Any, forwards: Forwards, *, passes: int = 1) -> Limit:
    """The limit of these forwards through the model's blocks; `passes` is 3 where gradients are computed as well."""
    blocks = [part for name, part in model.named_parameters() if "embed" not in name and "lm_head" not in name]
    weights, size = sum(part.numel() for part in blocks), sum(part.nbytes for part in blocks)
    operations = [2.0 * passes * weights * count * length for count, length in forwards]
    moved = float(passes * size)
    waits = [(moved / rates.bytes, work / rates.flops) for work in operations]
    by_bytes = sum(one for one, other in waits if one > other)
    by_flops = sum(other for one, other in waits if other >= one)
    bound = "bytes" if by_bytes > by_flops else "flops"
    return Limit(by_bytes + by_flops, moved * len(forwards), sum(operations), bound)


def tokens(forwards: Sequence[tuple[int, int]]) -> int:
    """Tokens in all."""
    return sum(count * length for count, length in forwards)


@contextmanager
def recorded(model: Any) -> Iterator[Forwards]:
    """What is forwarded through the model's decoder inside the block, by whomever."""
    out: Forwards = []

    def note(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        shape = (named["inputs_embeds"] if ids is None else ids).shape
        out.append((int(shape[0]), int(shape[1])))

    handle = model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield out
    finally:
        handle.remove()
