"""The proof by trial: it holds for the engine as it is, and fails for engines that are broken on purpose."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gcrs.cli import main
from gcrs.toolkit.catalog.filters import Columns
from gcrs.toolkit.eval.prove import prove
from gcrs.toolkit.eval.random_world import random_book, random_engine
from gcrs.toolkit.model.engine import Engine, Scored
from toys import toy_catalog, toy_engine


def test_random_catalogues_have_any_shape() -> None:
    books = [random_book(np.random.default_rng(seed)) for seed in range(60)]
    assert {book.levels for book in books} == {1, 2, 3, 4, 5, 6}
    assert min(map(len, books)) == 1 and max(map(len, books)) > 1000
    again = random_engine(np.random.default_rng(3)), random_engine(np.random.default_rng(3))
    assert again[0].book == again[1].book
    joined = [random_engine(np.random.default_rng(seed))._taught_tree is not None for seed in range(20)]
    assert 4 < sum(joined) < 16, "items have joined in about half of them"


def test_it_holds_and_the_same_seed_tries_the_same() -> None:
    first, second = prove(1500, seed=5), prove(1500, seed=5)
    assert first.holds and first.tried >= 1500 and first.lists > 3
    assert first.as_json() | {"seconds": 0} == second.as_json() | {"seconds": 0}


def test_it_holds_over_an_engine_with_random_rules() -> None:
    proof = prove(800, engine=toy_engine(), columns=Columns(toy_catalog()))
    assert proof.holds and proof.replies > 0


class Broken(Engine):
    """Decodes without the filter, twice the best, or too few."""

    harm = ""

    def targets(self, prompt: Any, *, k: int, beams: Any = None, allowed: Any = None) -> list[Scored]:
        found = super().targets(prompt, k=k, beams=beams, allowed=None if self.harm == "invalid" else allowed)
        if self.harm == "duplicates":
            return [found[0], *found[:-1]]
        return found[:-1] if self.harm == "short" else found


@pytest.mark.parametrize("harm", ["invalid", "duplicates", "short"])
def test_it_finds_what_is_wrong(harm: str) -> None:
    sound = toy_engine()
    broken = Broken(sound.model.model, sound.tokens, sound.book)  # type: ignore[arg-type]
    broken.harm = harm
    proof = prove(300, engine=broken)
    assert getattr(proof, harm) > 0 and not proof.holds and proof.failure


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["prove", "--steps", "200", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tried"] >= 200 and told["holds"] and told["failure"] is None
    assert [told[name] for name in ("invalid", "duplicates", "short", "leaked")] == [0, 0, 0, 0]
    assert main(["prove", "--steps", "200", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tried: ") and lines[2:] == ["invalid: 0", "duplicates: 0", "short: 0", "leaked: 0"]
    whole = Engine.targets
    monkeypatch.setattr(Engine, "targets", lambda self, prompt, **options: whole(self, prompt, **options)[:-1])
    assert main(["prove", "--steps", "50"]) == 1
    assert "The decoding is not exact: " in capsys.readouterr().err
