"""Rows through a class of ours on Ray Data: many processes or machines, each with one copy of what the class loads.

What a killed worker had in hand is done again by another one. `ray` is an optional extra, imported here alone. Knows
nothing of what is done with a row.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcrs.toolkit.errors import DataError, GcrsError, MissingModelError, UsageError

QUIET = {  # ours say what is done; Ray's own words are in its session's logs
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
KNOCK = 5.0  # seconds to reach a cluster
MOST_BLOCKS = 10_000  # a row is a block where there are fewer: what is done again after a kill


@dataclass(frozen=True)
class RayConfig:
    """How many workers, and where: `address` is a running cluster's (None: processes of this machine).

    Each worker takes one CPU, and `gpus` of a GPU.
    """

    workers: int
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"There are {self.workers} workers, expected 1 or more.")


def ray_rows(
    work: type, arguments: Mapping[str, Any], rows: Sequence[dict[str, Any]], config: RayConfig
) -> Iterator[dict[str, Any]]:
    """`work(**arguments)(row)` of each row, a dict, as they are done: in no order.

    Raises what `work` raises where that is a GcrsError; GcrsError for a cluster that is not there or gives up.
    """
    if not rows:
        return
    with _cluster(config):
        import ray

        held = ray.data.from_items(list(rows), override_num_blocks=min(len(rows), MOST_BLOCKS))
        guarded: Any = _Guarded  # Ray's types know functions alone
        done = held.map(
            guarded,
            fn_constructor_args=(work, dict(arguments)),
            compute=ray.data.ActorPoolStrategy(size=config.workers),
            num_cpus=1,
            num_gpus=config.gpus or None,
        )
        try:
            for row in done.iter_rows():
                answer = pickle.loads(row["answer"])
                if isinstance(answer, tuple):
                    kind, message, hint = answer
                    raise kind(message, hint=hint)
                yield answer
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            said = lines[-1].strip()[:300] if lines else type(error).__name__
            raise GcrsError(f"The workers gave up: {said}") from error


class _Guarded:
    """What a worker runs: answers travel as bytes, and errors of ours as answers, which Ray would make text of."""

    def __init__(self, work: type, arguments: dict[str, Any]) -> None:
        self.work = work(**arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        answer: Any
        try:
            answer = self.work(row)
        except GcrsError as error:
            kind = type(error) if type(error) in (GcrsError, UsageError, DataError, MissingModelError) else GcrsError
            answer = (kind, error.message, error.hint)
        return {"answer": pickle.dumps(answer)}


@contextlib.contextmanager
def _cluster(config: RayConfig) -> Iterator[None]:
    """Ray for the block: the program's own where there is one, a cluster at the address, or one that ends with it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise GcrsError("Workers need Ray Data, which is not installed.", hint="pip install 'gcrs[ray]'") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():  # a program that has its own cluster keeps it
        yield
        return
    quiet: dict[str, Any] = {"include_dashboard": False} if config.address is None else {}
    if config.address is None:
        quiet["num_cpus"] = config.workers + 1  # one for Ray's own tasks
    _knock(config.address)
    try:
        ray.init(address=config.address, logging_level=logging.ERROR, log_to_driver=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _no_cluster(" ".join(str(error).split())[:200]) from error
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints there what happens to its processes, until it is gone
        try:
            there = float(ray.cluster_resources().get("GPU", 0))
            if config.gpus > there:
                raise UsageError(f"A worker shall take {config.gpus:g} GPUs, the cluster has {there:g}.")
            yield
        finally:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """GcrsError where nobody listens at HOST:PORT, which Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise _no_cluster(f"{host}:{port} does not answer ({error.strerror or error}).") from error


def _no_cluster(why: str) -> GcrsError:
    return GcrsError(
        f"There is no Ray cluster to work on: {why}", hint="Start one (ray start --head), or leave out --ray-address."
    )
