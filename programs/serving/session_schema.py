"""What HTTP clients send to a session and get back. Knows nothing of how a session works."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from gcrs.programs.serving.schema import (
    Arguments,
    Exclude,
    ItemId,
    Link,
    Probabilities,
    RankedItem,
    Text,
    Unclear,
    Where,
)


class NewSession(Arguments):
    """Begin a session; its rules hold for all of it."""

    where: Where = Field(default_factory=list, json_schema_extra={"default": []})
    exclude: Exclude = Field(default_factory=list, json_schema_extra={"default": []})
    seed: int | None = Field(None, ge=0, lt=2**63, description="Seed of the replies; null: a new one.")


class Message(Arguments):
    """Say something in a session."""

    text: Text = Field(min_length=1, description="The person's words; titles in them are linked.")
    intent: Literal["free", "recommend", "chat"] = "free"
    stream: bool = Field(False, description="Answer as server-sent events: piece, …, done (or error).")


class Mark(Arguments):
    """What the person thinks of an item; the model hears of it with the next message."""

    item: ItemId = Field(min_length=1)
    value: Literal["liked", "disliked", "seen"]


class Answer(BaseModel):
    """A reply in a session, with the decisions behind it."""

    session: str
    number: int = Field(description="Which message of the session this answers, from 1.")
    intent: Literal["recommend", "chat"]
    forced: bool
    probabilities: Probabilities
    reply: str
    recommended: list[str]
    items: list[RankedItem] = Field(description="The best allowed items; the recommended ones are among them.")
    links: list[Link]
    unclear: list[Unclear]
    withheld: int
    dropped: str
    stopped: bool = Field(description="Whether the reply was cut short.")
    nothing_left: bool = Field(description="Whether it only talks because rules and conversation leave no item.")
    seconds: dict[str, float]


class Spoken(BaseModel):
    """A turn of the conversation as it was shown."""

    role: Literal["user", "assistant"]
    content: str


class State(BaseModel):
    """A session as it stands."""

    session: str
    began: float = Field(description="Seconds since 1970.")
    where: list[str]
    exclude: list[str]
    seed: int
    turns: list[Spoken]
    given: list[str] = Field(description="Ids recommended so far, in order.")
    feedback: dict[str, Literal["liked", "disliked", "seen"]]
    bundle: str
    catalog_version: int


class Reasons(BaseModel):
    """Why an item was recommended, or was not, as lines."""

    lines: list[str]
