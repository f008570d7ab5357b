"""The dialogues that are evaluated, as the catalogue's items, and whether the model may have seen them.

Knows nothing of models or metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.dialogue.turns import Dialogue, read_dialogues
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.eval.cases import OUTSIDE, Case, Context, cases, contexts
from gcrs.toolkit.files import sha256_file, sha256_json

if TYPE_CHECKING:
    from gcrs.toolkit.catalog.item import Catalog


@dataclass(frozen=True)
class Split:
    """Dialogues four ways: as they came (`raw`), as `source` with the data's own ids, `named` with the catalogue's, and
    `read` as the model reads them.

    In `source` and `named` an id outside the catalogue has a `?` in front; in `read` it is the word "it". Dialogue ids
    are unique.
    """

    path: Path
    sha256: str
    raw: list[Dialogue]
    source: list[Dialogue]
    named: list[Dialogue]
    read: list[Dialogue]
    skip_unknown: bool = False

    @cached_property
    def contexts(self) -> list[Context]:
        """The replies that are ranked, with the catalogue's ids."""
        return list(contexts(self.named))

    @cached_property
    def cases(self) -> list[Case]:
        """Their cases."""
        return cases(self.contexts, skip_unknown=self.skip_unknown)

    @cached_property
    def source_contexts(self) -> list[Context]:
        """The same replies with the data's own ids."""
        return list(contexts(self.source))

    @cached_property
    def source_cases(self) -> list[Case]:
        """The cases by the data's own ids: of two ids of one film each is its own case."""
        return cases(self.source_contexts, skip_unknown=self.skip_unknown)

    @cached_property
    def unknown(self) -> dict[str, int]:
        """How many cases each item outside the catalogue has, before any is left out; ordered by id."""
        counts: dict[str, int] = {}
        for case in cases(self.contexts):
            if not case.known:
                counts[case.gold[len(OUTSIDE) :]] = counts.get(case.gold[len(OUTSIDE) :], 0) + 1
        return dict(sorted(counts.items()))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Each dialogue's place by its id."""
        return {dialogue.id: n for n, dialogue in enumerate(self.named)}

    def group(self, case: Case) -> str:
        """The dialogue of a case: what intervals draw."""
        return self.contexts[case.context].dialogue.id

    def cases_hash(self, items: Iterable[str]) -> str:
        """A name for exactly these cases over these candidates: runs with the same may be compared."""
        found = [[self.group(case), self.contexts[case.context].turn, case.gold, case.repeat] for case in self.cases]
        return sha256_json([found, sorted(items)])


def read_split(path: Path, catalog: Catalog, *, limit: int | None = None, skip_unknown: bool = False) -> Split:
    """Read a file of dialogues, its first `limit` ones. DataError when no assistant turn in it names an item."""
    raw = list(read_dialogues(path))[:limit]
    if len({dialogue.id for dialogue in raw}) < len(raw):
        raw = [Dialogue(f"{n}:{dialogue.id}", dialogue.turns) for n, dialogue in enumerate(raw)]

    def keep(item: str) -> str:
        return item if item in catalog else f"{OUTSIDE}{item}"

    def name(item: str) -> str:
        return catalog.canonical(item) if item in catalog else f"{OUTSIDE}{item}"

    def read(item: str) -> str | None:
        return catalog.canonical(item) if item in catalog else None

    source, named = [one.map_items(keep) for one in raw], [one.map_items(name) for one in raw]
    known = [one.map_items(read) for one in raw]
    split = Split(Path(path), sha256_file(path), raw, source, named, known, skip_unknown)
    if not split.cases:
        raise DataError(
            f"{path} has no reply to score in {len(raw):,} dialogues.",
            hint="Assistant turns must name items of the catalogue as <item:ID>.",
        )
    return split


@dataclass(frozen=True)
class Overlap:
    """What of a split training has seen, as far as is known.

    `file` is the training file with these very bytes, "" for none; `of_bundle` whether the bundle's own record names
    it; `dialogues` are the ids that stand word for word in the `--train` files, None where there were none to look at.
    """

    file: str = ""
    of_bundle: bool = False
    dialogues: tuple[str, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.file or self.dialogues)

    def to_json(self) -> dict[str, Any]:
        """`file` (null: none), whether it is the bundle's, and how many dialogues (null: not looked at)."""
        count = None if self.dialogues is None else len(self.dialogues)
        return {"file": self.file or None, "file_of_bundle": self.of_bundle, "dialogues": count}


def overlap(split: Split, training: Mapping[str, Any], train: Sequence[Path], trained: Sequence[Dialogue]) -> Overlap:
    """`training` is the bundle's record of its training; `trained` are the dialogues of the files `train`."""
    theirs = {sha: name for key in ("data_before", "data") for name, sha in dict(training.get(key) or {}).items()}
    given = {sha256_file(path): path.name for path in train}
    seen = {fingerprint(dialogue) for dialogue in trained}
    both = tuple(dialogue.id for dialogue in split.raw if fingerprint(dialogue) in seen) if train or seen else None
    return Overlap((theirs | given).get(split.sha256, ""), split.sha256 in theirs, both)


def check_unseen(split: Split, found: Overlap) -> None:
    """Raise DataError where training has seen this file, or dialogues in it."""
    if found.file:
        whose = "training data of this bundle" if found.of_bundle else f"the --train file {found.file}"
        raise DataError(
            f"{split.path} is {whose}: its scores would say nothing.",
            hint="Evaluate other dialogues, or pass --force.",
        )
    if found.dialogues:
        stand = "stands" if len(found.dialogues) == 1 else "stand"
        raise DataError(
            f"{len(found.dialogues):,} of the {len(split.raw):,} dialogues of {split.path} {stand} in the --train "
            f"files as well, such as {found.dialogues[0]!r}.",
            hint="Take them out, or pass --force.",
        )


def fingerprint(dialogue: Dialogue) -> str:
    """What a dialogue says, whatever its id: equal for equal turns."""
    said = "\x1e".join(f"{turn.role}\x1f{turn.text}" for turn in dialogue.turns)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
