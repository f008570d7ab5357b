"""docs/examples and the curl lines of docs/serving.md, run."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from gcrs.programs.serving.declared import TOOLS
from gcrs.programs.serving.tools import Toolbox
from serve_child import toy_talker
from serving_helpers import Served
from toys import toy_engine

DOCS = Path(__file__).resolve().parent.parent / "docs"


def example(name: str) -> Any:
    """A file of docs/examples as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_agent_plans_a_film_night() -> None:
    film_night = example("film_night")
    plan, titles = film_night.plan(Toolbox(toy_talker(toy_engine())), film_night.scripted())
    assert plan == "Two films, with a break." and len(titles) == 3


def test_the_mcp_client_asks_everything(served: Served) -> None:
    told = anyio.run(example("mcp_client").look, f"{served.url}/mcp")
    assert told[0] == list(TOOLS) and len(told[2]) == 3 and told[4] is True
    assert "The model states no reasons" in told[3][-1] and json.loads(told[5])["error"]["field"] == "where[0]"


def curls() -> list[str]:
    page = (DOCS / "serving.md").read_text(encoding="utf-8")
    return [line.removeprefix("$ ") for line in page.splitlines() if line.startswith("$ curl ")]


def test_the_page_has_curl_lines() -> None:
    assert len(curls()) >= 5


@pytest.mark.parametrize("line", curls())
def test_curl_gets_json(line: str, served: Served) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = shlex.split(line.replace("http://127.0.0.1:8642", served.url))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and isinstance(json.loads(done.stdout), dict)
