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
def quiet_hub() -> Iterator[None]:
    """Silence the hub client's retries inside the block: what it could not fetch is said once, by gcrs."""
    named = logging.getLogger("huggingface_hub")
    level = named.level
    named.setLevel(logging.ERROR)
    try:
        yield
    finally:
        named.setLevel(level)


def quiet_bitsandbytes() -> None:
    """Silence its advice, at import, to fetch other kernels from the hub; PEFT imports it wherever it is installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
