"""The tools as an MCP server, generated from `schema`: structured results with their text, problems as `isError`.

The same server speaks over stdio and over streamable HTTP. Knows nothing of what the tools do.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from gcrs import __version__
from gcrs.programs.serving.declared import TOOLS
from gcrs.programs.serving.faces import json_schema
from gcrs.programs.serving.problems import Problem

if TYPE_CHECKING:
    from mcp.server import Server

Call = Callable[[str, Any], Awaitable[BaseModel]]
INSTRUCTIONS = (
    "A conversational recommender over one catalogue. Give `recommend` the conversation and say its reply; only items "
    "of the catalogue can come back. Rules such as 'year>=2000' go into `where`, not into the conversation."
)


def mcp_server(call: Call) -> Server[Any]:
    """An MCP server whose tools are answered by `call`, which raises Problems."""
    import mcp_types as types
    from mcp.server import Server

    listed = [
        types.Tool(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=json_schema(tool.arguments),
            output_schema=json_schema(tool.result, output=True),
            annotations=types.ToolAnnotations(
                title=tool.title,
                read_only_hint=True,
                destructive_hint=False,
                idempotent_hint=True,
                open_world_hint=False,
            ),
        )
        for tool in TOOLS.values()
    ]

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            value = (await call(params.name, params.arguments)).model_dump(mode="json")
            text = json.dumps(value, ensure_ascii=False)
            return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=value)
        except Problem as problem:
            text = json.dumps(problem.as_json(), ensure_ascii=False)
            return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)

    return Server(
        "gcrs",
        version=__version__,
        title="gcrs recommender",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def serve_stdio(call: Call) -> None:
    """Speak the protocol over this process's standard input and output until the input ends.

    Whatever else writes to standard output meanwhile goes to standard error.
    """
    from mcp.server.stdio import stdio_server

    server = mcp_server(call)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
