"""The final run of a search: fine-tuning at the chosen shares, from where the proxy runs started.

Knows nothing of how the shares were chosen.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gcrs.programs.proxy_runs import Progress, Stopped
from gcrs.toolkit.dialogue.mixture import Mixture
from gcrs.toolkit.files import read_json

if TYPE_CHECKING:
    from gcrs.programs.mixture_search import Found


def final_bundle(found: Found, mixture: Path, tokens: int, out: Path, progress: Progress | None = None) -> Path:
    """Train the bundle `out`, unless it holds that already; goes on from a checkpoint. Raises Stopped on SIGTERM."""
    from gcrs.toolkit.model.finetune import finetune

    if _held(found, Mixture.load(mixture), tokens, out):
        return out
    begun = out.with_name(out.name + ".run").exists()
    config = replace(found.config.base, mixture=mixture, tokens=tokens, steps=None, max_minutes=None,
                     out=out, warm_start=found.runs.start)  # fmt: skip
    report = finetune(config, resume=begun, progress=progress)
    if not report["finished"]:
        raise Stopped("Stopped; the same command goes on from here.")
    return out


def _held(found: Found, chosen: Mixture, tokens: int, out: Path) -> bool:
    """Whether `out` is the bundle of these shares, tokens and start."""
    if not (out / "training.json").is_file():
        return False
    held = read_json(out / "training.json")
    shares = {name: one.get("share") for name, one in (held.get("mixture") or {}).items()}
    same = shares == {name: round(share, 4) for name, share in chosen.shares.items()}
    return same and held["config"].get("tokens") == tokens and held.get("warm_start") == found.runs.start_hash()
