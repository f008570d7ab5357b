"""A RemoteEngine against a server process that honours vLLM's documented fields: the same decisions as at home."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcrs.cli import main
from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.errors import DeadEnd, GcrsError, MissingModelError, UsageError
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model import device
from gcrs.toolkit.model.bundle import Bundle, load_engine
from gcrs.toolkit.model.engine import Engine, Sampling
from gcrs.toolkit.model.remote import RemoteEngine, Server
from serving_helpers import TESTS, serving
from toys import toy_dialogues


@pytest.fixture(scope="module")
def both(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, RemoteEngine, Path]]:
    """The bundle's engine here and elsewhere, and what was asked there."""
    record = tmp_path_factory.mktemp("vllm") / "bodies.jsonl"
    command = [sys.executable, str(TESTS / "vllm_server.py"), str(toy_bundle), str(record), "processed_logprobs", "-1"]
    with serving(command) as server:
        bundle = Bundle.load(toy_bundle)
        yield load_engine(bundle, dtype="fp32"), RemoteEngine(Server.at(server.url), bundle.tokens, bundle.book), record


def prompts(engine: Any) -> list[list[int]]:
    return [encode_prompt(dialogue[:1], engine.tokens, engine.book) for dialogue in toy_dialogues()]


def bodies(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]


def test_intents_are_those_of_the_local_engine(both: Any) -> None:
    local, remote, _ = both
    for prompt in prompts(local):
        for allow in ({"recommend"}, {"chat"}, {"recommend", "chat"}):
            ours, theirs = (engine.intent(prompt, allow=frozenset(allow)) for engine in (local, remote))
            assert ours.intent == theirs.intent
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)


def test_rankings_are_those_of_the_local_engine_under_any_filter(both: Any) -> None:
    local, remote, record = both
    rng = np.random.default_rng(0)
    for prompt in prompts(local):
        decided = [*prompt, local.tokens.rec]
        for allowed in (None, rng.random(12) < 0.5, np.arange(12) == 7):
            before = len(bodies(record)) if record.exists() else 0
            theirs = remote.targets(decided, k=12, allowed=allowed)
            assert len(bodies(record)) - before <= local.book.levels  # one request a level, beams and all
            ours = local.targets(decided, k=12, allowed=allowed)
            assert [one.item_id for one in ours] == [one.item_id for one in theirs]
            np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-3)
    with pytest.raises(DeadEnd):
        remote.targets(decided, k=1, allowed=np.zeros(12, dtype=bool))
    narrow = remote.over(local.book, np.array([item == "m05" for item in local.book]))
    assert [one.item_id for one in narrow.targets(decided, k=5)] == ["m05"]


def test_newcomers_are_ranked_as_by_the_local_engine(both: Any) -> None:
    local, remote, _ = both
    taken = set(local.book.ids.values())
    free = [sid for sid in np.ndindex(*local.book.codes) if sid not in taken]
    joined = {f"n{n}": free[n] for n in range(0, len(free), max(1, len(free) // 9))}
    book = Codebook(local.book.codes, {**local.book.ids, **joined})
    here, there = local.over(book), remote.over(book)
    for prompt in prompts(local):
        ours, theirs = (engine.targets([*prompt, local.tokens.rec], k=len(book)) for engine in (here, there))
        assert len(ours) == len(book) and [one.item_id for one in ours] == [one.item_id for one in theirs]
        np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-3)


@pytest.mark.parametrize("licensed", [[], ["m01"], ["m05", "m09"]])
def test_a_response_names_only_what_is_licensed(both: Any, licensed: list[str]) -> None:
    local, remote, record = both
    tokens = local.tokens
    for seed in range(3):
        prompt = [*prompts(local)[0], tokens.chat, tokens.resp]
        pieces = list(remote.respond(prompt, licensed=licensed, sampling=Sampling(max_tokens=25, seed=seed)))
        assert pieces[-1].token_ids == (tokens.end,) and {p.item_id for p in pieces if p.item_id} <= set(licensed)
        text = "".join(piece.text for piece in pieces)
        assert text and "<BOI>" not in text and not any(ord(c) < 32 and c not in "\n\t" for c in text)
        for piece in pieces[:-1]:
            spelled = tokens.decode_text(piece.token_ids) if piece.kind == "text" else piece.text
            assert spelled == piece.text
    body = bodies(record)[-1]
    assert body["stream"] and body["stop_token_ids"] == [tokens.end] and body["prompt"] == prompt
    assert set(body["structured_outputs"]) == {"regex"}
    stopped = list(remote.respond(prompt, licensed=licensed, stop=lambda: True))
    assert [piece.text for piece in stopped] == [""]


def test_the_verb_recommends_the_same_over_the_server(
    both: Any, toy_bundle: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, remote, record = both
    monkeypatch.setattr(device, "_cpu_multiplies_bf16", lambda: False)  # float32, as the server computes

    def items(*flags: str) -> list[tuple[str, float]]:
        assert main(["recommend", "I loved The Matrix", "--bundle", str(toy_bundle), "-k", "5", "--json", *flags]) == 0
        return [(item["id"], item["score"]) for item in json.loads(capsys.readouterr().out)["items"]]

    before = len(bodies(record))
    theirs = items("--engine", "vllm", "--api-base", remote.server.api_base, "--where", "genre=sci-fi")
    asked = bodies(record)[before:]
    assert len(asked) == 2 + remote.book.levels - sum(len(set(codes)) == 1 for codes in remote.book.array().T)
    ours = items("--where", "genre=sci-fi")
    assert [one for one, _ in ours] == [one for one, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-3)


def test_a_server_that_tells_too_little_is_refused(both: Any, toy_bundle: Path, tmp_path: Path) -> None:
    local, remote, _ = both
    with pytest.raises(GcrsError, match=r"legal ones missing.*--logprobs-mode processed_logprobs"):
        short = RemoteEngine(Server(remote.server.api_base, "exported"), local.tokens, local.book)
        real = short.server.complete
        object.__setattr__(short, "server", _Short(real))
        short.intent(prompts(local)[0])
    with pytest.raises(MissingModelError, match="cannot be reached"):
        Server.at("http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match="--api-base is"):
        Server.at("127.0.0.1:8000")
    assert main(["recommend", "x", "--engine", "vllm"]) == 2
    assert main(["recommend", "x", "--api-base", "http://127.0.0.1:9/v1"]) == 2
    assert (
        main(["recommend", "x", "--bundle", str(toy_bundle), "--engine", "vllm", "--api-base", "http://127.0.0.1:9"])
        == 4
    )


class _Short:
    """A server's answers with one logprob less, as with raw logprobs."""

    def __init__(self, complete: Any) -> None:
        self._complete = complete

    def complete(self, body: Any) -> Any:
        choices = self._complete(body)
        for choice in choices:
            choice["logprobs"]["top_logprobs"][0].popitem()
        return choices
