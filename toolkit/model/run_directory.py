"""OUT.run, where a run keeps its checkpoints, its log and the mark that says which run it is.

Knows nothing of training.
"""

from __future__ import annotations

import json
from pathlib import Path

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import atomic_write
from gcrs.toolkit.model.finetune_config import FinetuneConfig


def trim_log(path: Path, step: int) -> None:
    """Drop what a killed session logged after its last checkpoint: those steps are taken again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()[:step]
        with atomic_write(path) as handle:
            handle.writelines(f"{line}\n" for line in lines)


def claim(run_dir: Path, fingerprint: str, config: FinetuneConfig, resume: bool) -> None:
    """Make the run directory ours, or refuse one that holds another run's checkpoint."""
    from gcrs.toolkit.model.checkpoint import latest_checkpoint

    mark = run_dir / "run.json"
    if mark.is_file():
        try:
            held = json.loads(mark.read_text(encoding="utf-8")).get("fingerprint")
        except ValueError:
            held = None
        begun = latest_checkpoint(run_dir / "checkpoints") is not None  # else it never got anywhere
        if begun and not resume:
            raise UsageError(f"{run_dir} holds an earlier run.", hint="Pass --resume to go on with it, or remove it.")
        if begun and held != fingerprint:
            raise UsageError(
                f"{run_dir} holds a run with other settings or data.",
                hint="Repeat its settings, or choose another --out.",
            )
    elif resume and run_dir.exists() and any(run_dir.iterdir()):
        raise DataError(f"{run_dir} has no run.json: it is no run of gcrs.", hint="Choose another --out.")
    with atomic_write(mark) as handle:
        json.dump({"fingerprint": fingerprint, "config": config.resolved()}, handle, indent=1)
