"""How many logits a training step holds at once: one number for the step and for its forecast."""

from __future__ import annotations

ENTRIES = 2**23  # on a CPU they stay near its caches
ENTRIES_CUDA = 2**26


def positions_at_once(rows: int, *, cuda: bool) -> int:
    """Positions whose logits over `rows` tokens are computed at once."""
    return max(1, (ENTRIES_CUDA if cuda else ENTRIES) // rows)
