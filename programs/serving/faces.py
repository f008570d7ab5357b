"""The tools as other libraries take them: JSON schemas, OpenAI functions, `dspy.Tool`s, LangChain tools.

Everything is generated from `schema`. A tool that fails answers with the problem as data, so that an agent can correct
itself. Knows nothing of transports.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from gcrs.programs.serving.declared import TOOLS, Tool
from gcrs.programs.serving.problems import Problem
from gcrs.toolkit.errors import UsageError

if TYPE_CHECKING:
    import dspy
    from langchain_core.tools import BaseTool

    from gcrs.programs.serving.tools import Toolbox

NOT_STRICT = frozenset({"default", "title", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"})


def json_schema(model: type[BaseModel], *, output: bool = False) -> dict[str, Any]:
    """The JSON schema of a model, every reference replaced by what it names."""
    raw = model.model_json_schema(mode="serialization" if output else "validation")
    named = raw.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(one) for one in value]
        if not isinstance(value, dict):
            return value
        if (ref := value.get("$ref")) is not None:
            return inline(
                {**deepcopy(named[ref.rsplit("/", 1)[-1]]), **{k: v for k, v in value.items() if k != "$ref"}}
            )
        return {key: inline(one) for key, one in value.items()}

    out: dict[str, Any] = inline(raw)
    out.pop("description", None)
    return out


def openai_functions() -> list[dict[str, Any]]:
    """The tools as strict OpenAI functions: no other arguments, all of them required, optional ones nullable."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "strict": True,
                "parameters": _strict(json_schema(tool.arguments)),
            },
        }
        for tool in TOOLS.values()
    ]


def _strict(value: dict[str, Any]) -> dict[str, Any]:
    """A schema in the subset that strict functions admit; what it cannot say is checked when the tool is called."""
    out = {key: one for key, one in value.items() if key not in NOT_STRICT}
    for key in ("anyOf", "oneOf"):
        if key in out:
            out[key] = [_strict(one) for one in out[key]]
    if "items" in out:
        out["items"] = _strict(out["items"])
    if out.get("type") == "object":
        required = set(value.get("required", ()))
        made = {}
        for name, one in value.get("properties", {}).items():
            told = {"description": one["description"]} if "description" in one else {}
            plain = _strict(one)
            if name not in required:
                plain = {"anyOf": [{k: v for k, v in plain.items() if k != "description"}, {"type": "null"}], **told}
            made[name] = plain
        out |= {"properties": made, "required": list(made), "additionalProperties": False}
    return out


def answer(toolbox: Toolbox, tool: Tool) -> Callable[..., dict[str, Any]]:
    """A function of the tool's arguments that gives its result, or its problem, as JSON values."""

    def call(**arguments: Any) -> dict[str, Any]:
        try:
            return toolbox.call(tool.name, arguments).model_dump(mode="json")
        except Problem as problem:
            return problem.as_json()

    call.__name__, call.__doc__ = tool.name, tool.description
    return call


def dspy_tools(toolbox: Toolbox) -> list[dspy.Tool]:
    """The tools for an agent such as `dspy.ReAct`, which runs under its own language model."""
    import dspy

    class Checked(dspy.Tool):
        """Its arguments are checked by the tool itself, which says what is wrong with them."""

        def _validate_and_parse_args(self, **arguments: Any) -> dict[str, Any]:
            return arguments

    tools: list[dspy.Tool] = []
    for tool in TOOLS.values():
        properties = json_schema(tool.arguments)["properties"]
        types = dict.fromkeys(properties, Any)
        made = Checked(answer(toolbox, tool), name=tool.name, desc=tool.description, args=properties, arg_types=types)
        tools.append(made)
    return tools


def langchain_tools(toolbox: Toolbox) -> list[BaseTool]:
    """The tools for LangChain. UsageError where its package is missing."""
    try:
        from langchain_core.tools import StructuredTool
    except ModuleNotFoundError as error:
        raise UsageError(
            "The package langchain-core is not installed.", hint="Install it: pip install 'gcrs[langchain]'"
        ) from error

    def text_of(call: Callable[..., dict[str, Any]]) -> Callable[..., str]:
        return lambda **arguments: json.dumps(call(**arguments), ensure_ascii=False)

    return [
        StructuredTool(
            name=tool.name,
            description=tool.description,
            args_schema=json_schema(tool.arguments),
            func=text_of(answer(toolbox, tool)),
        )
        for tool in TOOLS.values()
    ]
