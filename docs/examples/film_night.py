"""An agent plans a film night with the recommender's tools: `python docs/examples/film_night.py [BUNDLE]`.

The agent (`dspy.ReAct`) runs under its own language model, the recommender keeps the bundle's. Here the agent's model
says what it was told, so that the example needs no account; put `dspy.LM("openai/…")` in its place.
"""

from __future__ import annotations

import sys

from gcrs.programs.loading import load_talker
from gcrs.programs.serving.faces import dspy_tools
from gcrs.programs.serving.tools import Toolbox

import dspy  # isort: skip
from dspy.utils import DummyLM

STEPS = [
    ("recommend", {"dialogue": "A funny film for four friends who like crime films", "k": 2}),
    ("recommend", {"dialogue": "And something with romance to end the evening", "k": 1, "where": ["year>=1940"]}),
    ("finish", {}),
]


def scripted() -> DummyLM:
    """A model that calls the tools as STEPS says and then sums up."""
    said = [{"next_thought": "Ask it.", "next_tool_name": name, "next_tool_args": args} for name, args in STEPS]
    return DummyLM([*said, {"reasoning": "One for laughs, one to end with.", "plan": "Two films, with a break."}])


def plan(toolbox: Toolbox, lm: dspy.BaseLM) -> tuple[str, list[str]]:
    """The agent's plan, and the titles that the tools gave it."""
    agent = dspy.ReAct("evening -> plan", tools=dspy_tools(toolbox), max_iters=6)
    with dspy.context(lm=lm):
        done = agent(evening="Four friends, two films, at most four hours")
    seen = [value for name, value in done.trajectory.items() if name.startswith("observation")]
    return done.plan, [item["title"] for one in seen if isinstance(one, dict) for item in one.get("items", [])]


if __name__ == "__main__":
    talker = load_talker(sys.argv[1] if len(sys.argv) > 1 else "movies")
    told, titles = plan(Toolbox(talker), scripted())
    print(told, titles)
    talker.facts.close()
