"""GcrsAdapter: a signature's inputs as the one token sequence that the model was trained on, and its answers back.

Each step's prompt is the last one's plus what was decided in between, so the engine forwards every prompt token once:

    encode(dialogue) header | <REC> | <BOI>…<EOI> … <RESP> | words …
                     intent ^ target ^                  response ^

Only `encode()` computes the dialogue's ids. Which step a signature is, its output type says. Knows nothing of decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.adapters.base import Adapter
from dspy.lm15 import Config, Message, Request, Response, TextPart
from dspy.utils.exceptions import LMError

from gcrs.programs.signatures import Conversation, step_of
from gcrs.programs.spelled import parse_semantic_ids
from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import DataError, GcrsError
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.tokens import TokenSpace


class GcrsAdapter(Adapter):
    """Between the three signatures and our own LM; other LMs keep DSPy's adapters.

    Options of a call arrive as `config={"gcrs": {...}}`: intent `allow`; target `k`, `beams`, `allowed`; response
    `licensed`, `sampling`, `prefix` (token ids of the reply that are already written).
    """

    def __init__(self, tokens: TokenSpace, book: Codebook) -> None:
        super().__init__()
        self.tokens = tokens
        self.book = book

    def __deepcopy__(self, memo: dict[int, Any]) -> GcrsAdapter:
        return self

    def segments(
        self, signature: type[dspy.Signature], inputs: dict[str, Any], prefix: list[int] | None = None
    ) -> list[dict[str, Any]]:
        """The prompt of one step as typed segments. DataError or UnknownItem for inputs that do not fit."""
        dialogue = inputs["dialogue"]
        if not isinstance(dialogue, Dialogue):
            raise DataError(f"The dialogue is {type(dialogue).__name__}, expected a gcrs Dialogue.")
        out: list[dict[str, Any]] = [{"ids": encode_prompt(dialogue, self.tokens, self.book)}]
        step = step_of(signature)
        if step == "intent":
            return out
        recommends = inputs["intent"] == "recommend"
        decided = [self.tokens.rec if recommends else self.tokens.chat]
        named = inputs.get("chosen" if step == "target" else "target") or ""
        if recommends:
            for sid in parse_semantic_ids(named, self.book):
                decided += self.tokens.span(sid)
        if step == "response":
            decided += [self.tokens.resp, *(prefix or [])]
        return [*out, {"ids": decided}]

    def request(
        self, lm: Any, options: dict[str, Any], signature: type[dspy.Signature], inputs: dict[str, Any]
    ) -> Request:
        """The canonical request: typed segments for the engine, readable messages for the history."""
        options = dict(options)
        spec: dict[str, Any] = {"step": step_of(signature)}
        spec["segments"] = self.segments(signature, inputs, options.pop("prefix", None))
        defaults: dict[str, dict[str, Any]] = {
            "intent": {"allow": ["recommend", "chat"]},
            "target": {"k": 10, "beams": None, "allowed": None},
            "response": {"licensed": _items(inputs, self.book), "sampling": {}},
        }
        known = defaults[spec["step"]]
        if unknown := sorted(set(options) - set(known)):
            raise DataError(f"The step {spec['step']!r} takes no option {unknown[0]!r}, only {sorted(known)}.")
        spec.update({**known, **options})
        messages = tuple(Message(**message) for message in _messages(inputs["dialogue"]))
        return Request(model=lm.model, messages=messages, config=Config(extensions={"gcrs": spec}))

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """One step under our LM; its beams come back as completions, best first. Demos are not used: it is trained."""
        request = self.request(lm, lm_kwargs.get("gcrs", {}), signature, inputs)
        with _our_errors():
            response = lm(request)
        return self.completions(signature, response)

    async def acall(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """As `__call__`."""
        request = self.request(lm, lm_kwargs.get("gcrs", {}), signature, inputs)
        with _our_errors():
            response = await lm.acall(request)
        return self.completions(signature, response)

    def completions(self, signature: type[dspy.Signature], response: Response) -> list[dict[str, Any]]:
        """Completions of a response: one a beam for a target (`item`, `score` beside it), else a single one."""
        data = response.provider_data or {}
        if step_of(signature) == "target":
            return [dict(candidate) for candidate in data["candidates"]]
        parsed = self.parse(signature, response.text or "")
        return [{**parsed, "probabilities": data["probabilities"]} if "probabilities" in data else parsed]

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The conversation as plain messages, for DSPy's history and inspection; the engine reads the segments."""
        return [{"role": m["role"], "content": m["parts"][0].text} for m in _messages(inputs["dialogue"])]

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """The one output field of a step from the engine's text; DataError when it is not of the declared type."""
        (name,) = signature.output_fields
        step = step_of(signature)
        if step == "intent" and completion not in ("recommend", "chat"):
            raise DataError(f"The intent is {completion!r}, expected recommend or chat.")
        if step == "target" and len(parse_semantic_ids(completion, self.book)) != 1:
            raise DataError(f"The target is {completion!r}, expected one semantic ID.")
        return {name: completion}

    def format_finetune_data(
        self,
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> dict[str, list[Any]]:
        """One step as messages for DSPy's fine-tuning optimizers; gcrs itself trains on whole dialogues."""
        (name,) = signature.output_fields
        answer = {"role": "assistant", "content": str(outputs[name])}
        return {"messages": [*self.format(signature, demos, inputs), answer]}


def _messages(dialogue: Dialogue) -> list[dict[str, Any]]:
    readable = dialogue if isinstance(dialogue, Conversation) else Conversation(dialogue.id, dialogue.turns)
    out = [{"role": turn.role, "parts": (TextPart(readable.shown(turn.segments())),)} for turn in readable.turns]
    return out or [{"role": "user", "parts": (TextPart(""),)}]


def _items(inputs: dict[str, Any], book: Codebook) -> list[str]:
    """What a reply may name when the caller does not say: the targets and the dialogue's items."""
    targets = parse_semantic_ids(inputs.get("target") or "", book)
    mentioned = [item for turn in inputs["dialogue"].turns for item in turn.mentions]
    return list(dict.fromkeys([*(book.item_id(sid) for sid in targets), *mentioned]))


@contextmanager
def _our_errors() -> Iterator[None]:
    """Raise the GcrsError behind DSPy's wrapping of it."""
    try:
        yield
    except LMError as error:
        if isinstance(error.__cause__, GcrsError):
            raise error.__cause__ from None
        raise
