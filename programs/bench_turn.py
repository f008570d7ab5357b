"""The turn that `gcrs bench` measures: the DSPy program's three predictors, target beam 1.

Knows nothing of clocks or baselines.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from gcrs.programs.recommender import Recommender  # first: it settles DSPy's environment

import dspy  # isort: skip

from gcrs.programs.signatures import Conversation

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import ThreeSteps
    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.engine import Engine, Sampling


def three_steps(bundle: Bundle, engine: Engine) -> ThreeSteps:
    """A function that decides intent, target and response of a dialogue; returns the tokens made before the end.

    `engine` writes replies of full length.
    """
    program = Recommender.of(bundle, engine)
    titles = {item.id: item.label for item in bundle.catalog}

    def turn(dialogue: Dialogue, sampling: Sampling) -> int:
        context = Conversation(dialogue.id, dialogue.turns, titles)
        with dspy.context(adapter=program.adapter, disable_history=True):
            intent = program.intent(dialogue=context, config={"gcrs": {"allow": ["recommend"]}}).intent
            target = program.target(dialogue=context, intent=intent, config={"gcrs": {"k": 1, "beams": 1}}).target
            config = {"gcrs": {"sampling": asdict(sampling)}}
            program.response(dialogue=context, intent=intent, target=target, config=config)
        return 1 + len(bundle.tokens.span(next(iter(bundle.book.ids.values())))) + 1 + sampling.max_tokens

    return turn
