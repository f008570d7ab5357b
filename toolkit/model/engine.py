"""Engine: intent, targets and response of one reply, each decoded under its grammar over one shared cache.

Prompts and outputs are token ids as `encode()` lays them out; each step's prompt extends the last one's ids, so only
what is new is forwarded. Every decoding runs through `outlines.Generator` with a MaskProcessor. Knows nothing of
dialogues, catalogue facts, rules or prompts' words.

Threads: one lock an engine. `intent`, `targets` and `score_all` hold it for the call, `respond` for one token at a
time, so replies to several people may be streamed at once, each from its own prefix in the cache; tokens that they ask
for at about the same time are read in one forward (`together.py`).
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import outlines

from gcrs.toolkit.dialogue.turns import Intent
from gcrs.toolkit.errors import DataError, DeadEnd, GcrsError, UsageError
from gcrs.toolkit.ids.codebook import Codebook, SemanticId
from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.model.along import losses as read_losses
from gcrs.toolkit.model.along import recommend_chances, roots
from gcrs.toolkit.model.cache import LIMIT, PrefixCache
from gcrs.toolkit.model.generator import GcrsTransformers
from gcrs.toolkit.model.grammar import Grammar, IntentGrammar, ResponseGrammar, TargetGrammar, words_of
from gcrs.toolkit.model.prefixes import PrefixPool
from gcrs.toolkit.model.processor import MaskProcessor
from gcrs.toolkit.model.sampling import Sampler, Sampling, TextStream
from gcrs.toolkit.model.search import Hypotheses
from gcrs.toolkit.model.step_stats import EngineStats, StepStats
from gcrs.toolkit.model.together import Together
from gcrs.toolkit.model.tokens import TokenSpace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOTH: frozenset[Intent] = frozenset({"recommend", "chat"})
MIN_BEAMS = 10


@dataclass(frozen=True)
class Scored:
    """An item and log P(item | prompt), each level normalised over the full catalogue's children."""

    item_id: str
    semantic_id: SemanticId
    score: float


@dataclass(frozen=True)
class IntentDecision:
    """The decided intent, and both intents' probabilities before any veto."""

    intent: Intent
    probabilities: dict[Intent, float]


@dataclass(frozen=True)
class Along:
    """One pass over a dialogue: P(recommend) float64 [decisions], -log P float64 [losses], a ranking each target."""

    recommend: np.ndarray
    losses: np.ndarray
    targets: list[list[Scored]]


@dataclass(frozen=True)
class Piece:
    """A part of a streamed reply: whole characters of text, or one item as `<item:ID>`; with the ids behind it."""

    kind: Literal["text", "item"]
    text: str
    item_id: str | None
    token_ids: tuple[int, ...]


