"""Keeps libraries' own bars and warnings off a terminal that belongs to gcrs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' logging and progress bars inside the block."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def quiet_hub(*, bars: bool = True) -> Iterator[None]:
    """Silence the hub client's advice and retries inside the block, and without `bars` its progress bars."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    hide, level = not bars and not are_progress_bars_disabled(), logging.get_verbosity()
    if hide:
        disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if hide:
            enable_progress_bars()


def quiet_bitsandbytes() -> None:
    """Silence its advice, at import, to fetch other kernels from the hub; PEFT imports it wherever it is installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
