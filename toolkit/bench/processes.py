"""What only a process of its own can show: the peak memory of a wide beam, and how fast `gcrs --help` answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from gcrs.toolkit.bench.limits import Limit
from gcrs.toolkit.bench.measure import Row, Sample, sample
from gcrs.toolkit.errors import GcrsError

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import Workbench

WIDE, LONG = 1000, 768
HELP = "import sys; from gcrs.cli import main; sys.exit(main(['--help']))"


def memory(bench: Workbench) -> list[Row]:
    """Resident memory at its highest, of a process that ranks 1,000 items behind 768 tokens in fp32."""
    k, length = bench.pick((WIDE, LONG), (100, 96))
    done = _python("-m", "gcrs.toolkit.bench.wide", str(bench.bundle.directory), str(k), str(length))
    found = json.loads(done)
    gigabytes = {name: found[name] / 1e9 for name in ("before", "weights", "cache")}
    details = {"prompt": length, "k": k, "ranked": found["ranked"], "seconds": found["seconds"], **gigabytes}
    what = f"peak memory of k = {k:,} behind {length} tokens, fp32, the prompt's cache once"
    baseline = "the loaded model alone"
    peak, before = Sample.of([found["peak"] / 1e9]), Sample.of([found["before"] / 1e9])
    details["unit of theirs"] = "GB"
    return [Row("memory", what, "GB", peak, 4.0, baseline=baseline, theirs=before, details=details)]


def startup(bench: Workbench) -> list[Row]:
    """`gcrs --help`, beside an interpreter that does nothing."""
    repeats = bench.pick(10, 3)
    helped = sample(lambda: _python("-c", HELP), repeats)
    nothing = sample(lambda: _python("-c", "pass"), repeats)
    limit = Limit(nothing.median, 0.0, 0.0, "the interpreter's start")
    return [
        Row(
            "help",
            "gcrs --help",
            "s",
            helped,
            0.3,
            baseline="python -c pass",
            ours=helped,
            theirs=nothing,
            limit=limit,
        )
    ]


def _python(*arguments: str) -> str:
    """What a process of this interpreter writes to stdout; GcrsError when it fails."""
    import gcrs

    paths = [os.path.dirname(os.path.dirname(gcrs.__file__)), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(part for part in paths if part)
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise GcrsError(f"A process of the bench failed ({done.returncode}): {last}")
    return done.stdout
