"""Recommender: the three decisions of a reply as one DSPy program, each readable, forced, vetoed or given.

    # P(reply | C) = P(m | C) P(i | m, C) P(r | i, m, C)

Under our own LM every decision is decoded under its constraint and costs one pass over the dialogue in all. Under any
other DSPy LM the same program runs zero-shot: what it names is looked up in the catalogue and refused when it is not
there or not allowed. Knows nothing of terminals or of what a session remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from gcrs.programs.lm import Beside, beside, digest, is_local, local_lm  # first: it settles DSPy's environment

import dspy  # isort: skip

from gcrs.programs.adapter import GcrsAdapter
from gcrs.programs.guard import LeakGuard, licensed_items
from gcrs.programs.reply import Reply, derive
from gcrs.programs.signatures import Conversation, PredictIntent, PredictTarget, WriteResponse
from gcrs.programs.zero_shot import Parts, as_pieces, look_up
from gcrs.toolkit.dialogue.budget import BUDGET, fit
from gcrs.toolkit.dialogue.turns import Dialogue, Intent, Turn
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.ids.codebook import spell
from gcrs.toolkit.live import Edition
from gcrs.toolkit.model.engine import IntentDecision, Piece, Sampling, Scored

if TYPE_CHECKING:
    import numpy as np

    from gcrs.programs.lm import LocalEngine
    from gcrs.toolkit.catalog.item import Catalog
    from gcrs.toolkit.dialogue.linker import Linker
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.engine import Engine
    from gcrs.toolkit.model.tokens import TokenSpace

Choice = Literal["free", "recommend", "chat"]

NOTHING_SAID = "Tell me a little more about what you are looking for."
INTENTS: tuple[Intent, Intent] = ("recommend", "chat")


class Recommender(dspy.Module):
    """One reply to a dialogue: intent, target, response.

    `lm` is `local_lm(engine, …)` or any other DSPy LM; `linker` finds titles in prose (without one, prose is not
    checked); `budget` is the longest prompt in tokens.
    """

    def __init__(
        self,
        catalog: Catalog,
        book: Codebook,
        tokens: TokenSpace,
        lm: dspy.BaseLM | None = None,
        *,
        linker: Linker | None = None,
        budget: int = BUDGET,
    ) -> None:
        super().__init__()
        self.intent = dspy.Predict(PredictIntent)
        self.target = dspy.Predict(PredictTarget)
        self.response = dspy.Predict(WriteResponse)
        self.parts = Parts(Edition(catalog, book), tokens, linker, {item.id: item.label for item in catalog})
        self.adapter = GcrsAdapter(tokens, book)
        self.budget = budget
        if lm is not None:
            self.set_lm(lm)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        engine: Engine,
        *,
        linker: Linker | None = None,
        budget: int = BUDGET,
        edition: Edition | None = None,
    ) -> Recommender:
        """The program over a loaded bundle and its engine; `edition` is its live catalogue's, default: as it was made.

        `linker` must be one over the edition's items.
        """
        if not bundle.shape.talks:
            raise DataError(
                f"Bundle {bundle.directory} is an ablation ({bundle.shape}): it cannot talk.",
                hint="Score it with gcrs eval.",
            )
        lm = local_lm(engine, bundle.hash, str(bundle.directory))
        made = cls(bundle.catalog, bundle.book, bundle.tokens, lm, linker=linker, budget=budget)
        return made if edition is None or not edition.version else made.over(edition, linker)

    def over(self, edition: Edition, linker: Linker | None = None) -> Recommender:
        """The same program, model and cache over another edition of its catalogue, with a linker over that one's items.

        A copy: replies that this one is giving go on undisturbed.
        """
        other: Recommender = self.deepcopy()
        titles = {item.id: item.label for item in edition.catalog}
        other.parts = Parts(edition, self.parts.tokens, linker, titles)
        other.adapter = GcrsAdapter(self.parts.tokens, edition.book)
        if is_local(self.intent.lm):
            near: LocalEngine = self.intent.lm.engine
            engine = near.engine.over(edition.book, edition.offered)
            other.set_lm(local_lm(engine, near.bundle_hash, near.source, edition.version))
        return other

    def reply(self, dialogue: Dialogue, **options: Any) -> Reply:
        """`forward`'s Reply, for callers who do not care for DSPy's Prediction."""
        reply: Reply = self(dialogue=dialogue, **options).reply
        return reply

    def forward(
        self,
        dialogue: Dialogue,
        *,
        intent: Choice = "free",
        targets: Sequence[str] | None = None,
        n_targets: int = 1,
        k: int = 10,
        allowed: np.ndarray | None = None,
        admitted: np.ndarray | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        on_piece: Callable[[Piece], None] | None = None,
        respond: bool = True,
        stop: Callable[[], bool] | None = None,
        rules: Sequence[str] = (),
    ) -> dspy.Prediction:
        """A Prediction with `reply` (a Reply) and its `intent`, `target` (semantic IDs as text) and `response`.

        `intent` forces a decision (vetoing one forces the other); `targets` are rendered instead of predicted;
        `allowed` is bool [items] in the order of the codebook, `admitted` the same by the rules alone, whatever was
        mentioned or given before (see `licensed_items`); `rules` say in words what it stands for. `on_piece` gets
        the reply's pieces once they are safe to show; `stop` is asked between pieces and ends the reply. Raises
        UsageError for options that contradict each other, UnknownItem and DeadEnd when a target is not in the
        catalogue or nothing is allowed.
        """
        allowed = self.parts.offered(allowed)
        given = self._check(intent, targets, n_targets, k, allowed)
        if given:
            intent = "recommend"
        if intent == "free" and allowed is not None and not allowed.any():
            intent = "chat"  # nothing is left to recommend: the honest veto
        parts = self.parts
        fitted = fit(dialogue, parts.tokens, parts.book, self.budget, rules=rules)
        context = Conversation(dialogue.id, fitted.dialogue.turns, parts.titles)
        local = is_local(self.intent.lm or dspy.settings.lm)
        seconds: dict[str, float] = {}
        no_ranking: tuple[Scored, ...] = ()
        start = perf_counter()
        with self._context(local):
            with _timed(seconds, "intent"):
                decision = self._decide(context, intent, local)
            chosen, ranking = given, no_ranking
            if decision.intent == "recommend" and not given:
                with _timed(seconds, "target"):
                    chosen, ranking = self._choose(context, n_targets, k, allowed, local)
            ids = tuple(target.item_id for target in chosen)
            text, leaks = "", 0
            if respond:
                with _timed(seconds, "response"):
                    licensed = licensed_items(context, decision.intent, ids, admitted, parts.book)
                    text, leaks = self._write(
                        context, decision.intent, chosen, licensed, sampling, on_piece, stop, local
                    )
        seconds["total"] = perf_counter() - start
        turn = Turn("assistant", text, decision.intent, ids)
        stopped = stop is not None and stop()
        reply = Reply(decision, intent != "free", chosen, ranking, text, turn, leaks, seconds, fitted.dropped, stopped)
        target = " ".join(spell(one.semantic_id) for one in chosen)
        return dspy.Prediction(reply=reply, intent=decision.intent, target=target or None, response=text)

    def _check(
        self, intent: Choice, targets: Sequence[str] | None, n_targets: int, k: int, allowed: np.ndarray | None
    ) -> tuple[Scored, ...]:
        """The given targets as Scored; UsageError and UnknownItem for options that cannot be met."""
        if intent not in ("free", *INTENTS):
            raise UsageError(f"The intent is {intent!r}, expected free, recommend or chat.")
        if k < 1 or not 1 <= n_targets <= k:
            raise UsageError(f"n_targets is {n_targets} and k is {k}, expected 1 <= n_targets <= k.")
        if not targets:
            return ()
        if intent == "chat":
            raise UsageError("A reply that must only chat has no targets.", hint="Leave out one of the two.")
        book, order = self.parts.book, list(self.parts.book)
        found = []
        for item in dict.fromkeys(self.parts.catalog.canonical(target) for target in targets):
            if item in self.parts.edition.retired:
                raise UsageError(f"Item {item!r} is given as the target but is retired.", hint="Restore it first.")
            if allowed is not None and not allowed[order.index(item)]:
                raise UsageError(f"Item {item!r} is given as the target but the rules in force exclude it.")
            found.append(Scored(item, book.semantic_id(item), 0.0))
        return tuple(found)

    @contextmanager
    def _context(self, local: bool) -> Iterator[None]:
        if local:
            with dspy.context(adapter=self.adapter, disable_history=True):
                yield
        else:
            yield

    def _decide(self, context: Conversation, intent: Choice, local: bool) -> IntentDecision:
        if local:
            allow = list(INTENTS) if intent == "free" else [intent]
            made = self.intent(dialogue=context, config={"gcrs": {"allow": allow}})
            return IntentDecision(made.intent, dict(made.probabilities))
        value: Intent = self.intent(dialogue=context).intent if intent == "free" else intent
        return IntentDecision(value, {one: float(one == value) for one in INTENTS})

    def _choose(
        self, context: Conversation, n: int, k: int, allowed: np.ndarray | None, local: bool
    ) -> tuple[tuple[Scored, ...], tuple[Scored, ...]]:
        """The n targets, each given those before it, and the k best for the first."""
        import numpy as np

        ranking: tuple[Scored, ...] = ()
        chosen: list[Scored] = []
        order = {item: row for row, item in enumerate(self.parts.book)} if n > 1 else {}
        while len(chosen) < n:
            found = self._rank(context, chosen, k if not chosen else 1, allowed, local)
            ranking = ranking or found
            chosen.append(found[0])
            if len(chosen) < n:
                allowed = np.ones(len(order), dtype=bool) if allowed is None else allowed.copy()
                allowed[order[chosen[-1].item_id]] = False
                if not allowed.any():
                    break
        return tuple(chosen), ranking

    def _rank(
        self, context: Conversation, chosen: Sequence[Scored], k: int, allowed: np.ndarray | None, local: bool
    ) -> tuple[Scored, ...]:
        predict, more = self.target, {}
        if chosen:
            shown = " ".join(spell(one.semantic_id) if local else self.parts.titles[one.item_id] for one in chosen)
            field_ = dspy.InputField(desc="items already chosen for this message; choose another one")
            more = {"signature": predict.signature.append("chosen", field_, str), "chosen": shown}
        if not local:
            named = predict(dialogue=context, intent="recommend", **more).target
            return (look_up(str(named), allowed, self.parts),)
        config = {"gcrs": {"k": k, "beams": None, "allowed": digest(allowed)}}
        with beside(Beside(allowed=allowed)):
            made = predict(dialogue=context, intent="recommend", config=config, **more).completions
        book = self.parts.book
        return tuple(
            Scored(item, book.semantic_id(item), float(score))
            for item, score in zip(made.item, made.score, strict=True)
        )

    def _write(
        self,
        context: Conversation,
        intent: Intent,
        targets: Sequence[Scored],
        licensed: Sequence[str],
        sampling: Sampling,
        on_piece: Callable[[Piece], None] | None,
        stop: Callable[[], bool] | None,
        local: bool,
    ) -> tuple[str, int]:
        """The reply's text and how many titles were withheld from it.

        A title that nothing licenses stops the attempt; a second one goes on from the last safe sentence with another
        seed and leaves out the sentences that leak again.
        """
        linker = self.parts.linker
        guard = LeakGuard(linker, licensed, drop=False)
        write = self._write_here if local else self._write_elsewhere
        write(context, intent, targets, sampling, on_piece, stop, guard, [])
        leaks = guard.leaks
        if guard.stopped:
            second = LeakGuard(linker, licensed, drop=True, shown=guard.text)
            again = replace(sampling, seed=None if sampling.seed is None else derive(sampling.seed, 1))
            write(context, intent, targets, again, on_piece, stop, second, guard.ids)
            leaks += second.leaks
            guard = second
        if not guard.text.strip() and not (stop is not None and stop()):
            named = " or ".join(f"<item:{target.item_id}>" for target in targets)
            guard.text = f"You could try {named}." if named else NOTHING_SAID
            if on_piece is not None:
                for what, value in Turn("assistant", guard.text).segments():
                    item = value if what == "item" else None
                    on_piece(Piece(what, f"<item:{item}>" if item else value, item, ()))
        return guard.text, leaks

    def _write_here(
        self,
        context: Conversation,
        intent: Intent,
        targets: Sequence[Scored],
        sampling: Sampling,
        on_piece: Callable[[Piece], None] | None,
        stop: Callable[[], bool] | None,
        guard: LeakGuard,
        prefix: list[int],
    ) -> None:
        left = replace(sampling, max_tokens=max(1, sampling.max_tokens - len(prefix)))
        config = {"gcrs": {"licensed": list(guard.licensed), "sampling": asdict(left), "prefix": prefix}}
        target = " ".join(spell(one.semantic_id) for one in targets)
        with beside(Beside(stop=stop, guard=guard, on_piece=on_piece)):
            self.response(dialogue=context, intent=intent, target=target, config=config)

    def _write_elsewhere(
        self,
        context: Conversation,
        intent: Intent,
        targets: Sequence[Scored],
        sampling: Sampling,
        on_piece: Callable[[Piece], None] | None,
        stop: Callable[[], bool] | None,
        guard: LeakGuard,
        prefix: list[int],
    ) -> None:
        """Another LM's reply: its titles become item spans where they are licensed; the rest goes through the guard."""
        named = " or ".join(self.parts.titles[one.item_id] for one in targets) or "none"
        config = {"rollout_id": 1, "temperature": 1.0} if guard.drop else {}
        said = str(self.response(dialogue=context, intent=intent, target=named, config=config).response)
        if guard.text:
            return  # a second message cannot continue the sentences of the first that are already shown
        released: list[Piece] = []
        for piece in as_pieces(said, guard.licensed, self.parts):
            released += guard.feed(piece)
        for piece in [*released, *guard.finish()]:
            if on_piece is not None:
                on_piece(piece)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        seconds[step] = perf_counter() - start
