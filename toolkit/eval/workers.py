"""Work over many dialogues in several processes, each with one CPU thread, its results in the order of the work.

One thread each, also when there is one process: sums of floating point depend on the number of threads, and a run's
scores may not. Knows nothing of what is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from gcrs.toolkit.errors import GcrsError

Progress = Callable[[int, int, str], None]
Work = Callable[[Any], Any]
MOST = 8  # processes that are begun unasked: each holds the model
TICK = 2.0  # seconds between looks at what is done


def usual_workers(device: str, pieces: int) -> int:
    """Processes for so many pieces of work: one a CPU core, one alone on any other device."""
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST, pieces // 4))


class Workers:
    """Runs functions of a module over pieces of work; see `workers`."""

    def __init__(self, pool: ProcessPoolExecutor | None, progress: Progress | None) -> None:
        self._pool, self._progress = pool, progress

    def map(self, work: Work, pieces: Sequence[Any], what: str) -> list[Any]:
        """`work` of each piece, in the pieces' order. Raises what `work` raises, GcrsError when a process dies."""
        if self._pool is None:
            out = []
            for n, piece in enumerate(pieces):
                self._report(n, len(pieces), what)
                out.append(work(piece))
            return out
        futures: list[Future[Any]] = [self._pool.submit(work, piece) for piece in pieces]
        try:
            left = set(futures)
            while left:
                done, left = wait(left, timeout=TICK, return_when=FIRST_EXCEPTION)
                for one in done:
                    one.result()
                self._report(len(pieces) - len(left), len(pieces), what)
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise GcrsError(
                "A process of the evaluation was killed, perhaps for its memory.", hint="Use fewer: --workers 1."
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def _report(self, done: int, total: int, what: str) -> None:
        if self._progress:
            self._progress(done, total, what)


@contextmanager
def workers(count: int, progress: Progress | None = None) -> Iterator[Workers]:
    """`count` processes for the block; 1: this one, its number of threads put back afterwards."""
    if count > 1:
        import multiprocessing

        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin) as pool:
            try:
                yield Workers(pool, progress)
            except BaseException:  # Ctrl-C among them: nobody waits for what is half done
                pool.shutdown(wait=False, cancel_futures=True)
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                raise
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield Workers(None, progress)
    finally:
        torch.set_num_threads(before)


def _begin() -> None:
    """In a process that starts: one thread, and Ctrl-C is the parent's business."""
    import signal
    import warnings

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
