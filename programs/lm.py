"""The toolkit's engine as an engine of `dspy.LM`: one request is one decision of the program.

A request's extensions carry, under `gcrs`, which step to decode and its prompt as typed segments: words, which go
through the tokenizer of untrusted text, or token ids. What no request can carry (a filter over the catalogue, the
caller's stop signal, the guard of a reply) travels beside it in a context variable; the request names the filter by its
digest and a step whose filter is missing is refused. Knows nothing of signatures or of dialogues.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")  # before dspy: no price table from the network

import dspy
from dspy.lm15 import Message, Request, Response, StreamDeltaEvent, StreamEndEvent, StreamStartEvent, TextDelta, Usage

from gcrs.programs.guard import LeakGuard
from gcrs.toolkit.errors import DataError, MissingModelError
from gcrs.toolkit.ids.codebook import spell

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.model.engine import Engine, Piece

PREFIX = "gcrs/"


@dataclass(frozen=True)
class Beside:
    """What goes with a request but not in it."""

    allowed: np.ndarray | None = None
    stop: Callable[[], bool] | None = None
    guard: LeakGuard | None = None
    on_piece: Callable[[Piece], None] | None = None


_BESIDE: ContextVar[Beside] = ContextVar("gcrs_beside", default=Beside())  # noqa: B039  (frozen)


@contextmanager
def beside(value: Beside) -> Iterator[None]:
    """Requests made inside the block see `value`, in this thread or task only."""
    token = _BESIDE.set(value)
    try:
        yield
    finally:
        _BESIDE.reset(token)


def digest(allowed: np.ndarray | None) -> str | None:
    """A filter's name in a request: a hash of its bits; None for no filter."""
    if allowed is None:
        return None
    import numpy as np

    return f"{len(allowed)}:{hashlib.sha256(np.packbits(allowed).tobytes()).hexdigest()[:16]}"


def is_local(lm: Any) -> bool:
    """Whether this DSPy LM is our own engine, which decodes under constraints; any other LM is only asked."""
    return str(getattr(lm, "model", "")).startswith(PREFIX)


def local_lm(engine: Engine, bundle_hash: str, source: str | None = None, version: int = 0) -> dspy.LM:
    """The DSPy LM of a loaded bundle; `source` is where `load_state` finds the bundle again.

    `version` is the catalogue's: its name says which weights and which catalogue answer.

    DSPy's cache is off: its key would know neither the filter nor the listener.
    """
    wrapped = LocalEngine(engine, bundle_hash, source)
    return dspy.LM(
        f"{PREFIX}{bundle_hash}{f'+{version}' if version else ''}",
        engine=wrapped,
        async_engine=AsyncLocalEngine(wrapped),
        cache=False,
        num_retries=0,
    )


