"""The four tools: their names, what they say of themselves, and their argument and result types.

Knows nothing of how they answer or of who asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from gcrs.programs.serving import schema


@dataclass(frozen=True)
class Tool:
    """A tool's name, what it says of itself, and its argument and result types."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    result: type[BaseModel]


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "recommend",
            "Recommend items",
            "Recommend items of the catalogue that fit a conversation or a request in plain words, with a reply to "
            "say. Only items of the catalogue that satisfy the rules can come back; what the conversation mentions is "
            "not recommended again.",
            schema.Recommend,
            schema.Recommended,
        ),
        Tool(
            "search_catalog",
            "Search the catalogue",
            "Find items by words of their titles or facts (names, genres, …) and by rules. Use it for exact wishes and "
            "to get the ids of items; use recommend for taste.",
            schema.SearchCatalog,
            schema.Found,
        ),
        Tool(
            "lookup_item",
            "Look up an item",
            "All that the catalogue knows of one item, by its id.",
            schema.LookupItem,
            schema.LookedUp,
        ),
        Tool(
            "explain",
            "Explain a recommendation",
            "Why an item is recommended in a conversation, or is not: its probability and place, the runners-up, what "
            "each mention changed, shared facts, and the rule that bars it.",
            schema.Explain,
            schema.Explained,
        ),
    )
}
