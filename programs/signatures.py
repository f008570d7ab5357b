"""The three decisions of a reply as DSPy signatures: P(m|C), P(i|m,C), P(r|i,m,C).

They say what each step decides, never how: the grammar of an output derives from its declared type. The docstrings are
written for any language model, so the same program also runs zero-shot under one that knows no semantic IDs. Knows
nothing of engines, tokens or catalogues.
"""

# No `from __future__ import annotations` here: DSPy reads these annotations while the classes are being made.
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import dspy

from gcrs.toolkit.dialogue.turns import Dialogue, Intent

Step = Literal["intent", "target", "response"]


@dataclass(frozen=True)
class Grammar:
    """A constraint on an output, declared as an annotation of its type; `name` says which grammar decodes it."""

    name: Literal["semantic_id"]


SemanticId = Annotated[str, Grammar("semantic_id")]


@dataclass(frozen=True)
class Conversation(Dialogue):
    """A Dialogue that a language model without semantic IDs can read: titles where the turns have item ids.

    `titles` maps item ids to what a person sees. Serialised (prompts of other models, saved demos) it is that text.
    """

    titles: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        names = {"user": "User", "assistant": "Recommender"}
        return "\n".join(f"{names[turn.role]}: {self.shown(turn.segments())}" for turn in self.turns)

    def shown(self, segments: list[tuple[Literal["text", "item"], str]]) -> str:
        """Segments of a turn as plain text that any model can be sent: lone surrogates become question marks."""
        text = "".join(value if what == "text" else self.titles.get(value, "it") for what, value in segments)
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        to_text = core_schema.plain_serializer_function_ser_schema(str)
        return core_schema.is_instance_schema(cls, serialization=to_text)


class PredictIntent(dspy.Signature):
    """Decide what the recommender's next message does.

    Answer `recommend` when the person asks for a recommendation, or has said enough about their taste that naming an
    item helps now. Answer `chat` when the message should only greet, ask what the person likes, answer a question
    about something already mentioned, thank or say goodbye.
    """

    dialogue: Dialogue = dspy.InputField(desc="the conversation so far, oldest message first")
    intent: Intent = dspy.OutputField(desc="recommend or chat")


class PredictTarget(dspy.Signature):
    """Choose the one item that the recommender's next message should recommend.

    It must be an item of the catalogue that suits what the person said and that they have neither mentioned nor been
    given yet, unless they ask for it again. Answer with its exact title, with the year in parentheses if you know it,
    and nothing else.
    """

    dialogue: Dialogue = dspy.InputField(desc="the conversation so far, oldest message first")
    intent: Intent = dspy.InputField(desc="what the next message does")
    target: SemanticId = dspy.OutputField(desc="the item's exact title, or its semantic ID")


class WriteResponse(dspy.Signature):
    """Write the recommender's next message: one to three friendly, natural sentences that follow the conversation.

    When the intent is `recommend`, name the target and say in a few words why it fits what the person said. Name no
    other item unless the conversation has already mentioned it. When the intent is `chat`, recommend nothing.
    """

    dialogue: Dialogue = dspy.InputField(desc="the conversation so far, oldest message first")
    intent: Intent = dspy.InputField(desc="what the message does")
    target: SemanticId = dspy.InputField(desc="the item to recommend, several separated by spaces, or none")
    response: str = dspy.OutputField(desc="the message, in the language of the conversation")


def step_of(signature: type[dspy.Signature]) -> Step:
    """Which decision a signature asks for, read from its output's declared type."""
    (output,) = signature.output_fields.values()
    if any(isinstance(extra, Grammar) and extra.name == "semantic_id" for extra in output.metadata):
        return "target"
    return "intent" if output.annotation == Intent else "response"
