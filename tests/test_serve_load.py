"""Fifty sessions side by side on one model: no message is lost, none is answered twice, clients may vanish."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

from serving_helpers import Served


def test_fifty_sessions_side_by_side_lose_no_message(served: Served) -> None:
    file = Path(__file__).resolve().parent / "benchmarks" / "bench_serve.py"
    spec = importlib.util.spec_from_file_location("bench_serve", file)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["bench_serve"] = bench  # its dataclass looks itself up there
    spec.loader.exec_module(bench)
    load = asyncio.run(bench.measure(served.url, sessions=50, messages=1, vanishing=5))
    assert (load.errors, load.lost, len(load.seconds), load.vanished) == ({}, 0, 50, 5)
