"""The mention linker's gate: precision, recall, and how many item-free messages it links, on real text.

    python tests/benchmarks/linker_gate.py --data DIR [--split valid|train] [--show N] [--json]

DIR holds redial/, inspired/ and movies/. ReDial marks its films (`@123`): each mark is replaced by the film's title as
people type it, in three styles, and the linker must find it again. INSPIRED's text is as it was typed; its annotation
is automatic, so the links are also compared with `linker_judged.json`, which holds a person's reading of each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcrs.catalogs.redial_catalog import read_redial_catalog
from gcrs.catalogs.redial_dialogues import MENTION_MARK, prepare_redial, read_redial, read_titles
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.normalise import clean_title, split_year, title_key

STYLES: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "title": lambda text, name: (text, name),  # the message as typed, the title in full and in its own case
    "lower": lambda text, name: (text.lower(), name.lower()),  # everything in lower case
}


@dataclass
class Count:
    """What was found in one run of messages."""

    messages: int = 0
    gold: int = 0
    linked: int = 0
    right: int = 0
    unmarked: int = 0  # links to a film that the dialogue marks elsewhere, where the text names it unmarked
    free: int = 0  # messages without any marked film
    free_linked: int = 0
    free_known: int = 0  # … all of whose links are to films that the dialogue marks elsewhere
    open: int = 0
    namesake: list[str] = field(default_factory=list)  # linked to another film of the very name that was typed
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    free_links: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        judged = self.linked - self.unmarked
        return {
            "messages": self.messages,
            "gold": self.gold,
            "linked": self.linked,
            "precision": round(self.right / max(judged, 1), 4),
            "precision, every unmarked link wrong": round(self.right / max(self.linked, 1), 4),
            "linked to a namesake": len(self.namesake),
            "recall": round(self.right / max(self.gold, 1), 4),
            "ambiguous": self.open,
            "item-free messages": self.free,
            "item-free linked": round(self.free_linked / max(self.free, 1), 4),
            "item-free linked, films the dialogue marks elsewhere apart": round(
                (self.free_linked - self.free_known) / max(self.free, 1), 4
            ),
            "ms a message": round(1000 * self.seconds / max(self.messages, 1), 3),
        }


def load(data: Path) -> tuple[Catalog, dict[str, int]]:
    """The ReDial catalogue and how often the TRAINING dialogues mention each film."""
    catalog, _ = read_redial_catalog(
        data / "redial" / "movies_with_mentions.csv", data / "movies" / "redial_movie_facts.json.gz"
    )
    dialogues, _ = prepare_redial(data / "redial", catalog, "train")
    return catalog, dict(Counter(item for d in dialogues for turn in d.turns for item in turn.mentions))


def redial_messages(data: Path, split: str) -> Iterator[tuple[set[str], Iterator[tuple[str, list[tuple[str, str]]]]]]:
    """For each dialogue the ids that it marks, and its messages as (text, [(id, title)] in order)."""
    titles = {item: title for item, (title, _) in read_titles(data / "redial").items()}
    for raw in read_redial(data / "redial", split):
        known = {**titles, **{k: clean_title(v) for k, v in dict(raw["movieMentions"]).items() if v}}

        def messages(raw: dict[str, Any] = raw, known: dict[str, str] = known) -> Iterator[Any]:
            for message in raw["messages"]:
                text = message["text"].strip()
                marks = [(m, split_year(known[m])[0]) for m in MENTION_MARK.findall(text) if m in known]
                if text:
                    yield text, marks

        yield {m for text, marks in messages() for m, _ in marks}, messages()


def typed(text: str, marks: list[tuple[str, str]], style: str) -> tuple[str, list[tuple[int, int, str]]]:
    """The message with each mark replaced by its title in a style, and where each film then stands."""
    names = dict(marks)
    out, gold, last = "", [], 0
    for match in MENTION_MARK.finditer(text):
        before, name = STYLES[style](text[last : match.start()], names.get(match.group(1), match.group()))
        if out and out[-1].isalnum() or before[-1:].isalnum():
            before += " "  # `like@123`
        out += before
        if match.group(1) in names:
            gold.append((len(out), len(out) + len(name), match.group(1)))
        out += name
        last = match.end()
        if text[last : last + 1].isalnum():
            out += " "
    return out + STYLES[style](text[last:], "")[0], gold


def same_name(catalog: Catalog, one: str, other: str) -> bool:
    """Whether two films share a name, so that a message without a year cannot tell them apart."""
    return other in catalog and title_key(catalog[one].title) == title_key(catalog[other].title)


def redial_gate(data: Path, split: str, style: str, linker: Linker) -> Count:
    """The linker on ReDial's messages with the titles typed in one style; its own earlier links are the dialogue."""
    catalog, count = linker.catalog, Count()
    for marked, messages in redial_messages(data, split):
        marked = {catalog.canonical(m) for m in marked if m in catalog}
        spoken_of: list[str] = []
        for raw, marks in messages:
            text, gold = typed(raw, marks, style)
            begin = time.perf_counter()
            result = linker.link(text, spoken_of)
            count.seconds += time.perf_counter() - begin
            count.messages += 1
            count.gold += len(gold)
            count.linked += len(result.links)
            count.open += len(result.ambiguous)
            found = set()
            for link in result.links:
                spans = [g for g in gold if g[0] < link.end and link.start < g[1]]
                if spans and catalog.canonical(spans[0][2]) == link.item:
                    count.right += 1
                    found.add(spans[0])
                elif not spans and (link.item in marked or text[: link.start].endswith("@")):
                    count.unmarked += 1
                elif spans and same_name(catalog, link.item, spans[0][2]):
                    count.namesake.append(f"{link.surface!r} -> {catalog[link.item].label} ({link.how}) in: {text}")
                else:
                    count.wrong.append(f"{link.surface!r} -> {catalog[link.item].label} ({link.how}) in: {text}")
            count.missed += [f"{text[g[0] : g[1]]!r} in: {text}" for g in gold if g not in found]
            if not marks:
                count.free += 1
                count.free_linked += bool(result.links)
                count.free_known += bool(result.links) and all(link.item in marked for link in result.links)
                count.free_links += [f"{link.surface!r} -> {catalog[link.item].label} ({link.how}) in: {text}"
                                     for link in result.links]  # fmt: skip
            spoken_of += [link.item for link in result.links]
    return count


def main(argv: list[str] | None = None) -> int:
    """Print the gate's numbers; 1 when a bound is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args(argv)
    catalog, mentions = load(args.data)
    begin = time.perf_counter()
    linker = Linker(catalog, mentions)
    print(json.dumps({"build seconds": round(time.perf_counter() - begin, 3)}))
    for style in STYLES:
        count = redial_gate(args.data, args.split, style, linker)
        print(json.dumps({"redial": style, **count.summary()}))
        for name in ("wrong", "missed", "free_links"):
            rows = getattr(count, name)
            for row in rows[:: max(1, len(rows) // args.show)] if args.show else []:
                print(f"  {name}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