class LocalEngine:
    """DSPy's engine contract over one toolkit Engine, which is safe to call from several threads."""

    _loaded: ClassVar[WeakValueDictionary[str, LocalEngine]] = WeakValueDictionary()

    def __init__(self, engine: Engine, bundle_hash: str, source: str | None = None) -> None:
        self.engine = engine
        self.bundle_hash = bundle_hash
        self.source = source
        self._loaded[bundle_hash] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> LocalEngine:
        return self  # a copied program shares the weights

    def complete(self, request: Request) -> Response:
        """Decode one step. GcrsError for a request of another shape, or when nothing is allowed."""
        parts: list[str] = []
        end = StreamEndEvent()
        for event in self.stream(request):
            if isinstance(event, StreamDeltaEvent):
                parts.append(event.delta.text)
            elif isinstance(event, StreamEndEvent):
                end = event
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant("".join(parts)),
            finish_reason="stop",
            usage=end.usage or Usage(),
            provider_data=end.provider_data,
        )

    def stream(self, request: Request) -> Iterator[StreamStartEvent | StreamDeltaEvent | StreamEndEvent]:
        """The same as events; the text of a reply arrives as its guard releases it."""
        spec = _spec(request)
        now = _BESIDE.get()
        prompt = self.render(spec["segments"])
        yield StreamStartEvent(model=request.model)
        cost = getattr(self.engine.stats, {"target": "targets", "response": "respond"}.get(spec["step"], "intent"))
        before = cost.forwarded
        data: dict[str, Any] = {}
        written = 0
        for text, count in self._decode(spec, prompt, now, data):
            written += count
            if text:
                yield StreamDeltaEvent(TextDelta(text))
        fresh = cost.forwarded - before - (max(0, written - 1) if spec["step"] == "response" else 0)
        reused = len(prompt) - min(max(fresh, 0), len(prompt))
        usage = Usage(input_tokens=len(prompt), output_tokens=written, cache_read_tokens=reused)
        yield StreamEndEvent(finish_reason="stop", usage=usage, provider_data=data)

    def render(self, segments: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of typed segments; `{"text": words}` can never become control, `{"ids": [...]}` enters as it is."""
        ids: list[int] = []
        for segment in segments:
            if set(segment) == {"text"}:
                ids += self.engine.tokens.encode_text(segment["text"])
            elif set(segment) == {"ids"}:
                ids += segment["ids"]
            else:
                raise DataError(f"A prompt segment has the keys {sorted(segment)}, expected text or ids.")
        return ids

    def _decode(
        self, spec: dict[str, Any], prompt: list[int], now: Beside, data: dict[str, Any]
    ) -> Iterator[tuple[str, int]]:
        if spec["step"] == "intent":
            decision = self.engine.intent(prompt, allow=frozenset(spec["allow"]))
            data["probabilities"] = dict(decision.probabilities)
            yield decision.intent, 1
        elif spec["step"] == "target":
            if digest(now.allowed) != spec["allowed"]:
                raise DataError("The filter that this request names is not the one beside it; nothing was decoded.")
            found = self.engine.targets(prompt, k=spec["k"], beams=spec["beams"], allowed=now.allowed)
            data["candidates"] = [
                {"target": spell(one.semantic_id), "item": one.item_id, "score": one.score} for one in found
            ]
            yield data["candidates"][0]["target"], self.engine.book.levels + 2
        else:
            yield from self._respond(spec, prompt, now)

    def _respond(self, spec: dict[str, Any], prompt: list[int], now: Beside) -> Iterator[tuple[str, int]]:
        from gcrs.toolkit.model.engine import Sampling

        guard = now.guard or LeakGuard(None, (), drop=True)
        stop = now.stop

        def stopped() -> bool:
            return guard.stopped or (stop is not None and stop())

        def release(pieces: list[Piece]) -> Iterator[tuple[str, int]]:
            for piece in pieces:
                if now.on_piece is not None:
                    now.on_piece(piece)
                yield piece.text, len(piece.token_ids)

        sampling = Sampling(**spec["sampling"])
        for piece in self.engine.respond(prompt, licensed=spec["licensed"], sampling=sampling, stop=stopped):
            yield from release(guard.feed(piece))
        yield from release(guard.finish())

    def close(self) -> None:
        """Free the engine's model and caches."""
        self.engine.close()

    def dump_state(self) -> dict[str, Any]:
        """Which bundle this is and where it came from; no weights."""
        return {"bundle": self.bundle_hash, "source": self.source}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> LocalEngine:
        """The engine of the same bundle in this process, else loaded once from its source and shared.

        MissingModelError without a source, DataError when the source now holds another bundle.
        """
        if (there := cls._loaded.get(state["bundle"])) is not None:
            return there
        if state.get("source") is None:
            raise MissingModelError(
                f"The program needs the bundle {state['bundle']}, which is not loaded.", hint="Load it first."
            )
        from gcrs.toolkit.live import LiveCatalog
        from gcrs.toolkit.model.bundle import Bundle, load_engine

        bundle = Bundle.load(state["source"])
        if bundle.hash != state["bundle"]:
            raise DataError(f"{state['source']} holds bundle {bundle.hash}, the program needs {state['bundle']}.")
        edition = LiveCatalog.of(bundle).edition
        engine = load_engine(bundle)
        return cls(engine.over(edition.book, edition.offered), bundle.hash, state["source"])


def _spec(request: Request) -> dict[str, Any]:
    spec = (request.config.extensions or {}).get("gcrs")
    if not isinstance(spec, dict) or spec.get("step") not in ("intent", "target", "response"):
        raise DataError(
            "The request carries no gcrs step: this model decodes only what the gcrs adapter sends.",
            hint="Call it through gcrs.programs.recommender.",
        )
    return spec


class AsyncLocalEngine:
    """The same engine for async callers: the work runs in a worker thread."""

    def __init__(self, sync: LocalEngine) -> None:
        self.sync = sync

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncLocalEngine:
        return self

    async def complete(self, request: Request) -> Response:
        """As `LocalEngine.complete`."""
        import asyncio

        return await asyncio.to_thread(self.sync.complete, request)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """As `LocalEngine.stream`."""
        import asyncio

        events, done = self.sync.stream(request), object()
        try:
            while (event := await asyncio.to_thread(next, events, done)) is not done:
                yield event
        finally:
            events.close()  # type: ignore[attr-defined]

    async def aclose(self) -> None:
        """As `LocalEngine.close`."""
        self.sync.close()

    def dump_state(self) -> dict[str, Any]:
        """As `LocalEngine.dump_state`."""
        return self.sync.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncLocalEngine:
        """As `LocalEngine.load_state`."""
        return cls(LocalEngine.load_state(state))
