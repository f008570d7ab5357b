"""Two ways of training over several seeds: what is averaged, how wide the interval is, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.eval.metrics import Resampling
from gcrs.toolkit.eval.training_seeds import compare_seeds, over_seeds

GROUPS = [f"d{n // 2}" for n in range(40)]


def report(directory: Path, ranks: Sequence[int | None], *, cases: str = "abc", gold: str = "i") -> Path:
    """A report directory as `gcrs eval --report` leaves it, as far as it is read here; two cases a dialogue."""
    directory.mkdir()
    head = {"cases": cases, "dialogues": len(ranks) // 2, "bundle": "b", "settings": {"seed": 0}, "rows": []}
    (directory / "report.json").write_text(json.dumps(head | {"protocols": {"all": {}, "cold": {}}}), encoding="utf-8")
    lines = [
        {"dialogue": f"d{n // 2}", "turn": n, "gold": f"{gold}{n}", "ranks": {"all": {"model": rank}}}
        for n, rank in enumerate(ranks)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "cases.jsonl").write_text(text, encoding="utf-8")
    return directory


def test_the_means_by_hand(tmp_path: Path) -> None:
    runs = [report(tmp_path / "a0", [1, 1, 0, 12]), report(tmp_path / "a1", [1, 0, 0, 0])]
    others = [report(tmp_path / "b0", [1, 0, 0, 0]), report(tmp_path / "b1", [0, 0, 1, 3])]
    found = compare_seeds(runs, others)
    assert set(found) == {"all"}, "no case of cold"
    at_1 = found["all"]["recall@1"]
    assert (at_1.this, at_1.other, at_1.value, at_1.n) == (3 / 8, 2 / 8, 1 / 8, 4)
    assert at_1.by_seed == (1 / 4, 0.0) and at_1.lo <= at_1.value <= at_1.hi
    assert found["all"]["recall@50"].by_seed == (2 / 4, -1 / 4)


def test_one_seed_is_the_bootstrap_over_dialogues() -> None:
    gaps = np.random.default_rng(0).integers(-1, 2, (1, 40)).astype(float)
    drawn = Resampling(GROUPS, seed=3)
    plain = drawn.estimate(gaps[0])
    assert over_seeds(gaps, drawn, seed=3) == pytest.approx((plain.lo, plain.hi))
    same = np.repeat(gaps, 4, axis=0)
    assert over_seeds(same, drawn, seed=3) == pytest.approx((plain.lo, plain.hi)), "equal seeds add nothing"


def test_seeds_that_contradict_each_other_widen_it() -> None:
    steady = np.full((4, 40), 0.1)
    assert over_seeds(steady, Resampling(GROUPS)) == pytest.approx((0.1, 0.1))
    torn = steady + np.array([[-0.3], [0.3], [-0.3], [0.3]])
    lo, hi = over_seeds(torn, Resampling(GROUPS))
    assert torn.mean() == pytest.approx(0.1) and lo < -0.1 and hi > 0.3


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = report(tmp_path / "run", [1, 2, 3, 4])
    with pytest.raises(DataError, match="1 runs on one side and 2 on the other"):
        compare_seeds([run], [run, run])
    with pytest.raises(DataError, match="scored other cases"):
        compare_seeds([run], [report(tmp_path / "other", [1, 2, 3, 4], cases="xyz")])
    with pytest.raises(DataError, match="does not hold the ranks of the report beside it"):
        compare_seeds([run], [report(tmp_path / "mixed", [1, 2, 3, 4], gold="j")])
    with pytest.raises(DataError, match="no rank of the row 'model'"):
        compare_seeds([run], [report(tmp_path / "sampled", [1, None, 3, 4])])
    with pytest.raises(DataError, match="no rank of the row 'dense'"):
        compare_seeds([run], [run], row="dense")
