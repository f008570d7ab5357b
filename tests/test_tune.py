"""The search for a mixture: objective, space, surface, study, a search on toy parts, its proof, DSPy around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcrs.cli import main
from gcrs.programs.mixture_proof import compare, ranking_holds, standard_error, sums
from gcrs.programs.mixture_search import Found, TuneConfig, open_search, search
from gcrs.programs.mixture_space import LEAST, Space
from gcrs.programs.mixture_study import observations, queue, revive
from gcrs.programs.objective import Objective
from gcrs.programs.response_surface import SPACING, Observation, Surface, lifted
from gcrs.toolkit.dialogue.mixture import Mixture
from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.model.bundle import Bundle
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from toys import toy_dialogues

SPACE = Space(("dialogue", "excerpts", "chat"))
TASKS = ("dialogue", "own-mentions", "facts-to-item")


# -------------------------------------------------------------------------------- objective, space, surface


def test_an_objective_is_read_scored_and_written() -> None:
    objective = Objective.parse("recall@10=1, bits_per_byte=-0.1")
    assert objective.score({"recall@10": 0.2, "bits_per_byte": 2.0, "recall@1": 9}) == pytest.approx(0.0)
    assert Objective.parse(str(objective)) == objective
    with pytest.raises(UsageError, match="no case for bits_per_byte"):
        objective.score({"recall@10": 0.2})


@pytest.mark.parametrize(
    ("text", "says"),
    [("recal@10=1", "Did you mean recall@10"), ("recall@10", "no metric with one weight"), ("recall@10=x", "no metric"),
     ("recall@1=1,recall@1=2", "no metric with one weight"), ("recall@10=0", "weighs everything with 0")],
)  # fmt: skip
def test_a_broken_objective_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Objective.parse(text)


def test_points_are_tidy_and_survive_optunas_numbers() -> None:
    rng = np.random.default_rng(0)
    for point in SPACE.candidates(200, rng, [np.array([0.5, 0.5, 0.0])]):
        assert point.sum() == pytest.approx(1) and all(share == 0 or share >= LEAST * 0.99 for share in point)
        assert np.allclose(SPACE.of_parameters(SPACE.parameters(point)), point, atol=2e-4)
    design = np.stack([SPACE.design(n, 3) for n in range(32)])
    assert np.abs(design.mean(axis=0) - 1 / 3).max() < 0.06, "the design fills the simplex evenly"
    assert (design[7] == SPACE.design(7, 3)).all()


def truth(points: np.ndarray) -> np.ndarray:
    """A smooth response with its best at 0.6, 0.3, 0.1."""
    return -np.sum((np.sqrt(np.atleast_2d(points)) - np.sqrt([0.6, 0.3, 0.1])) ** 2, axis=1)


def made(count: int, noise: float = 0.0) -> list[Observation]:
    rng = np.random.default_rng(1)
    points = [SPACE.design(n, 0) for n in range(count)]
    return [Observation(point, float(truth(point)[0] + noise * rng.normal())) for point in points]


def test_the_surface_finds_a_known_best_and_knows_what_it_does_not_know() -> None:
    surface = Surface(SPACE, made(14, 0.005))
    best = surface.best()
    assert truth(best)[0] > -0.02, f"{best} is close to the best"
    inside, outside = (surface.predict(np.array(p))[1][0] for p in ([0.5, 0.3, 0.2], [0.0, 0.0, 1.0]))
    assert outside > inside, "less is known at a corner than amid the runs"
    assert surface.left_out()["rank_correlation"] > 0.7
    _, gain = surface.next(0)
    assert 0 <= gain < 0.2
    shares, points = surface.along(0, best)
    assert np.allclose(points.sum(axis=1), 1) and (points[:, 0] == shares).all()
    with pytest.raises(ValueError, match="expected at least"):
        Surface(SPACE, made(3))


def test_no_run_is_proposed_a_second_time() -> None:
    seen = [replace(one, error=0.3) for one in made(8)]
    for seed in range(6):
        point, _ = Surface(SPACE, seen).next(seed)
        assert min(0.5 * np.abs(point - one.point).sum() for one in seen) >= SPACING
        seen.append(Observation(point, float(truth(point)[0]), error=0.3))


def test_a_stopped_run_counts_with_what_the_others_gained_after() -> None:
    whole = [Observation(np.eye(3)[n], 0.5 + n / 10, 1.0, ((0.35, 0.3 + n / 10),)) for n in range(2)]
    stopped = Observation(np.full(3, 1 / 3), 0.1, 0.34)
    points, values, extra = lifted([*whole, stopped, Observation(np.eye(3)[2], 0.0, 0.8)])
    assert len(points) == 3 and values[-1] == pytest.approx(0.3) and extra.tolist() == pytest.approx([0, 0, 0])
    sure, unsure = (Surface(SPACE, [replace(one, error=error) for one in made(8)]) for error in (0.0, 0.3))
    assert unsure.predict(unsure.points)[1].mean() > 2 * sure.predict(sure.points)[1].mean()


# ------------------------------------------------------------------------------------------- the proof


def cases(ranks: list[int], group: list[int]) -> dict[str, Any]:
    replies = [0, 1, 2]
    return {"ranks": ranks, "groups": group, "intents": [True, False, True], "intent_groups": replies,
            "bits": [8.0, 16.0, 4.0], "bytes": [4, 4, 4], "byte_groups": replies}  # fmt: skip


def test_a_lead_has_an_interval_over_dialogues_and_seeds() -> None:
    objective = Objective.parse("recall@10=1")
    good, bad = sums(cases([1, 3, 20, 2], [0, 1, 1, 2])), sums(cases([0, 30, 20, 11], [0, 1, 1, 2]))
    assert good["recall@10"][0].tolist() == [1, 1, 1] and good["recall@10"][1].tolist() == [1, 2, 1]
    assert 0.1 < standard_error(cases([1, 30, 20, 2], [0, 1, 1, 2]), objective) < 0.4
    told = compare({"best": [good, good], "paper": [bad]}, objective, draws=400)
    assert told["points"]["best"]["recall@10"]["value"] == 0.75 and told["n"] == {"dialogues": 3, "cases": 4}
    assert told["points"]["best"]["bits_per_byte"]["value"] == pytest.approx(28 / 12, abs=1e-4)
    lead = told["lead"]["paper"]["objective"]
    assert lead["value"] == 0.75 and 0.5 <= lead["lo"] <= 0.75 <= lead["hi"] <= 1
    same = compare({"best": [good], "paper": [good]}, objective, draws=50)["lead"]["paper"]["recall@10"]
    assert same == {"value": 0, "lo": 0, "hi": 0}, "paired: the same runs never differ"
    held = ranking_holds(
        {"best": 0.9, "mid": 0.5, "paper": 0.1}, {"best": [good], "mid": [good], "paper": [bad]}, objective
    )
    assert held["n"] == 3 and held["rank_correlation"] > 0.8
    assert ranking_holds({"best": 1.0}, {"best": [good]}, objective)["rank_correlation"] is None


# ------------------------------------------------------------------------------------- a search on toy parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Path, toy_base_dir: Path) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("tune")
    write_dialogues(toy_dialogues() * 3, root / "train.jsonl")
    write_dialogues(toy_dialogues(), root / "valid.jsonl")
    return {"root": root, "bundle": toy_bundle, "base": str(toy_base_dir)}


def flags(parts: dict[str, Any], out: str, *more: str) -> list[str]:
    root = parts["root"]
    given = [
        "tune",
        "--catalog",
        str(parts["bundle"]),
        "--dialogues",
        str(root / "train.jsonl"),
        "--base",
        parts["base"],
    ]
    given += ["--valid", str(root / "valid.jsonl"), "--out", str(root / out), "--tokens", "600", "--noun", "film"]
    given += ["--tasks", ",".join(TASKS), "--set", "batch_tokens=300", "--set", "eval_limit=3", "--set", "threads=1"]
    given += ["--set", "rank=2", "--objective", "recall@1=1,bits_per_byte=-0.1"]
    return [*given, *more]


def config(parts: dict[str, Any], study: str, **changes: Any) -> TuneConfig:
    root = parts["root"]
    base = FinetuneConfig(
        catalog=parts["bundle"], out=root / "out", dialogues=(root / "train.jsonl",), valid=root / "valid.jsonl",
        base=parts["base"], batch_tokens=300, eval_limit=3, threads=1, save_steps=1,
    )  # fmt: skip
    given: dict[str, Any] = {
        "trials": 4,
        "tasks": TASKS,
        "tokens": 600,
        "start": str(parts["bundle"]),
        "halving": False,
    }
    return TuneConfig(base, study=root / study, **(given | {"objective": Objective.parse("recall@1=1")} | changes))


@pytest.fixture(scope="module")
def searched(parts: dict[str, Any]) -> dict[str, Any]:
    """A search from a warm start of its own, with the mixture, the report and the plot."""
    more = ["--trials", "4", "--start-tokens", "300", "--final-tokens", "900", "--final", str(parts["root"] / "final")]
    assert main(flags(parts, "mixture.yaml", *more)) == 0
    return json.loads((parts["root"] / "mixture.json").read_text())  # type: ignore[no-any-return]


def test_a_search_ends_with_a_mixture_a_report_and_a_plot(parts: dict[str, Any], searched: dict[str, Any]) -> None:
    root = parts["root"]
    mixture = Mixture.load(root / "mixture.yaml")
    assert set(mixture.shares) <= set(TASKS) and mixture.tokens == 900 and "gcrs tune: recall@1=1" in mixture.note
    assert (root / "mixture.png").read_bytes().startswith(b"\x89PNG") and len(searched["trials"]) == 4
    page = (root / "mixture.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page and "own-mentions" in page
    points = [one["point"] for one in searched["trials"][:2]]
    assert points == ["paper", "uniform"] and searched["trials"][0]["shares"] == {"dialogue": 1.0}
    assert searched["surface"]["left_one_out"]["n"] >= 4 and set(searched["surface"]["predicted"]) == {
        "paper",
        "uniform",
    }
    assert all(600 <= one["tokens"] < 1_400 for one in searched["trials"] if one["state"] == "complete")
    start = Bundle.load(root / "mixture.study" / "start").hash
    training = json.loads((root / "final" / "training.json").read_text())
    assert searched["start"] == start == training["warm_start"] and set(training["mixture"]) == set(mixture.shares)
    assert not any((root / "mixture.study" / "runs").iterdir()), "finished runs leave their results alone"


def test_the_same_command_goes_on_and_another_study_is_refused(
    parts: dict[str, Any], searched: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--trials", "4", "--start-tokens", "300"]
    assert main(flags(parts, "mixture.yaml", *more, "--final-tokens", "900", "--json")) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["session"]["trials"] == 0 and again["best"] == searched["best"] and again["ended"] == "trials"
    other = ["--valid", str(parts["root"] / "train.jsonl")]
    for changed, what in ((["--set", "lr=0.5"], "settings"), (other, "validation data")):
        assert main(flags(parts, "mixture.yaml", *more, *changed)) == 3
        assert f"one of other data or settings: {what} differs." in capsys.readouterr().err
    assert main(flags(parts, "mixture.yaml", *more, "--from", str(parts["bundle"]))) == 3
    assert "The study's runs started from the bundle" in capsys.readouterr().err


def test_the_proof_compares_at_equal_tokens(
    parts: dict[str, Any], searched: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    proof = ["--start-tokens", "300", "--prove", "--prove-tokens", "400", "--seeds", "1", "--ranked", "1"]
    assert main(flags(parts, "mixture.yaml", *proof)) == 0
    said = capsys.readouterr().out
    assert "best - paper: recall@10" in said and "best - uniform" in said and "proxies' ranking" in said
    told = json.loads((parts["root"] / "mixture.proof.json").read_text())
    assert told["tokens"] == 400 and told["ranking"]["n"] >= 3 and len(told["points"]) >= 3
    runs = list((parts["root"] / "mixture.study" / "proof").iterdir())
    before = [path.stat().st_mtime_ns for path in runs]
    assert main(flags(parts, "mixture.yaml", *proof)) == 0, "runs that are there are not made again"
    assert [path.stat().st_mtime_ns for path in runs] == before


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--tasks", "dialogue,excerps"], 3, "names the task 'excerps', which is not known. Did you mean excerpts?"),
        (["--tasks", "dialogue,ratings-to-id"], 3, "The task 'ratings-to-id' has no data"),
        (["--tasks", "dialogue"], 2, "nothing to share out among one task"),
        (["--objective", "recal@1=1"], 2, "Did you mean recall@1?"),
        (["--max-minutes", "0"], 2, "max_minutes is 0.0, expected more than 0"),
        (["--set", "mixture=x.yaml"], 2, "makes a mixture and takes none"),
        (["--storage", "nonsense://"], 2, "cannot be opened"),
    ],
)
def test_bad_input_is_one_sentence(
    parts: dict[str, Any], more: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(parts, "bad.yaml", "--trials", "2", "--from", str(parts["bundle"]), *more)) == code
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


KILLED = """
import os, signal, sys
from gcrs.cli import main
from gcrs.toolkit.model import trainer
steps, step = [0], trainer.Trainer.step
def dying(self):
    steps[0] += 1
    if steps[0] == 4:  # in the second trial
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return step(self)
trainer.Trainer.step = dying
sys.exit(main(sys.argv[2:]))
"""


def test_a_kill_costs_at_most_the_trial_at_hand(parts: dict[str, Any]) -> None:
    more = ["--from", str(parts["bundle"]), "--no-halving", "--trials", "2", "--set", "save_steps=1", "--json"]
    command = [sys.executable, "-c", KILLED, "SIGKILL", *flags(parts, "killed.yaml", *more)]
    died = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    running = list((parts["root"] / "killed.study" / "runs").iterdir())
    assert len(running) == 1, "the checkpoint of the trial at hand"
    assert main(flags(parts, "killed.yaml", *more)) == 0
    told = json.loads((parts["root"] / "killed.json").read_text())
    assert [one["state"] for one in told["trials"]] == ["complete", "failed", "complete"]
    assert told["trials"][1]["shares"] == told["trials"][2]["shares"] and told["trials"][2]["point"] == "uniform"
    assert told["session"]["trials"] == 1 and not any((parts["root"] / "killed.study" / "runs").iterdir())


def fake_runs(found: Found, score: Callable[[dict[str, float]], float]) -> list[dict[str, float]]:
    """Runs whose score is a known function of the shares: what a search does with its trials, without training."""
    asked: list[dict[str, float]] = []

    def run(shares: dict[str, float], *, watch: Any, **_: Any) -> Any:
        from gcrs.programs.proxy_runs import Result
        from gcrs.toolkit.model.validation import Validation

        asked.append(shares)

        class Told(Validation):
            def metrics(self) -> dict[str, float]:
                return {"recall@1": score(shares) / 2}

        for rung in found.runs.rungs:
            watch(Told(), rung)
        nothing = Validation().to_json()
        return Result({"recall@1": score(shares)}, nothing, 600, 0.1, 0.1, {}), None

    found.runs.run = run  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("sampler", ["surface", "tpe", "random"])
def test_samplers_pruner_and_stopping_rule(
    parts: dict[str, Any], sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a known response: the surface comes close to the best, worse runs stop early, it knows when to stop."""
    from gcrs.programs import mixture_search

    trials = 24 if sampler == "surface" else 14
    cfg = config(parts, f"known-{sampler}", trials=trials, sampler=sampler, halving=True, storage="sqlite://")
    real = mixture_search.open_search

    def opened(*args: Any, **options: Any) -> Found:
        found = real(*args, **options)
        fake_runs(found, lambda shares: float(1 + truth(found.space.point(shares))[0]))
        return found

    monkeypatch.setattr(mixture_search, "open_search", opened)
    found = search(cfg)
    seen = observations(found.study, found.space)
    states = {trial.state.name for trial in found.study.trials}
    assert "PRUNED" in states and max(one.value for one in seen) > 0.8
    if sampler == "surface":
        assert found.ended == "nothing left to gain" and len(seen) < 24
        assert truth(Surface(found.space, seen).best())[0] > -0.03


