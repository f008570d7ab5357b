"""A session of the official MCP client with the recommender.

`python docs/examples/mcp_client.py http://127.0.0.1:8642/mcp` talks to a running `gcrs serve --http`;
`python docs/examples/mcp_client.py movies` starts `gcrs serve --mcp` with that bundle and talks over its pipes.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client


def connect(where: str) -> Client:
    """A client of a server's address, or of a server started for a bundle."""
    if where.startswith("http"):
        return Client(where)
    run = ["-c", "from gcrs.cli import run; run()", "serve", "--mcp", "--bundle", where]
    return Client(stdio_client(StdioServerParameters(command=sys.executable, args=run)))


async def look(where: str) -> list[Any]:
    """The tools' names, then what each answers."""
    async with connect(where) as client:
        told: list[Any] = [[tool.name for tool in (await client.list_tools()).tools]]
        found = await client.call_tool("search_catalog", {"query": "comedy", "limit": 1})
        item = found.structured_content["items"][0]
        looked = await client.call_tool("lookup_item", {"id": item["id"]})
        talk = [{"role": "user", "content": f"I loved <item:{item['id']}>. Another one?"}]
        ranked = await client.call_tool("recommend", {"dialogue": talk, "k": 3})
        best = ranked.structured_content["items"][0]
        why = await client.call_tool("explain", {"item": best["id"], "dialogue": talk})
        wrong = await client.call_tool("recommend", {"dialogue": talk, "where": ["colour=red"]})
        told += [looked.structured_content["title"], [one["title"] for one in ranked.structured_content["items"]]]
        return [*told, why.structured_content["lines"], wrong.is_error, wrong.content[0].text]


if __name__ == "__main__":
    for line in anyio.run(look, sys.argv[1] if len(sys.argv) > 1 else "movies"):
        print(line)
