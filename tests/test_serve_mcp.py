"""The MCP server, spoken to by the official SDK's client over stdio and over streamable HTTP."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import validate
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from gcrs.programs.serving.declared import TOOLS
from serving_helpers import CLI, Served

CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("recommend", {"dialogue": "I loved The Matrix", "k": 3, "where": ["genre=sci-fi"]}),
    ("recommend", {"dialogue": [{"role": "user", "content": "Hello"}], "k": None, "intent": "free"}),
    ("search_catalog", {"query": "crime", "limit": 2}),
    ("lookup_item", {"id": "m11"}),
    ("explain", {"item": "Aliens", "dialogue": "I loved The Matrix"}),
)
WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("recommend", {"k": 3}, "dialogue"),
    ("recommend", {"dialogue": "x", "where": ["colour=red"]}, "where[0]"),
    ("recommend", {"dialogue": "x", "where": ["year>3000"]}, "where"),
    ("lookup_item", {"id": "m99"}, "id"),
    ("search_catalog", {"limit": "many"}, "limit"),
    ("dance", {}, "name"),
)


async def exercise(client: Client) -> None:
    """List and call every tool, then every mistake."""
    listed = (await client.list_tools()).tools
    assert [tool.name for tool in listed] == list(TOOLS)
    for tool in listed:
        assert tool.annotations is not None and tool.annotations.read_only_hint is True
        assert tool.input_schema["additionalProperties"] is False and tool.output_schema is not None
        assert "$ref" not in json.dumps([tool.input_schema, tool.output_schema])
    schemas = {tool.name: tool.output_schema for tool in listed}
    for name, arguments in CALLS:
        result = await client.call_tool(name, arguments)
        assert not result.is_error and result.structured_content is not None
        validate(result.structured_content, schemas[name])  # type: ignore[arg-type]
        assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]
    items = (await client.call_tool(*CALLS[0])).structured_content["items"]
    assert len(items) == 3 and all("sci-fi" in item["facts"]["genre"] for item in items)
    for name, arguments, field in WRONG:
        result = await client.call_tool(name, arguments)
        told = json.loads(result.content[0].text)["error"]  # type: ignore[union-attr]
        assert result.is_error and told["field"] == field and told["remedy"], told


def test_over_http(served: Served) -> None:
    async def talk() -> None:
        async with Client(f"{served.url}/mcp") as client:
            await exercise(client)

    anyio.run(talk)
    assert served.get("/mcp").status_code == 405  # no stream that would outlive its client


def test_over_stdio_and_nothing_else_on_stdout(toy_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "stderr.txt"
    command = [*CLI, "serve", "--mcp", "--bundle", str(toy_bundle)]
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))

    async def talk() -> None:
        with log.open("w") as errors:
            async with Client(stdio_client(server, errlog=errors)) as client:
                await exercise(client)

    anyio.run(talk)
    assert log.read_text() == ""


@pytest.mark.parametrize("flags", [["--http", "--mcp"], []])
def test_one_way_at_a_time(flags: list[str]) -> None:
    done = subprocess.run([*CLI, "serve", *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and "either --http or --mcp" in done.stderr
