"""The four tools' arguments and results, declared once: DSPy, MCP, REST, OpenAI and LangChain faces are made from it.

Null means the default wherever there is one, because strict function schemas must name every argument. Knows nothing of
models, sessions or transports.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

MOST_TURNS = 200
LONGEST_TURN = 20_000  # characters
MOST_RULES = 50
MOST_EXCLUDED = 1000
MOST_ITEMS = 100

Fact = str | bool | int | float | list[str]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TURN)]
Rule = Annotated[str, StringConstraints(max_length=1000)]
ItemId = Annotated[str, StringConstraints(max_length=200)]


class Arguments(BaseModel):
    """What all arguments have in common: unknown ones are refused, null stands for the default."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in raw.items() if not (value is None and name in optional)}


class Turn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"] = Field(
        description="who speaks: the person (user) or the recommender (assistant)"
    )
    content: Text = Field(description="the words; items as titles, or exactly as <item:ID>")


Talk = Annotated[
    Text | list[Turn],
    Field(
        description="What the person said: a text, or the conversation as a list of turns, oldest first. Items are "
        "titles in the words, or exactly <item:ID>."
    ),
]
Where = Annotated[
    list[Rule],
    Field(
        max_length=MOST_RULES,
        description="Rules that every item satisfies, such as 'year>=2000' or 'genre=comedy and not "
        "genre=horror'. Operators: = != < <= > >= contains, and or not ( ).",
    ),
]
Exclude = Annotated[
    list[ItemId], Field(max_length=MOST_EXCLUDED, description="Ids of items that must not be recommended.")
]


class _Conversation(Arguments):
    @field_validator("dialogue", mode="after", check_fields=False)
    @classmethod
    def _says_something(cls, dialogue: str | list[Turn]) -> str | list[Turn]:
        texts = [dialogue] if isinstance(dialogue, str) else [turn.content for turn in dialogue]
        if len(texts) > MOST_TURNS:
            raise ValueError(f"it has {len(texts)} turns, expected at most {MOST_TURNS}: leave out the oldest")
        if not any(text.strip() for text in texts):
            raise ValueError("nothing is said in it: give at least one message of the person")
        return dialogue


class Recommend(_Conversation):
    """Arguments of `recommend`."""

    dialogue: Talk
    k: int = Field(10, ge=1, le=MOST_ITEMS, description="How many items to rank.")
    where: Where = Field(default_factory=list, json_schema_extra={"default": []})
    exclude: Exclude = Field(default_factory=list, json_schema_extra={"default": []})
    intent: Literal["free", "recommend", "chat"] = Field(
        "recommend",
        description="'recommend' always recommends, 'chat' only talks, 'free' lets the model decide.",
    )


class SearchCatalog(Arguments):
    """Arguments of `search_catalog`."""

    query: str = Field(
        "",
        max_length=500,
        description="Words of a title or of facts such as names and genres, all of which must be there; empty: every "
        "item.",
    )
    where: Where = Field(default_factory=list, json_schema_extra={"default": []})
    limit: int = Field(10, ge=1, le=MOST_ITEMS, description="How many items to return.")
    offset: int = Field(0, ge=0, le=10_000_000, description="How many of the best to skip.")


class LookupItem(Arguments):
    """Arguments of `lookup_item`."""

    id: ItemId = Field(min_length=1, description="The item's id, as other tools return it.")


class Explain(_Conversation):
    """Arguments of `explain`."""

    item: ItemId = Field(min_length=1, description="The id or the exact title of the item to explain.")
    dialogue: Talk
    where: Where = Field(default_factory=list, json_schema_extra={"default": []})
    exclude: Exclude = Field(default_factory=list, json_schema_extra={"default": []})


class Item(BaseModel):
    """One item of the catalogue with its facts by column."""

    id: str
    title: str = Field(description="The title as shown, with the year where there is one.")
    semantic_id: str
    facts: dict[str, Fact]


class RankedItem(Item):
    """An item of a ranking."""

    score: float = Field(description="log P(item), normalised over the whole catalogue: rules do not change it.")


class Probabilities(BaseModel):
    """The intent's probabilities before anything was forced."""

    recommend: float
    chat: float


class Link(BaseModel):
    """A title found in the person's words."""

    words: str
    id: str
    title: str


class Unclear(BaseModel):
    """A title that several items have."""

    words: str
    candidates: list[str]


class Recommended(BaseModel):
    """Result of `recommend`."""

    intent: Literal["recommend", "chat"]
    forced: bool = Field(description="Whether the intent was asked for instead of decided.")
    probabilities: Probabilities
    reply: str = Field(description="What to say to the person; items as titles.")
    recommended: list[str] = Field(description="Ids of the items that the reply recommends.")
    items: list[RankedItem] = Field(description="The k best allowed items, best first; empty for a chat.")
    reasons: list[str] = Field(description="Numbers and shared facts behind the first recommended item.")
    links: list[Link] = Field(description="Titles that were understood in the person's words.")
    unclear: list[Unclear] = Field(description="Titles that several items have: not used; say <item:ID> instead.")
    unknown_ids: list[str] = Field(description="Ids in the dialogue that the catalogue does not have, read as 'it'.")
    withheld: int = Field(description="Titles taken out of the reply because nothing licensed them.")
    dropped: str = Field(description="What of a long dialogue was not read; empty when all of it was.")
    bundle: str
    catalog_version: int


class Found(BaseModel):
    """Result of `search_catalog`."""

    items: list[Item]
    total: int = Field(description="How many items match in all.")


class LookedUp(Item):
    """Result of `lookup_item`."""

    retired: bool = Field(description="Known, but no longer recommended.")
    admitted: bool = Field(description="Whether the server's own rules and the catalogue admit it now.")


class Neighbour(BaseModel):
    """An item near the explained one in the ranking."""

    id: str
    title: str
    place: int
    score: float


class MovedBy(BaseModel):
    """A mention, left out, and the item scored again."""

    id: str
    title: str
    score_without: float
    change: float = Field(description="What the mention added to log P of the explained item.")


class SharedWith(BaseModel):
    """Facts in common with an item that the person mentioned."""

    id: str
    title: str
    facts: list[str]


class Explained(BaseModel):
    """Result of `explain`."""

    item: Item
    probabilities: Probabilities
    place: int | None = Field(description="Its place among the allowed items, from 1; null beyond the 10 best.")
    allowed: int = Field(description="How many items could have been recommended.")
    score: float | None = Field(description="log P(item); null where the answering model states none.")
    runners_up: list[RankedItem] = Field(description="The best allowed items beside it.")
    neighbours: list[Neighbour]
    mentions: list[MovedBy] = Field(description="Mentions that were left out, the largest change first.")
    shared: list[SharedWith]
    barred: str | None = Field(description="Why it cannot be recommended now; null when it can.")
    lines: list[str] = Field(description="The same for a person to read.")
