"""Proxy runs: a mixture, a few tokens and a seed in, its validation out; and the warm start that they share.

One run is `finetune` itself in this process, from the same start, over the same data. Each has a directory named by
what it is, so that a run that was killed goes on from its checkpoint when it is asked for again. Knows nothing of how
mixtures are chosen.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.dialogue.mixture import MAX_REPEATS, Mixture
from gcrs.toolkit.errors import DataError, GcrsError
from gcrs.toolkit.files import atomic_write, sha256_json

if TYPE_CHECKING:
    from gcrs.toolkit.model.finetune_config import FinetuneConfig
    from gcrs.toolkit.model.validation import Validation

Progress = Callable[[int, int, str], None]
Watch = Callable[["Validation", float], None]
START = "start"  # the shared warm start's directory in the study's


class Stopped(GcrsError):
    """The process was asked to stop and kept what it had."""

    exit_code = 130


@dataclass(frozen=True)
class Result:
    """What one run gave: metrics and cases of the end, tokens read, minutes of training and in all."""

    metrics: dict[str, float]
    cases: dict[str, list[Any]]
    tokens: int
    minutes: float
    wall_minutes: float
    drawn: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class ProxyRuns:
    """Runs under one directory; `base` is what all share (data, model, rates), its budget and output aside.

    `tokens` is the length of a proxy run, `rungs` the shares of it at which a watched run validates before its end.
    """

    def __init__(
        self,
        directory: Path,
        base: FinetuneConfig,
        tokens: int,
        *,
        rungs: Sequence[float] = (),
        max_repeats: float | Mapping[str, float] = MAX_REPEATS,
        progress: Progress | None = None,
    ) -> None:
        self.directory, self.base, self.tokens, self.rungs = directory, base, tokens, tuple(rungs)
        self.max_repeats, self.progress = max_repeats, progress
        self.start: str | None = None

    def make_start(self, tasks: Sequence[str], tokens: int) -> Path:
        """Train the shared warm start, all tasks alike, unless it is there; later runs start from it."""
        out = self.directory / START
        if not (out / "gcrs.json").is_file():
            path = self.directory / f"{START}.yaml"
            Mixture(Mixture.uniform(tasks).shares, tokens, self.max_repeats, "the shared warm start").save(path)
            config = replace(
                self.base, mixture=path, tokens=tokens, steps=None, max_minutes=None, out=out, valid=None, eval_limit=1
            )
            self._finetune(config, label="warm start")
            shutil.rmtree(out.with_name(out.name + ".run"), ignore_errors=True)
        self.use_start(str(out))
        return out

    def use_start(self, bundle: str) -> None:
        """Start all runs from this bundle."""
        self.start = bundle

    def start_hash(self) -> str | None:
        """The start's hash; DataError when it is no bundle."""
        from gcrs.toolkit.model.bundle import Bundle

        return None if self.start in (None, "none") else Bundle.load(str(self.start)).hash

    def mixture(self, shares: Mapping[str, float], tokens: int | None = None) -> Mixture:
        """The mixture of one run."""
        return Mixture(dict(shares), tokens or self.tokens, self.max_repeats)

    def run(
        self,
        shares: Mapping[str, float],
        *,
        tokens: int | None = None,
        seed: int | None = None,
        replies: int | None = None,
        label: str = "",
        watch: Watch | None = None,
        use: Callable[[Path], float] | None = None,
    ) -> tuple[Result, float | None]:
        """Train and validate; (result, what `use` made of the bundle). The run's files are removed, its result is not.

        `tokens`, `seed` and `replies` (those ranked in validation) are the shared ones where they are not given.
        `watch` gets the validations at the rungs and at the end; what it raises ends the run and removes its files.
        Raises Stopped on SIGTERM, with a checkpoint kept.
        """

        began = time.monotonic()
        mixture = self.mixture(shares, tokens)
        seed = self.base.seed if seed is None else seed
        place = self.directory / "runs" / self.key(mixture, seed)
        mixture.save(place / "mixture.yaml")
        last: list[Validation] = []

        def seen(found: Validation, used: float) -> None:
            last[:] = [found]
            if watch is not None:
                watch(found, used)

        config = replace(
            self.base, mixture=place / "mixture.yaml", tokens=mixture.tokens, steps=None, max_minutes=None,
            eval_limit=replies or self.base.eval_limit,
            out=place / "bundle", warm_start=self.start, seed=seed,
        )  # fmt: skip
        try:
            report = self._finetune(
                config, label=label, watch=seen, eval_at=self.rungs if watch is not None else (1.0,)
            )
            if not last:
                raise DataError("The proxy runs have nothing to be validated on.", hint="Pass --valid FILE.")
            value = use(place / "bundle") if use is not None else None
        except Exception as error:
            if not isinstance(error, Stopped):
                shutil.rmtree(place, ignore_errors=True)
            raise
        wall = (time.monotonic() - began) / 60
        result = Result(
            last[0].metrics(), last[0].to_json(), report["tokens_read"], report["minutes"], round(wall, 2),
            report["mixture"],
        )  # fmt: skip
        shutil.rmtree(place, ignore_errors=True)
        return result, value

    def key(self, mixture: Mixture, seed: int) -> str:
        """A run's name: what it is, hashed."""
        shares = sorted((name, round(share, 6)) for name, share in mixture.shares.items())
        return sha256_json([shares, mixture.tokens, seed])[:16]

    def _finetune(
        self,
        config: FinetuneConfig,
        *,
        label: str,
        watch: Watch | None = None,
        eval_at: tuple[float, ...] = (1.0,),
    ) -> dict[str, Any]:
        from gcrs.toolkit.model.finetune import finetune

        def tell(done: int, total: int, what: str) -> None:
            if self.progress is not None:
                self.progress(done, total, f"{label}: {what}" if label else what)

        begun = config.out.with_name(config.out.name + ".run").exists()
        report = finetune(
            config, resume=begun, progress=tell, watch=watch, eval_at=eval_at or (1.0,), forecast=False, keep_best=False
        )
        if not report["finished"]:
            raise Stopped("Stopped; the same command goes on from here.")
        return report


def write_result(path: Path, value: Mapping[str, Any]) -> None:
    """A result as JSON, staged and renamed."""
    with atomic_write(path) as handle:
        json.dump(value, handle, indent=1)