class Engine:
    """Decodes replies with `model`, whose embedding has `tokens.size` rows, over the items of `book`.

    Raises DataError when model, tokens and codebook do not fit. `processor` is the class that masks; tests replace
    it to show that nothing else does. Keys and values of at most `cache_bytes` are kept between calls (0: of the last
    prompt alone).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokens: TokenSpace,
        book: Codebook,
        *,
        processor: Callable[[Grammar], Any] = MaskProcessor,
        cache_bytes: int = LIMIT,
    ) -> None:
        if tuple(tokens.codes) != tuple(book.codes):
            raise DataError(f"The tokens spell codes {tokens.codes}, the codebook has {book.codes}.")
        self.tokens, self.book = tokens, book
        self.tree = PrefixTree.build(book.array(), book.codes)
        self._items = list(book.ids)
        self._taught = frozenset(book.ids)
        self._taught_tree: PrefixTree | None = None
        self._cache = PrefixCache(model, cache_bytes)
        if self._cache.rows != tokens.size:
            raise DataError(f"The model has {self._cache.rows} output rows, the tokenizer {tokens.size} tokens.")
        self.model = GcrsTransformers(self._cache, tokens)
        self.stats = EngineStats()
        self._processor = processor
        self._lock = threading.RLock()
        self._together = Together(self._cache, self._lock, self.stats.respond)

    def over(self, book: Codebook, offered: np.ndarray | None = None) -> Engine:
        """This engine over another codebook of the same codes: model, cache, lock and counters stay shared.

        `offered` is bool [n items]: what is not can never be decoded, and still counts where scores are normalised.
        Items that the engine was not made with were not there in the training: where only such items go on with a
        code, it is as likely as the mean of the codes beside it.
        Calls that run meanwhile go on over the book that they began with.
        """
        if tuple(book.codes) != tuple(self.book.codes):
            raise DataError(f"The engine spells codes {self.book.codes}, the codebook has {book.codes}.")
        other = copy.copy(self)
        other.book, other._items = book, list(book.ids)
        other.tree = PrefixTree.build(book.array(), book.codes)
        taught = np.array([item in self._taught for item in book], dtype=bool)
        other._taught_tree = None if taught.all() else other.tree.subset(taught)
        if offered is not None:
            other.tree = other.tree.subset(offered)
        return other

    def intent(self, prompt: Sequence[int], *, allow: frozenset[Intent] = BOTH) -> IntentDecision:
        """Decide between recommending and chatting; `prompt` ends with the assistant's header.

        The most probable allowed intent; a tie is a recommendation.
        """
        with self._step(self.stats.intent, prompt):
            best = self._search(prompt, IntentGrammar(self.tokens, allow), beams=2)
        names: dict[int, Intent] = {self.tokens.rec: "recommend", self.tokens.chat: "chat"}
        if (token := int(best.ids[0, 0])) not in names:
            raise DeadEnd(f"Token {token} was decoded where an intent must stand.")
        decided = names[token]
        other: Intent = "chat" if decided == "recommend" else "recommend"
        probability = float(np.exp(best.scores[0]))
        return IntentDecision(decided, {decided: probability, other: max(0.0, 1.0 - probability)})

    def targets(
        self, prompt: Sequence[int], *, k: int, beams: int | None = None, allowed: np.ndarray | None = None
    ) -> list[Scored]:
        """The k best items, best first, ties by item id; fewer only when fewer are allowed.

        `prompt` ends after `<REC>` or after a target's `<EOI>`. `allowed` is bool [n items] in the order of
        `book.ids`; a filter removes items and leaves the others' scores alone. `beams` (default max(k, 10)) prefixes
        are kept at each level; with as many as items the ranking is exhaustive. Raises DeadEnd when none is allowed.
        """
        if k < 1 or (beams is not None and beams < 1):
            raise UsageError(f"k is {k} and beams is {beams}, expected 1 or more.")
        grammar = self._target_grammar(allowed)
        with self._step(self.stats.targets, prompt):
            found = self._search(prompt, grammar, beams=max(k, beams or MIN_BEAMS))
        return self._ranked(found)[:k]

    def targets_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        k: int,
        beams: int | None = None,
        allowed: np.ndarray | Sequence[np.ndarray | None] | None = None,
    ) -> list[list[Scored]]:
        """`targets` of each prompt, in the prompts' order; `allowed` is one filter for all or one for each.

        Prompts are decoded in the order of their ids, so that what two of them begin with is forwarded once; padding
        them to one length for a common forward costs more than it saves (docs/decoding.md).
        """
        filters = [allowed] * len(prompts) if allowed is None or isinstance(allowed, np.ndarray) else list(allowed)
        if len(filters) != len(prompts):
            raise UsageError(f"There are {len(filters)} filters for {len(prompts)} prompts.")
        found: dict[int, list[Scored]] = {}
        with self._lock:
            for n in sorted(range(len(prompts)), key=lambda n: list(prompts[n])):
                found[n] = self.targets(prompts[n], k=k, beams=beams, allowed=filters[n])
        return [found[n] for n in range(len(prompts))]

    def along(
        self,
        ids: Sequence[int],
        *,
        decisions: Sequence[int] = (),
        losses: Sequence[int] = (),
        targets: Sequence[int] = (),
        beams: Sequence[int] = (),
    ) -> Along:
        """What `intent` and `targets` say at many places of one whole dialogue, from a single pass over its ids.

        `decisions` are lengths of prompts that end with the assistant's header; `targets` lengths of prompts that end
        with a target's `<BOI>` (which `ids` must have there), each ranked `beams[n]` wide. `losses` are positions of
        ids whose -log P is wanted. Nothing read before is used, so equal calls give equal numbers.
        """
        with self._step(self.stats.targets, None):
            hidden = self._cache.read(ids)
            chances = recommend_chances(self._cache, hidden, decisions, self.tokens, self._processor)
            spent = read_losses(self._cache, hidden, ids, losses)
            found: Any = []
            if len(targets):
                grammar = self._target_grammar(None)
                generator = outlines.Generator(self.model, processor=self._processor(grammar))
                found = generator(list(ids), length=grammar.length, beams=list(beams), along=roots(hidden, targets))
        return Along(chances, spent, [self._ranked(one) for one in found])

    def score_all(self, prompt: Sequence[int], allowed: np.ndarray | None = None) -> np.ndarray:
        """log P of every item, float32 [n items] in the order of `book.ids`; -inf where not allowed.

        Exhaustive: forwards every prefix of the catalogue that has a choice below it.
        """
        grammar = self._target_grammar(allowed)
        with self._step(self.stats.targets, prompt):
            found = self._search(prompt, grammar, beams=None)
        states = self.tree.walk_batch(
            found.ids[:, 1:-1] - [self.tokens.level_range(n)[0] for n in range(self.tree.levels)]
        )
        scores = np.full(len(self.book), -np.inf, dtype=np.float32)
        scores[self.tree.leaf_rows(states)] = found.scores
        return scores

    def respond(
        self,
        prompt: Sequence[int],
        *,
        licensed: Sequence[str],
        sampling: Sampling = Sampling(),  # noqa: B008
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[Piece]:
        """Stream a reply; `prompt` ends after `<RESP>`. Only items of `licensed` (ids of the codebook) can appear.

        The last piece's ids end with `<|im_end|>`, also when `stop()` ends the reply early; a reply that is not
        stopped shows at least one character or item.
        """
        room = self._cache.context - len(prompt) - 1
        if room < 1:
            raise DataError(f"The prompt has {len(prompt)} tokens, the model reads {self._cache.context}.")
        sids = [self.book.semantic_id(item) for item in licensed]
        grammar = ResponseGrammar(self.tokens, words_of(self.tokens), sids, min(sampling.max_tokens, room))
        generator = outlines.Generator(self.model, processor=self._processor(grammar))
        return self._pieces(generator, list(prompt), {"sampler": Sampler(sampling), "stop": stop})

    @property
    def pool(self) -> PrefixPool:
        """What is kept of the conversations: `pool.stats`, `pool.nbytes` and `len(pool)` are for reading."""
        return self._cache.pool

    def close(self) -> None:
        """Free the cache; the engine stays usable."""
        with self._lock:
            self._cache.reset()

    def _search(self, prompt: Sequence[int], grammar: Grammar, *, beams: int | None) -> Hypotheses:
        generator = outlines.Generator(self.model, processor=self._processor(grammar))
        found: Any = generator(list(prompt), length=grammar.length, beams=beams)
        if not isinstance(found, Hypotheses):
            raise GcrsError(f"The generator gave {type(found).__name__}, expected Hypotheses.")
        return found

    def _target_grammar(self, allowed: np.ndarray | None) -> TargetGrammar:
        return TargetGrammar(self.tokens, self._allowed_tree(allowed), self._taught_tree)

    def _allowed_tree(self, allowed: np.ndarray | None) -> PrefixTree:
        if len(self.book) == 0:
            raise DeadEnd("The catalogue has no items.")
        if allowed is None:
            return self.tree
        tree = self.tree.subset(allowed)
        if not np.any(allowed):
            raise DeadEnd("The filter leaves no item to recommend.", hint="Relax a rule.")
        return tree

    def _ranked(self, found: Hypotheses) -> list[Scored]:
        scored = [self._scored(ids, score) for ids, score in zip(found.ids.tolist(), found.scores, strict=True)]
        return sorted(scored, key=lambda one: (-one.score, one.item_id))

    def _scored(self, ids: list[int], score: float) -> Scored:
        sid = self.tokens.sid_of(ids[1:-1])
        return Scored(self.book.item_id(sid), sid, float(score))

    def _pieces(self, generator: Any, prompt: list[int], options: dict[str, Any]) -> Iterator[Piece]:
        with self._together.reply() as number:

            def ask(ids: Sequence[int], columns: np.ndarray) -> Any:
                return self._together.logits(number, ids, columns)

            yield from self._spelled(generator.stream(prompt, ask=ask, **options), prompt)

    def _spelled(self, stream: Iterator[int], prompt: list[int]) -> Iterator[Piece]:
        """The pieces that a stream of ids spells; the lock is taken by who reads for it."""
        text = TextStream(self.tokens.decode_text)
        span: list[int] | None = None
        with self._lock:
            self.stats.respond.calls += 1
            self.stats.respond.reused += self._cache.common(prompt)
        while True:
            start = time.perf_counter()
            token = next(stream, self.tokens.end)
            self.stats.respond.seconds += time.perf_counter() - start
            if token == self.tokens.end:
                text.drop()
                yield Piece("text", "", None, (token,))
                return
            if token == self.tokens.boi:
                text.drop()
                span = [token]
            elif span is not None:
                span.append(token)
                if token == self.tokens.eoi:
                    item = self.book.item_id(self.tokens.sid_of(span[1:-1]))
                    yield Piece("item", f"<item:{item}>", item, tuple(span))
                    span = None
            else:
                words, ids = text.push(token)
                if ids:
                    yield Piece("text", words, None, ids)

    @contextmanager
    def _step(self, step: StepStats, prompt: Sequence[int] | None) -> Iterator[None]:
        """Hold the lock and count; without a prompt no call is counted."""
        with self._lock:
            start, cache = time.perf_counter(), self._cache
            forwarded, branched = cache.forwarded, cache.branches
            if prompt is not None:
                step.calls += 1
                step.reused += cache.common(list(prompt))
            try:
                yield
            finally:
                step.forwarded += cache.forwarded - forwarded
                step.branched += cache.branches - branched
                step.seconds += time.perf_counter() - start
