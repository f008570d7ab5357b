"""The mention linker's gate: precision, recall, and how many item-free messages it links, on real text.

    python tests/benchmarks/linker_gate.py --data DIR [--split valid|train] [--show N]

DIR holds redial/, inspired/ and movies/. ReDial marks its films (`@123`): each mark is replaced by the film's title as
people type it, in two styles, and the linker must find it again. INSPIRED's text is as it was typed; its annotation
is automatic and often wrong, so the links are compared with `linker_judged.json`: a language model's reading, not
blind, of the places where annotation and linker disagreed. A film that both overlooked is in neither, so that recall
is an upper bound; a link that is new since then counts as wrong. Some rules were changed after errors on these
validation splits had been read: the numbers are not those of unseen text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from gcrs.catalogs.film_index import FilmIndex
from gcrs.catalogs.inspired import read_inspired
from gcrs.catalogs.redial_catalog import read_redial_catalog
from gcrs.catalogs.redial_dialogues import MENTION_MARK, prepare_redial, read_redial, read_titles
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.linker import Link, Linker
from gcrs.toolkit.dialogue.normalise import clean_title, split_year, title_key

STYLES: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "title": lambda text, name: (text, name),  # the message as typed, the title in full and in its own case
    "lower": lambda text, name: (text.lower(), name.lower()),  # everything in lower case
}


JUDGED = Path(__file__).with_name("linker_judged.json")
KINDS = ("mentions", "not_mentions", "namesakes")
ELSEWHERE = "item-free linked, films the dialogue marks elsewhere apart"


def passes(summary: dict[str, Any]) -> bool:
    """The gate: precision >= 0.95, recall >= 0.8, at most 1 % of item-free messages linked."""
    return bool(summary["precision"] >= 0.95 and summary["recall"] >= 0.8 and summary[ELSEWHERE] <= 0.01)


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
            ELSEWHERE: round((self.free_linked - self.free_known) / max(self.free, 1), 4),
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
        if (out and out[-1].isalnum()) or before[-1:].isalnum():
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


def described(link: Link, catalog: Catalog, text: str) -> str:
    """One line about a link, for a person to judge."""
    return f"{link.surface!r} -> {catalog[link.item].label} ({link.how}) in: {text}"


def redial_gate(data: Path, split: str, style: str, linker: Linker, limit: int | None = None) -> Count:
    """The linker on ReDial's messages with the titles typed in one style; its own earlier links are the dialogue."""
    catalog, count = linker.catalog, Count()
    for marked, messages in islice(redial_messages(data, split), limit):
        marked = {catalog.canonical(m) for m in marked if m in catalog}
        spoken_of: list[str] = []
        for raw, marks in messages:
            text, gold = typed(raw, marks, style)
            begin = time.process_time()
            result = linker.link(text, spoken_of)
            count.seconds += time.process_time() - begin
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
                    count.namesake.append(described(link, catalog, text))
                else:
                    count.wrong.append(described(link, catalog, text))
            count.missed += [f"{text[g[0] : g[1]]!r} in: {text}" for g in gold if g not in found]
            if not marks:
                count.free += 1
                count.free_linked += bool(result.links)
                count.free_known += bool(result.links) and all(link.item in marked for link in result.links)
                count.free_links += [described(link, catalog, text) for link in result.links if link.item not in marked]
            spoken_of += [link.item for link in result.links]
    return count


def inspired_gate(data: Path, split: str, linker: Linker, judged: Path | None) -> dict[str, Any]:
    """The linker on INSPIRED's utterances as typed, against its annotation and the reading of it."""
    catalog, find = linker.catalog, FilmIndex(linker.catalog)
    reading = (
        json.loads(judged.read_text(encoding="utf-8"))
        if judged
        else {"mentions": {}, "not_mentions": {}, "namesakes": {}}
    )
    number: Counter[str] = Counter()
    rows: dict[str, list[str]] = {"wrong": [], "missed": []}
    for dialogue in read_inspired(data / "inspired", split):
        spoken_of: list[str] = []
        name = dialogue[0].dialogue
        more, less, same = ({(n, i) for n, i in reading[kind].get(name, ())} for kind in KINDS)
        for n, said in enumerate(dialogue):
            noted = {item for film in said.films if (item := find(film)) is not None}
            meant = (noted | {i for k, i in more if k == n}) - {i for k, i in less if k == n}
            result = linker.link(said.text, spoken_of)
            links = {link.item: link for link in result.links}
            number.update(utterances=1, annotated=len(noted), annotated_found=len(noted & set(links)))
            number.update(links=len(links), meant=len(meant), right=len(meant & set(links)))
            number["namesakes"] += len(same & {(n, i) for i in links})
            number["free"] += not meant and not said.films
            number["free_linked"] += not meant and not said.films and bool(links)
            rows["wrong"] += [described(link, catalog, said.text) for i, link in links.items() if i not in meant]
            rows["missed"] += [f"{catalog[i].label} in: {said.text}" for i in meant - set(links)]
            spoken_of += links
    return {
        "utterances": number["utterances"],
        "annotated": number["annotated"],
        "linked": number["links"],
        "recall of the annotation": round(number["annotated_found"] / max(number["annotated"], 1), 4),
        "meant": number["meant"],
        "precision": round(number["right"] / max(number["links"], 1), 4),
        "precision, the name alone": round((number["right"] + number["namesakes"]) / max(number["links"], 1), 4),
        "recall": round(number["right"] / max(number["meant"], 1), 4),
        "utterances without a film": number["free"],
        "… linked": round(number["free_linked"] / max(number["free"], 1), 4),
        **rows,
    }


def main(argv: list[str] | None = None) -> int:
    """Print the gate's numbers; 1 when a bound is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args(argv)
    catalog, mentions = load(args.data)
    begin = time.process_time()
    linker = Linker(catalog, mentions)
    print(json.dumps({"build seconds": round(time.process_time() - begin, 3)}))
    met = True
    for style in STYLES:
        count = redial_gate(args.data, args.split, style, linker)
        summary = count.summary()
        met &= passes(summary)
        print(json.dumps({"redial": style, **summary}))
        for name in ("wrong", "namesake", "missed", "free_links"):
            show(name, getattr(count, name), args.show)
    judged = JUDGED if args.split == "valid" else None
    summary = inspired_gate(args.data, "dev" if args.split == "valid" else args.split, linker, judged)
    lists = {name: summary.pop(name) for name in ("wrong", "missed")}
    print(json.dumps({"inspired": "judged" if judged else "annotation", **summary}, ensure_ascii=False))
    for name, rows in lists.items():
        show(name, rows, args.show)
    return 0 if met else 1


def show(name: str, rows: list[str], number: int) -> None:
    """Print that many of the rows, spread over all of them."""
    for row in rows[:: max(1, len(rows) // number)] if number else []:
        print(f"  {name}: {row}")


if __name__ == "__main__":
    sys.exit(main())
