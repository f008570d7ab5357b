"""Replies to a file of dialogues: in this process, or by workers on Ray Data; a killed job goes on where it was.

Each row is answered as `gcrs recommend --dialogue` answers it, with the same seed, one thread and an empty cache, so
neither the number of workers nor a kill changes an answer. Knows nothing of flags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.programs.one_reply import Request
from gcrs.toolkit.errors import DataError, DeadEnd, UsageError
from gcrs.toolkit.files import atomic_write, sha256_file, sha256_json
from gcrs.toolkit.parts import Part, PartsDirectory, read_lines, split_lines

if TYPE_CHECKING:
    from gcrs.programs.loading import Talker
    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.ray_data import RayConfig

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BatchConfig:
    """What is asked of each dialogue of the file, and where the answers go: `out`, a JSON Lines file.

    `part` rows are kept at a time, and done again when a worker is killed in them. Without `respond` no words are
    written. All workers must see the file, the bundle and `out` under the same names.
    """

    dialogues: Path
    out: Path
    bundle: str = "movies"
    request: Request = Request()  # noqa: RUF009  (frozen)
    respond: bool = True
    part: int = 50
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.part < 1:
            raise UsageError(f"A part has {self.part} rows, expected 1 or more.")
        if self.dialogues.resolve() == self.out.resolve():
            raise UsageError(f"{self.out} is what is to be answered.", hint="Choose another --out.")


class Answers:
    """Answers parts: holds one model, loaded with the first row that it gets."""

    def __init__(self, config: BatchConfig) -> None:
        self.config, self.parts = config, PartsDirectory(config.out)
        self._talker: Talker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answer a part (`Part`'s fields) and write its file; says how many rows that were."""
        part = Part(**row)
        with atomic_write(self.parts.file(part.number)) as handle:
            for answer in self._answers(part):
                handle.write(json.dumps(answer, ensure_ascii=False) + "\n")
        return {"rows": part.rows}

    def _answers(self, part: Part) -> Iterator[dict[str, Any]]:
        for number, dialogue in dialogues_of(self.config.dialogues, part):
            yield {"line": number, "id": dialogue.id} | self.answer(dialogue)

    def answer(self, dialogue: Dialogue) -> dict[str, Any]:
        """Intent, reply and items; or `error`, where the rules and the dialogue leave nothing to recommend."""
        from gcrs.programs.one_reply import ask, reply_to
        from gcrs.programs.render import shown_text
        from gcrs.programs.rules import Rules
        from gcrs.toolkit.ids.codebook import spell
        from gcrs.toolkit.model.sampling import Sampling

        talker, request = self.talker, self.config.request
        talker.recommender.intent.lm.engine.engine.close()  # what rows before left in the cache changes last digits
        rules = Rules(request.where, request.exclude, request.allow, request.or_unknown)
        try:
            asked = ask(talker.recommender, talker.linker, dialogue, rules)
            reply = reply_to(
                talker.recommender, asked, request.intent, k=request.k, respond=self.config.respond,
                sampling=Sampling(seed=request.seed),
            )  # fmt: skip
        except (DeadEnd, DataError) as error:
            return {"error": str(error)}
        catalog = talker.live.edition.catalog
        items = [
            {"id": one.item_id, "title": catalog[one.item_id].title, "semantic_id": spell(one.semantic_id),
             "score": round(one.score, 4)}
            for one in reply.ranking
        ]  # fmt: skip
        said = {"reply": shown_text(reply.text, catalog)} if self.config.respond else {}
        outside = {"unknown_ids": list(asked.outside)} if asked.outside else {}
        return {"intent": reply.intent.intent} | said | {"items": items} | outside

    @property
    def talker(self) -> Talker:
        """The bundle with its model, one thread each: more workers are what more cores are for."""
        if self._talker is None:
            import torch

            from gcrs.programs.loading import load_talker

            torch.set_num_threads(1)
            request = self.config.request
            self._talker = load_talker(
                self.config.bundle, where=request.where, exclude=request.exclude, allow=request.allow,
                or_unknown=request.or_unknown, device=self.config.device,
            )  # fmt: skip
            self._talker.facts.close()
        return self._talker


def dialogues_of(path: Path, part: Part) -> Iterator[tuple[int, Dialogue]]:
    """Line number and dialogue of each row of a part. DataError names the line."""
    from gcrs.toolkit.dialogue.turns import parse_line

    for number, text in read_lines(path, part):
        yield number, parse_line(text, f"{path}, line {number}")


def answer_all(
    config: BatchConfig, *, ray: RayConfig | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Answer every dialogue and write `config.out`; the report says rows, those without an answer, and what was there.

    The file is read once from end to end before anything slow: a broken line is found now. Raises DataError for it,
    for a file or directory of another job, and what `load_talker` raises.
    """
    from gcrs.programs.rules import Rules
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.bundle import Bundle

    tell = progress or (lambda done, total, what: None)
    if config.out.exists():
        raise DataError(f"{config.out} exists.", hint="Choose another --out, or remove it.")
    parts = split_lines(config.dialogues, config.part)
    total, seen = sum(part.rows for part in parts), 0
    for part in parts:
        for _ in dialogues_of(config.dialogues, part):
            pass
        seen += part.rows
        tell(seen, total, "reading dialogues")
    bundle = Bundle.load(config.bundle)
    edition = LiveCatalog.of(bundle).edition
    request = config.request
    Rules(request.where, request.exclude, request.allow, request.or_unknown).admitted(edition.columns)
    directory = PartsDirectory(config.out)
    directory.open(_job(config, bundle.hash, edition.version))
    todo = directory.missing(parts)
    kept = total - sum(part.rows for part in todo)
    report: dict[str, Any] = {"out": str(config.out), "rows": total, "kept": kept, "workers": ray.workers if ray else 0}
    if todo:
        tell(kept, total, "answering")
        done = kept
        try:
            for row in _run(config, [asdict(part) for part in todo], ray):
                done += int(row["rows"])
                tell(done, total, "answering")
        except BaseException:
            directory.leave()
            raise
    report["failed"] = sum(_failures(directory.file(part.number)) for part in parts)
    directory.join(parts)
    return report | {"bundle": bundle.hash}


def _run(config: BatchConfig, rows: list[dict[str, Any]], ray: RayConfig | None) -> Iterator[dict[str, Any]]:
    if ray is None:
        answers = Answers(config)
        yield from map(answers, rows)
        return
    from gcrs.toolkit.ray_data import ray_rows

    yield from ray_rows(Answers, {"config": config}, rows, ray)


def _job(config: BatchConfig, bundle_hash: str, version: int) -> dict[str, Any]:
    """What decides the answers: the same job may go on, another one may not."""
    request = config.request
    asked = {"k": request.k, "intent": request.intent, "where": list(request.where), "exclude": list(request.exclude),
             "seed": request.seed, "or_unknown": request.or_unknown, "respond": config.respond}  # fmt: skip
    allowed = None if request.allow is None else sha256_json(list(request.allow.ids))
    data = {"dialogues": sha256_file(config.dialogues), "bundle": bundle_hash, "catalog_version": version}
    return {"format": "gcrs-batch", "version": 1, "part": config.part, "allow": allowed} | data | asked


def _failures(path: Path) -> int:
    with open(path, encoding="utf-8") as handle:
        return sum("error" in json.loads(line) for line in handle)
