"""RemoteEngine: the decisions of an Engine, decoded by a vLLM server that serves the bundle's exported model.

What a local engine does with masks is asked for in the request: `allowed_token_ids` for intent and target, one request
a level with all beams as its prompts, and `structured_outputs` for the response. Prompts are token ids, so typed text
stays text on the other side too. What comes back is checked, and nothing outside the grammar is let through. Knows
nothing of dialogues, rules or prompts' words.
"""

from __future__ import annotations

import copy
import json
import math
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcrs.toolkit.dialogue.turns import Intent
from gcrs.toolkit.errors import DataError, DeadEnd, GcrsError, MissingModelError, UsageError
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.model.engine import BOTH, MIN_BEAMS, IntentDecision, Piece, Scored
from gcrs.toolkit.model.sampling import Sampling
from gcrs.toolkit.model.step_stats import EngineStats
from gcrs.toolkit.model.tokens import TokenSpace

SECONDS = 120.0
HINT = "Start it with: vllm serve DIR --max-logprobs -1 --logprobs-mode processed_logprobs"
WORDS = r"[^<\x00-\x08\x0b-\x1f\x7f]"  # the response's text: no control characters, and no mark that opens a span


@dataclass(frozen=True)
class Server:
    """A vLLM server's OpenAI-compatible API, and the name of the model to ask for."""

    api_base: str
    model: str
    api_key: str | None = None

    @classmethod
    def at(cls, api_base: str, api_key: str | None = None) -> Server:
        """The server at an address such as http://127.0.0.1:8000/v1; MissingModelError when it does not answer."""
        if not api_base.startswith(("http://", "https://")):
            raise UsageError(f"--api-base is {api_base!r}, expected an address such as http://127.0.0.1:8000/v1.")
        found = cls(api_base.rstrip("/"), "", api_key)
        with found._ask("/models", None) as reply:
            models = [one["id"] for one in json.load(reply)["data"]]
        if not models:
            raise MissingModelError(f"The server at {api_base} serves no model.", hint=HINT)
        return cls(found.api_base, models[0], api_key)

    def complete(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The choices of one request, in the order of its prompts."""
        with self._ask("/completions", {"model": self.model, **body}) as reply:
            choices = json.load(reply)["choices"]
        return sorted(choices, key=lambda one: one["index"])

    def stream(self, body: Mapping[str, Any], stop: Callable[[], bool] | None) -> Iterator[str]:
        """The text of one request as it comes; leaving the iterator, or `stop`, hangs up."""
        with self._ask("/completions", {"model": self.model, "stream": True, **body}) as reply:
            for raw in reply:
                line = raw.decode("utf-8").strip()
                if stop is not None and stop():
                    return
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                told = json.loads(line.removeprefix("data: "))
                if "error" in told:
                    raise GcrsError(f"The server stopped: {str(told['error'])[:200]}.")
                for choice in told["choices"]:
                    yield choice["text"]

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api_base + path, data, headers)
        try:
            return urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            told = " ".join(error.read(500).decode("utf-8", "replace").split())
            hint = HINT if error.code == 400 else "See that server's log."
            raise GcrsError(f"The server at {self.api_base} answered {error.code}: {told}", hint=hint) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise MissingModelError(f"The server at {self.api_base} cannot be reached: {reason}.", hint=HINT) from error


class RemoteEngine:
    """An Engine whose model runs elsewhere; the same calls, the same promises. Safe to call from several threads."""

    def __init__(self, server: Server, tokens: TokenSpace, book: Codebook) -> None:
        self.server, self.tokens, self.book = server, tokens, book
        self.tree = PrefixTree.build(book.array(), book.codes)
        self._taught = frozenset(book.ids)
        self._taught_tree: PrefixTree | None = None
        self.stats = EngineStats()

    def over(self, book: Codebook, offered: np.ndarray | None = None) -> RemoteEngine:
        """As `Engine.over`: the same server over another codebook of the same codes; `offered` is bool [n items]."""
        if tuple(book.codes) != tuple(self.book.codes):
            raise DataError(f"The engine spells codes {self.book.codes}, the codebook has {book.codes}.")
        other = copy.copy(self)
        other.book = book
        other.tree = PrefixTree.build(book.array(), book.codes)
        taught = np.array([item in self._taught for item in book], dtype=bool)
        other._taught_tree = None if taught.all() else other.tree.subset(taught)
        if offered is not None:
            other.tree = other.tree.subset(offered)
        return other

    def close(self) -> None:
        """Nothing is held."""

    def intent(self, prompt: Sequence[int], *, allow: frozenset[Intent] = BOTH) -> IntentDecision:
        """As `Engine.intent`."""
        names: dict[int, Intent] = {self.tokens.rec: "recommend", self.tokens.chat: "chat"}
        (found,) = self._next([list(prompt)], sorted(names))
        total = np.logaddexp.reduce(list(found.values()))
        chances = {name: math.exp(found[token] - total) for token, name in names.items()}
        self.stats.intent.calls += 1
        decided = max((name for name in names.values() if name in allow), key=lambda name: chances[name])
        return IntentDecision(decided, chances)

    def targets(
        self, prompt: Sequence[int], *, k: int, beams: int | None = None, allowed: np.ndarray | None = None
    ) -> list[Scored]:
        """As `Engine.targets`: one request a level, scores normalised over the full catalogue's children."""
        if k < 1 or (beams is not None and beams < 1):
            raise UsageError(f"k is {k} and beams is {beams}, expected 1 or more.")
        tree = self.tree if allowed is None else self.tree.subset(allowed)
        if not tree.allowed_rows().any():
            raise DeadEnd("The filter leaves no item to recommend.", hint="Relax a rule.")
        width = max(k, beams or MIN_BEAMS)
        self.stats.targets.calls += 1
        held: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for level in range(tree.levels):
            start = self.tokens.level_range(level).start
            states = [tree.walk(codes) for _, codes in held]
            full = [tree.children(state, full=True)[0].tolist() for state in states]
            union = sorted({start + code for codes in full for code in codes})
            opened = [*prompt, self.tokens.boi]
            prompts = [
                opened + [self.tokens.level_range(n).start + code for n, code in enumerate(codes)] for _, codes in held
            ]
            found = [{union[0]: 0.0}] * len(held) if len(union) == 1 else self._next(prompts, union)
            grown = []
            for (score, codes), state, siblings, chances in zip(held, states, full, found, strict=True):
                self._share(chances, state, siblings, start)
                total = np.logaddexp.reduce([chances[start + code] for code in siblings])
                for code in tree.children(state)[0].tolist():
                    grown.append((score + float(chances[start + code] - total), (*codes, code)))
            held = sorted(grown, key=lambda one: -one[0])[:width]
        scored = [Scored(self.book.item_id(codes), codes, score) for score, codes in held]
        return sorted(scored, key=lambda one: (-one.score, one.item_id))[:k]

    def _share(self, chances: dict[int, float], state: int, siblings: Sequence[int], start: int) -> None:
        """Put codes that lead to newcomers alone at the mean of the others, as `MaskProcessor` does."""
        tree = self._taught_tree
        if tree is None or not tree.lives(np.array([state]))[0]:
            return
        known = set(tree.children(state)[0].tolist())
        mean = float(np.logaddexp.reduce([chances[start + code] for code in known])) - math.log(len(known))
        chances.update({start + code: mean for code in siblings if code not in known})

    def respond(
        self,
        prompt: Sequence[int],
        *,
        licensed: Sequence[str],
        sampling: Sampling = Sampling(),  # noqa: B008
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[Piece]:
        """As `Engine.respond`; the ids behind a piece are those that spell it here."""
        sids = {"".join(self._spelled(self.book.semantic_id(item))): item for item in licensed}
        spans = "|".join(re.escape(one) for one in sorted(sids))
        body = {
            "prompt": list(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": sampling.seed,
            "structured_outputs": {"regex": f"({WORDS}|{spans})+" if spans else f"{WORDS}+"},
            "stop_token_ids": [self.tokens.end],
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }
        self.stats.respond.calls += 1
        held = ""
        for text in self.server.stream({name: one for name, one in body.items() if one is not None}, stop):
            held += text
            while held:
                words, mark, rest = held.partition("<")
                if words:
                    yield Piece("text", words, None, tuple(self.tokens.encode_text(words)))
                held = mark + rest
                if not mark:
                    break
                whole = next((one for one in sids if held.startswith(one)), None)
                if whole is None:
                    if not any(one.startswith(held) for one in sids):
                        raise GcrsError(f"The server wrote {held[:60]!r}, which no grammar allows.", hint=HINT)
                    break  # the rest of the span is still to come
                item = sids[whole]
                yield Piece("item", f"<item:{item}>", item, tuple(self.tokens.span(self.book.semantic_id(item))))
                held = held[len(whole) :]
        yield Piece("text", "", None, (self.tokens.end,))

    def _spelled(self, sid: Sequence[int]) -> Iterator[str]:
        """The tokens of an item's span as the server writes them."""
        from gcrs.toolkit.ids.codebook import spell

        yield from ("<BOI>", spell(tuple(sid)), "<EOI>")

    def _next(self, prompts: list[list[int]], allowed: list[int]) -> list[dict[int, float]]:
        """Of each prompt, the log-probability of each allowed token; GcrsError when one is missing."""
        body = {
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 1.0,
            "allowed_token_ids": allowed,
            "logprobs": len(allowed),
            "return_tokens_as_token_ids": True,
        }
        found = []
        for choice in self.server.complete(body):
            told = choice["logprobs"]["top_logprobs"][0]
            chances = {int(name.removeprefix("token_id:")): float(value) for name, value in told.items()}
            if missing := set(allowed) - set(chances):
                text = (
                    f"The server named {len(chances)} tokens, {len(missing)} of the {len(allowed)} legal ones missing."
                )
                raise GcrsError(text, hint=HINT)
            found.append(chances)
        if len(found) != len(prompts):
            raise GcrsError(f"The server answered {len(found)} of {len(prompts)} prompts.", hint=HINT)
        return found
