"""A mixture over a catalogue and its data as one stream of encoded examples: what `finetune --mixture` trains on.

The tasks are made once, their examples when they are drawn. Knows nothing of weights or schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.dialogue.corpus import sequences
from gcrs.toolkit.dialogue.encode import Kind
from gcrs.toolkit.dialogue.mixture import Mixture
from gcrs.toolkit.dialogue.task_registry import TaskData, make_task
from gcrs.toolkit.dialogue.tasks import Task
from gcrs.toolkit.model.mixture_stream import Encoded, MixtureStream

if TYPE_CHECKING:
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.tokens import TokenSpace


class TaskSequences:
    """A task's examples as token ids and kinds; kinds that the task does not supervise count as context.

    `counts` collects over all tasks what was cut or dropped.
    """

    def __init__(self, task: Task, tokens: TokenSpace, book: Codebook, max_length: int, counts: dict[str, int]) -> None:
        self.task, self.tokens, self.book, self.max_length, self.counts = task, tokens, book, max_length, counts
        self._taught = np.asarray([kind in task.supervises for kind in Kind])

    @property
    def num_examples(self) -> int:
        return self.task.num_examples

    def get(self, n: int) -> list[Encoded]:
        found = sequences(
            self.task.get_example(n),
            self.tokens,
            self.book,
            layout=self.task.layout,
            max_length=self.max_length,
            counts=self.counts,
        )
        kept = [(ids, np.where(self._taught[kinds], kinds, Kind.CONTEXT).astype(np.uint8)) for ids, kinds in found]
        return [(ids, kinds) for ids, kinds in kept if (kinds != Kind.CONTEXT).any()]


def mixture_stream(
    mixture: Mixture,
    data: TaskData,
    tokens: TokenSpace,
    book: Codebook,
    *,
    max_length: int,
    batch_tokens: int,
    seed: int,
    counts: dict[str, int],
    sequences: int | None = None,
) -> MixtureStream:
    """The stream of a mixture. DataError for a task without data."""
    tasks = {name: make_task(name, data) for name in mixture.shares}
    return MixtureStream(
        {name: TaskSequences(task, tokens, book, max_length, counts) for name, task in tasks.items()},
        mixture.shares,
        {name: mixture.repeats_of(name) for name in tasks},
        batch_tokens=batch_tokens,
        seed=seed,
        sequences=sequences,
    )
