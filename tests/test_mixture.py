"""Mixtures: the value and its YAML, the tasks behind the names, the sampler of tokens, a run that can be resumed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.cli import main
from gcrs.toolkit.dialogue.encode import Kind
from gcrs.toolkit.dialogue.mixture import Mixture
from gcrs.toolkit.dialogue.ratings import Taste, read_ratings, tastes_of
from gcrs.toolkit.dialogue.task_registry import (
    ENDLESS,
    TaskData,
    check_task,
    known_tasks,
    make_task,
    register_task,
)
from gcrs.toolkit.dialogue.turns import Dialogue, Turn, write_dialogues
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import sha256_file
from gcrs.toolkit.model.finetune import finetune
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.mixture_data import TaskSequences, mixture_stream
from gcrs.toolkit.model.mixture_stream import MixtureStream
from gcrs.toolkit.model.training_data import catalogue_source
from toys import toy_dialogues, toy_prepared, toy_tokens

PREPARED = toy_prepared()
TOKENS = toy_tokens(PREPARED.book.codes)
TASTES = [Taste(("m01", "m02", "m03"), ("m10",)), Taste(("m06", "m07"), ())]


def task_data(**changes: Any) -> TaskData:
    dialogues = toy_dialogues()
    parts: dict[str, Any] = {"dialogues": dialogues, "tastes": TASTES}
    return TaskData(catalogue_source(PREPARED, dialogues, "film", 0), **(parts | changes))


# ------------------------------------------------------------------------------------------------- the value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shares: {dialogue: 0.5, excerpts: -0.5}", "the share of excerpts is -0.5, expected a number from 0 to 1"),
        ("shares: {dialogue: 0.5, excerpts: 0.2}", "the shares sum to 0.7, expected 1"),
        ("shares: {dialog: 1}", "names the task 'dialog', which is not known. Did you mean dialogue?"),
        ("shares: {dialogue: .nan}", "the share of dialogue is nan"),
        ("shares: [dialogue]", "expected tasks with their shares"),
        ("share: {dialogue: 1}", "unknown key 'share'. Did you mean shares?"),
        ("shares: {dialogue: 1}\ntokens: 0.5", "tokens is 0.5, expected a whole number"),
        (
            "shares: {dialogue: 1}\nmax_repeats: {dialogue: 0}",
            "max_repeats of dialogue is 0, expected a number",
        ),
    ],
)
def test_a_broken_mixture_is_one_sentence_and_exit_code_3(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        Mixture.load(path)
    assert says in str(caught.value) and str(path) in str(caught.value) and caught.value.exit_code == 3


def test_a_mixture_reads_back_as_it_was_written(tmp_path: Path) -> None:
    mixture = Mixture({"dialogue": 2 / 3, "chat": 1 / 3, "excerpts": 0.0}, 5_000, {"dialogue": 2}, "by hand")
    mixture.save(tmp_path / "m.yaml")
    assert Mixture.load(tmp_path / "m.yaml") == mixture
    assert list(mixture.shares) == ["dialogue", "chat"], "a task of no share is no task of the mixture"
    assert mixture.repeats_of("dialogue") == 2 and mixture.repeats_of("chat") == 4
    rounded = Mixture({"dialogue": 0.3333, "chat": 0.3333, "excerpts": 0.3333})
    assert sum(rounded.shares.values()) == pytest.approx(1, abs=1e-12)


# ------------------------------------------------------------------------------------------------- the tasks


def test_every_task_is_a_pure_function_with_something_to_learn_from() -> None:
    data, again = task_data(), task_data()
    counts: dict[str, int] = Counter()  # type: ignore[assignment]
    for name in known_tasks():
        task, other = make_task(name, data), make_task(name, again)
        numbers = range(min(task.num_examples, 20))
        assert [task.get_example(n) for n in numbers] == [other.get_example(n) for n in reversed(numbers)][::-1], name
        encoded = TaskSequences(task, TOKENS, PREPARED.book, 768, counts)
        kinds = {int(kind) for n in numbers for _, part in encoded.get(n) for kind in part} - {int(Kind.CONTEXT)}
        assert kinds and kinds <= {int(kind) for kind in task.supervises}, name


def test_the_papers_point_is_the_reply_and_nothing_else() -> None:
    from gcrs.toolkit.dialogue.encode import encode

    encoded = TaskSequences(make_task("dialogue", task_data()), TOKENS, PREPARED.book, 768, Counter())  # type: ignore[arg-type]
    for n, dialogue in enumerate(toy_dialogues()):
        whole = encode(dialogue, TOKENS, PREPARED.book)
        ((ids, kinds),) = encoded.get(n)
        after = whole.labels() != -100  # everything after `Assistant:`
        assert (ids == whole.ids).all() and ((kinds != Kind.CONTEXT) == after).all()
    config = FinetuneConfig(catalog=Path("c"), out=Path("o"), mixture=Path("m.yaml"), dialogues=(Path("d"),))
    assert set(config.loss_weights().values()) == {1.0}, "each token alike, as in the paper"
    assert FinetuneConfig(catalog=Path("c"), out=Path("o")).loss_weights()["text"] == 0.3
    assert FinetuneConfig(catalog=Path("c"), out=Path("o"), text_weight=0.5, mixture=Path("m")).text_weight == 0.5


def test_what_the_tasks_over_dialogues_are() -> None:
    data = task_data()
    history = make_task("history-to-id", data)
    assert history.num_examples == 3
    first = history.get_example(0)
    assert first.turns[0].text == "<item:m01>" and first.turns[1].decided_targets == ("m05",)
    baskets = make_task("baskets", data)
    orders = {tuple(t.decided_targets or t.mentions for t in baskets.get_example(n).turns) for n in range(60)}
    assert len(orders) > 8, "ever new orders"
    assert baskets.get_example(7) == baskets.get_example(7)
    for n in range(60):
        turns = baskets.get_example(n).turns
        named = [item for turn in turns for item in (turn.decided_targets or turn.mentions)]
        assert turns[0].role == "user" and turns[-1].role == "assistant" and len(set(named)) == len(named)
    own = make_task("own-mentions", data)
    assert {d.id for n in range(own.num_examples) if (d := own.get_example(n))} == {"d1", "d2", "d3"}
    chat = make_task("chat", data)
    assert [turn.text for turn in chat.get_example(0).turns] == ["Hello, how are you?", "Fine! What do you like?"]
    talk = [Dialogue("t", (Turn("user", "Hm?"), Turn("assistant", "Hm.")))]
    assert make_task("chat", task_data(talk=talk)).get_example(0) == talk[0]
    assert make_task("chat", task_data(dialogues=())).num_examples == ENDLESS, "nobody talked: small talk of ours"


def test_ratings_and_contrast_draw_from_tastes(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(
        "user,item,rating,when\nann,m01,5,1\nann,m10,1,2\nann,m02,4.5,3\nbob,m07,3,4\nbob,m06,3,5\nbob,x,9,6\n"
    )
    tastes = read_ratings(path, lambda item: item if item in PREPARED.catalog else None)
    assert tastes == [Taste(("m01", "m02"), ("m10",)), Taste(("m07", "m06"), ())]
    task = make_task("ratings-to-id", task_data(tastes=tastes))
    assert task.num_examples == 4
    assert [task.get_example(n).turns[1].decided_targets for n in range(4)] == [("m01",), ("m02",), ("m07",), ("m06",)]
    for n in range(4):
        dialogue = task.get_example(n)
        assert not set(dialogue.turns[0].mentions) & set(dialogue.turns[1].decided_targets), (
            "the answer is not asked with"
        )
    contrast = make_task("contrast", task_data())
    for n in range(0, 12, 2):
        one, other = contrast.get_example(n), contrast.get_example(n + 1)
        assert set(one.turns[0].mentions) == set(other.turns[0].mentions) and one.turns[0] != other.turns[0]
    said = Turn("user", "ok", feedback={"m01": "liked", "m02": "liked", "m03": "disliked", "m04": "seen"})
    assert tastes_of([Dialogue("a", (said,))]) == [Taste(("m01", "m02"), ("m03",))]
    path.write_text("user,item,rating\nann,m01,good\n")
    with pytest.raises(DataError, match="line 2: rating is 'good', expected a number"):
        read_ratings(path, str)
    path.write_text("who,item,rating\n")
    with pytest.raises(DataError, match="no column 'user'"):
        read_ratings(path, str)


def test_a_task_without_data_and_one_of_ones_own() -> None:
    with pytest.raises(DataError, match=r"'ratings-to-id' has no data.*It draws from --ratings FILE"):
        make_task("ratings-to-id", task_data(tastes=()))
    assert check_task("dialogue").teaches

    @register_task("echo", "says back", needs="nothing")
    def echo(data: TaskData) -> Any:
        return make_task("chat", data)

    try:
        assert make_task("echo", task_data()).num_examples == 1
        assert Mixture({"echo": 1.0}).shares == {"echo": 1.0}
    finally:
        from gcrs.toolkit.dialogue import task_registry

        del task_registry._REGISTERED["echo"]


def test_a_package_offers_a_task_as_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gcrs.toolkit.dialogue import task_registry

    (tmp_path / "others_tasks.py").write_text(
        "def shouting(data):\n"
        "    from gcrs.toolkit.dialogue.tasks import SmallTalk\n"
        "    return SmallTalk(data.source, 7)\n"
    )
    about = tmp_path / "others_tasks-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: others-tasks\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gcrs.tasks]\nshouting = others_tasks:shouting\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    task_registry._offered.cache_clear()
    try:
        assert make_task("shouting", task_data()).num_examples == 7
        assert known_tasks()["shouting"].teaches == "of others-tasks"
    finally:
        task_registry._offered.cache_clear()


# ----------------------------------------------------------------------------------------------- the sampler


class Numbers:
    """Examples whose sequences have these lengths; the first id says whose they are."""

    def __init__(self, mark: int, lengths: list[int]) -> None:
        self.mark, self.lengths_of = mark, lengths

    @property
    def num_examples(self) -> int:
        return len(self.lengths_of)

    def get(self, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
        ids = np.full(self.lengths_of[n], self.mark, np.int32)
        return [(ids, np.full(len(ids), Kind.TEXT, np.uint8))] if len(ids) else []


def stream_of(shares: list[float], lengths: list[list[int]], repeats: float = 1e9, **options: Any) -> MixtureStream:
    names = [f"t{n}" for n in range(len(shares))]
    sources = {name: Numbers(n, own) for n, (name, own) in enumerate(zip(names, lengths, strict=True))}
    settings: dict[str, Any] = {"batch_tokens": 200, "seed": 3} | options
    return MixtureStream(sources, dict(zip(names, shares, strict=True)), dict.fromkeys(names, repeats), **settings)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 1), st.lists(st.integers(1, 60), min_size=1, max_size=9)), min_size=1, max_size=6
    )
)
def test_shares_hold_within_a_few_sequences_at_every_step(drawn: list[tuple[float, list[int]]]) -> None:
    total = sum(share for share, _ in drawn)
    shares = [share / total for share, _ in drawn]
    stream = stream_of(shares, [lengths for _, lengths in drawn])
    longest = max(max(lengths) for _, lengths in drawn)
    tokens = np.zeros(len(shares))
    for step in range(15):
        _, rows = stream.at(step)
        for row in rows:
            ids, _ = stream.sequence(int(row))
            tokens[ids[0]] += len(ids)
        assert np.abs(tokens - np.asarray(shares) * tokens.sum()).max() <= longest * len(shares)
        assert 200 <= stream.lengths[rows].sum() < 200 + longest
        assert sorted(n for part in stream.parts(rows, 100) for n in part.tolist()) == list(range(len(rows)))
        for part in stream.parts(rows, 100):
            assert len(part) == 1 or stream.lengths[part].max() * len(part) <= 100


def test_a_stream_goes_on_where_its_state_was_taken() -> None:
    parts = ([0.6, 0.3, 0.1], [[30, 20, 10], [50, 7], [5] * 40])
    straight, stopped, resumed = (stream_of(*parts) for _ in range(3))

    def read(stream: MixtureStream, steps: range) -> list[list[list[int]]]:
        return [[stream.sequence(int(row))[0].tolist() for row in stream.at(step)[1]] for step in steps]

    whole = read(straight, range(9))
    assert read(stopped, range(4)) == whole[:4]
    resumed.restore(json.loads(json.dumps(stopped.state())))
    assert read(resumed, range(4, 9)) == whole[4:]
    assert straight.counts()["t0"]["tokens"] == resumed.counts()["t0"]["tokens"]
    before = straight.state()
    assert len(straight.sample()) > 10 and straight.state() == before, "a look ahead moves nothing"


def test_caps_hand_a_share_on_and_are_counted_when_all_are_reached() -> None:
    stream = stream_of([0.5, 0.5], [[10] * 4, [10] * 1000], repeats=2, batch_tokens=100)
    for step in range(10):
        stream.at(step)
    counts = stream.counts()
    assert counts["t0"]["tokens"] == 80 and counts["t0"]["repeats"] == 2
    assert counts["t1"]["tokens"] == 920, "the other task takes what is left"
    small = stream_of([1.0], [[10] * 4], repeats=2, batch_tokens=100)
    for step in range(2):
        small.at(step)
    assert small.counts()["t0"]["beyond its cap"] == 120
    with pytest.raises(DataError, match="nothing to learn from"):
        stream_of([1.0], [[0, 0]]).at(0)


def test_an_epoch_sees_every_example_once_in_another_order() -> None:
    stream = stream_of([1.0], [list(range(1, 21))], batch_tokens=210)
    first, second = ([len(stream.sequence(int(row))[0]) for row in range(len(stream.at(n)[1]))] for n in range(2))
    assert sorted(first) == sorted(second) == list(range(1, 21)) and first != second


def test_examples_are_made_when_they_are_drawn() -> None:
    counts: dict[str, int] = Counter()  # type: ignore[assignment]
    mixture = Mixture.uniform(["item-to-id", "facts-to-item"])
    stream = mixture_stream(
        mixture, task_data(), TOKENS, PREPARED.book, max_length=768, batch_tokens=400, seed=0, counts=counts
    )
    stream.at(0)
    drawn = sum(int(count["sequences"]) for count in stream.counts().values())
    assert 2 <= drawn < 40 and ENDLESS > 10**8, "tasks without an end, and no more than a step of examples"


# ------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, toy_base_dir: Path) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("mixture")
    PREPARED.save(root / "catalog")
    write_dialogues(toy_dialogues() * 4, root / "train.jsonl")
    Mixture({"dialogue": 0.6, "own-mentions": 0.2, "facts-to-item": 0.2}, 2_400).save(root / "mixture.yaml")
    return {"root": root, "base": str(toy_base_dir)}


def config(parts: dict[str, Any], name: str, **changes: Any) -> FinetuneConfig:
    root = parts["root"]
    given = {"catalog": root / "catalog", "dialogues": (root / "train.jsonl",), "mixture": root / "mixture.yaml",
             "base": parts["base"], "out": root / name, "rank": 2, "batch_tokens": 300, "threads": 1,
             "eval_limit": 3, "save_steps": 2}  # fmt: skip
    return FinetuneConfig(**(given | changes))


def test_a_run_over_a_mixture_ends_with_the_same_bytes_after_a_stop(parts: dict[str, Any]) -> None:
    class Stop(Exception):
        pass

    def stop(found: object, used: float) -> None:
        raise Stop

    straight = finetune(config(parts, "straight"), forecast=False, keep_best=False)
    with pytest.raises(Stop):
        finetune(config(parts, "broken"), watch=stop, eval_at=(0.7,), forecast=False)
    resumed = finetune(config(parts, "broken"), resume=True, forecast=False, keep_best=False)
    assert resumed["resumed"] and resumed["steps"] == straight["steps"]
    same = [sha256_file(parts["root"] / name / "adapter_model.safetensors") for name in ("straight", "broken")]
    assert same[0] == same[1]
    assert 2_400 <= straight["tokens_read"] < 2_400 + 768, "the mixture's total is the budget"
    drawn = straight["mixture"]
    assert sum(one["tokens"] for one in drawn.values()) == straight["tokens_read"]
    assert all(abs(one["drawn"] - one["share"]) < 0.12 for one in drawn.values())
    assert set(straight["validation"][-1]) == {
        "step", "recall@10", "recall@1", "recall@50", "intent_accuracy", "bits_per_byte"
    }  # fmt: skip
    training = json.loads((parts["root"] / "straight" / "training.json").read_text())
    assert training["mixture"] == drawn and training["config"]["mixture"] == "mixture.yaml"


def test_another_mixture_is_another_run(parts: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no total of tokens"):
        Mixture.paper().save(parts["root"] / "open.yaml")
        finetune(config(parts, "open", mixture=parts["root"] / "open.yaml"))
    finetune(config(parts, "one", steps=2), forecast=False)
    with pytest.raises(UsageError, match="holds a run with other settings or data"):
        finetune(config(parts, "one", steps=2, mixture=parts["root"] / "open.yaml"), resume=True)
    with pytest.raises(UsageError, match="tasks of a mixture alone"):
        config(parts, "none", mixture=None, ratings=(Path("r.csv"),))


def test_finetune_takes_a_mixture_from_the_command_line(
    parts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    root = parts["root"]
    flags = ["finetune", "--catalog", str(root / "catalog"), "--base", parts["base"], "--out", str(root / "cli")]
    flags += ["--set", "rank=2", "--set", "eval_limit=2", "--steps", "2", "--json"]
    assert main([*flags, "--dialogues", str(root / "train.jsonl"), "--mixture", str(root / "mixture.yaml")]) == 0
    assert set(json.loads(capsys.readouterr().out)["mixture"]) == {"dialogue", "own-mentions", "facts-to-item"}
    assert main([*flags, "--mixture", str(root / "mixture.yaml")]) == 3
    assert "The task 'dialogue' has no data" in capsys.readouterr().err


def test_validation_scores_intent_and_words_in_the_same_pass(parts: dict[str, Any]) -> None:
    import torch

    from gcrs.toolkit.dialogue.encode import encode
    from gcrs.toolkit.model.validation import validate
    from toys import toy_model

    model = toy_model(TOKENS)
    found = validate(model, TOKENS, PREPARED.book, toy_dialogues(), 100)
    assert found is not None
    assert len(found.ranks) == 4 and len(found.intents) == 4 and len(found.bytes) == 4
    said = encode(toy_dialogues()[1], TOKENS, PREPARED.book)
    with torch.no_grad():
        logs = torch.log_softmax(model(input_ids=torch.tensor(said.ids[None].astype(int))).logits[0].float(), -1)
    places = [n for n, kind in enumerate(said.kinds) if kind == Kind.TEXT]
    bits = -sum(float(logs[n - 1, said.ids[n]]) for n in places) / np.log(2)
    ours = sum(bit for bit, group in zip(found.bits, found.byte_groups, strict=True) if group == 1)
    assert ours == pytest.approx(bits, rel=1e-4)
    words = "".join(turn.text for turn in toy_dialogues()[1].turns if turn.role == "assistant").replace(
        "<item:m09>", ""
    )
    assert sum(b for b, group in zip(found.bytes, found.byte_groups, strict=True) if group == 1) == len(words.encode())