def test_two_workers_share_a_study_and_minutes_end_it(parts: dict[str, Any]) -> None:
    cfg = config(parts, "shared", trials=3)
    storage = f"sqlite:///{parts['root'] / 'elsewhere.db'}"
    one, other = (open_search(replace(cfg, storage=storage, study=parts["root"] / name)) for name in ("w1", "w2"))
    asked = one.study.ask()  # the first worker is at it, and alive
    asked.set_user_attr("worker", "another-machine:1")
    asked.set_user_attr("alive", 4e9)
    assert revive(other.study) == 0
    asked.set_user_attr("alive", 0.0)
    queue(one.study, one.space, np.array([1.0, 0, 0]), "paper")
    assert revive(other.study) == 1, "silent for a quarter of an hour"
    done = search(replace(cfg, storage=storage, study=parts["root"] / "w2", max_minutes=1e-6))
    assert done.ended == "minutes" and done.session_trials == 0


# -------------------------------------------------------------------------------------------- inside DSPy


def recommender(bundle: Path) -> Any:
    from gcrs.programs.recommender import Recommender
    from gcrs.toolkit.model.bundle import load_engine

    loaded = Bundle.load(bundle)
    return Recommender.of(loaded, load_engine(loaded, dtype="fp32"))


def optimizer(parts: dict[str, Any], study: str, metric: Any = None, **changes: Any) -> Any:
    from gcrs.programs.mixture_optimizer import MixtureOptimizer

    given: dict[str, Any] = {
        "trials": 2,
        "tokens": 400,
        "final_tokens": 500,
        "tasks": TASKS[:2],
        "objective": "recall@1=1",
    }
    settings = {"base": parts["base"], "batch_tokens": 300, "eval_limit": 2, "threads": 1}
    return MixtureOptimizer(metric, study=parts["root"] / study, settings=settings, **(given | changes))


