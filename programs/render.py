"""How a reply looks: cards with facts, decisions, explanations; on a terminal and off it.

Everything shown is data: control characters (terminal escape sequences among them) and marks that reorder a line are
taken out, and nothing is read as rich's markup. Knows nothing of sessions' rules or of models.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gcrs.toolkit.dialogue.turns import Turn
from gcrs.toolkit.ids.codebook import spell

if TYPE_CHECKING:
    from rich.console import Console

    from gcrs.programs.reply import Reply
    from gcrs.toolkit.catalog.item import Catalog, Fact, Item
    from gcrs.toolkit.model.engine import Piece

LONGEST_FACT = 160
_HUGS = re.compile(r"[ \t]+[?!.,;:](?![.?!\w])")
MOST_ENTRIES = 6
_REORDER = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


def clean(text: str, *, lines: bool = True) -> str:
    """The text without control characters and reordering marks; newlines stay unless `lines` is False."""
    if text.isascii() and text.isprintable():
        return text
    out = []
    for character in text:
        if character == "\n" or character == "\t":
            out.append(character if lines else " ")
        elif character not in _REORDER and unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp"):
            out.append(character)
    return "".join(out)


def is_plain(console: Console) -> bool:
    """Whether to leave out boxes and colour: not a terminal, or NO_COLOR is set."""
    return not console.is_terminal or bool(console.no_color)


def shown_text(text: str, catalog: Catalog) -> str:
    """A turn's text with its item spans as titles, punctuation close behind them."""
    out: list[str] = []
    after_item = False
    for what, value in Turn("assistant", text).segments():
        if what == "item":
            out.append(clean(catalog[value].label, lines=False))
        else:
            out.append(clean(value.lstrip() if after_item and hugs(value) else value))
        after_item = what == "item"
    return "".join(out)


class Running:
    """A reply as it comes: what each piece adds to what is shown, titles in place of item spans.

    The first piece begins without blanks; punctuation stands close behind a title. `catalog` gives that of now.
    """

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self.text = ""
        self._catalog = catalog
        self._after_item = False

    def add(self, piece: Piece) -> str:
        """What the piece adds; empty when that is nothing."""
        text = shown_text(piece.text, self._catalog())
        if not self.text or (self._after_item and hugs(text)):
            text = text.lstrip()
        self._after_item = piece.kind == "item"
        self.text += text
        return text


def hugs(text: str) -> bool:
    """Whether words that stand behind a title begin with a mark that belongs close to it: " ?" as people type it."""
    return bool(_HUGS.match(text))


def fact_text(value: Fact) -> str:
    """A fact in one line, cut where it is long."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        rest = f" and {len(value) - MOST_ENTRIES} more" if len(value) > MOST_ENTRIES else ""
        text = ", ".join(value[:MOST_ENTRIES]) + rest
    else:
        text = str(value)
    text = clean(text, lines=False)
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"


def print_card(console: Console, number: int, item: Item, facts: Mapping[str, Fact] | None = None) -> None:
    """One item: its number, its title and its facts (by default its own), less the year where the title has it."""
    from rich.panel import Panel
    from rich.text import Text

    label = clean(item.label, lines=False)
    hidden = {"year"} if str(item.facts.get("year")) in item.label else set()
    known = item.facts if facts is None else facts
    lines = [(clean(key, lines=False), fact_text(value)) for key, value in known.items() if key not in hidden]
    if is_plain(console):
        told = "; ".join(f"{key}: {value}" for key, value in lines)
        console.print(Text(f"[{number}] {label}" + (f" | {told}" if told else "")), soft_wrap=True)
        return
    body = Text()
    for n, (key, value) in enumerate(lines):
        body.append("\n" if n else "").append(f"{key} ", style="dim").append(value)
    title = Text(f"[{number}] ").append(label, style="bold")
    console.print(Panel(body, title=title, title_align="left", expand=False, border_style="cyan"))


def print_decisions(console: Console, reply: Reply, catalog: Catalog) -> None:
    """What was decided, with the numbers behind it and the time it took."""
    from rich.text import Text

    chances = ", ".join(f"{one} {value:.2f}" for one, value in sorted(reply.intent.probabilities.items(), reverse=True))
    forced = " (forced)" if reply.forced else ""
    lines = [f"intent: {reply.intent.intent}{forced} | {chances}"]
    chosen = {one.item_id for one in reply.targets}
    for rank, one in enumerate(reply.ranking, 1):
        mark = "*" if one.item_id in chosen else " "
        label = clean(catalog[one.item_id].label, lines=False)
        lines.append(f"{mark}{rank:>3}. {label} | P {percent(one.score)} | {spell(one.semantic_id)}")
    lines.append("seconds: " + ", ".join(f"{step} {value:.2f}" for step, value in reply.seconds.items()))
    if reply.leaks:
        lines.append(f"titles withheld from the reply: {reply.leaks}")
    console.print(Text("\n".join(lines), style="" if is_plain(console) else "dim"), soft_wrap=True)


def percent(score: float) -> str:
    """A log-probability as a percentage that still tells small ones apart."""
    return f"{100 * math.exp(score):.2g} %"
