"""One process or several: `accelerate launch` starts the same command once a device, and these share a run.

Every process takes its part of each batch and the gradients are averaged; the first alone reads the clock, validates
and writes. Without a launcher there is one process, and nothing here does anything. Knows nothing of models or
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrs.toolkit.model.device import check_device

if TYPE_CHECKING:
    import torch


def join(device: str) -> Any:
    """accelerate's state of this process: `device`, `is_main_process`, `main_process_first()`.

    Raises UsageError when the machine has no such device: accelerate would take the CPU without a word.
    """
    from datetime import timedelta

    from accelerate import PartialState

    check_device(device)
    return PartialState(cpu=device == "cpu", timeout=timedelta(hours=3))  # the others wait while the first validates


def own_share(rows: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, bool]:
    """(rows of a batch that are this process's, whether they count): every process has at least one to run through.

    A batch of fewer rows than processes leaves some without; these take the first row and weigh it with zero.
    """
    mine = rows[rank::world]
    return (mine, True) if len(mine) else (rows[:1], False)


def summed(values: Sequence[float], device: torch.device, world: int) -> list[float]:
    """Each value added up over all processes."""
    if world == 1:
        return list(values)
    import torch

    held = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(held)
    return [float(value) for value in held]