def test_it_compiles_a_program_with_its_fine_tuned_model(parts: dict[str, Any]) -> None:
    from dspy import Evaluate

    from gcrs.programs.examples import dialogue_examples, dialogues_of, hit

    examples = dialogue_examples(toy_dialogues())
    assert len(examples) == 4 and [d.id for d in dialogues_of(examples)] == ["d1", "d2", "d3"]
    assert [len(d) for d in dialogues_of(examples)] == [2, 4, 2]
    student = recommender(parts["bundle"])
    tuned = optimizer(parts, "compiled").compile(student, trainset=examples, valset=examples)
    assert tuned.intent.lm.model != student.intent.lm.model and tuned._compiled
    assert tuned.intent.lm.model == f"gcrs/{Bundle.load(parts['root'] / 'compiled' / 'final').hash}"
    assert set(tuned.mixture_report["best"]["shares"]) <= set(TASKS)
    asked = dialogue_examples(toy_dialogues(), items_only=True)
    score = Evaluate(devset=asked, metric=hit, num_threads=1, display_progress=False)(tuned).score
    assert 0 <= score <= 100


def test_any_metric_function_and_inside_better_together(parts: dict[str, Any]) -> None:
    import dspy

    from gcrs.programs.examples import dialogue_examples

    calls: list[str] = []

    def chatty(example: Any, prediction: Any, trace: Any = None) -> float:
        calls.append(prediction.intent)
        return float(prediction.intent == example.intent)

    examples = dialogue_examples(toy_dialogues())
    inside = optimizer(parts, "together", chatty)
    student = recommender(parts["bundle"])
    both = dspy.BetterTogether(metric=chatty, mix=inside)
    better = both.compile(student, trainset=examples, valset=examples[:2], strategy="mix")
    assert not better.flag_compilation_error_occurred and len(better.candidate_programs) == 2
    told = json.loads((parts["root"] / "together" / "mixture.json").read_text())
    assert told["objective"] == "a metric function" and all(one["value"] in (0, 0.5, 1) for one in told["trials"])
    assert len(calls) == 2 * 2 + 2 * 2, "two trials, and before and after"


def test_a_program_that_is_not_ours_needs_a_catalogue(parts: dict[str, Any]) -> None:
    import dspy

    from gcrs.programs.examples import dialogue_examples

    with pytest.raises(UsageError, match="runs on no bundle of gcrs"):
        optimizer(parts, "none").compile(dspy.Predict("a -> b"), trainset=dialogue_examples(toy_dialogues()))
    with pytest.raises(UsageError, match="training set is empty"):
        optimizer(parts, "none").compile(recommender(parts["bundle"]), trainset=[])


def test_a_study_says_what_it_is(parts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_search(config(parts, "odd", start=str(parts["root"] / "nowhere")))
