"""run_chat: the conversation at a terminal or in a pipe, around a ChatSession and a rich Console handed in.

Replies go to `console`, remarks (what was linked, what was dropped, errors) to `notes`. Knows nothing of how a reply
comes about, and nothing of flags.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.text import Text

from gcrs.programs.render import Running, clean, is_plain, print_card, print_decisions
from gcrs.programs.session import MORE, ChatSession, Followed, Said, letter, numbered
from gcrs.programs.session_file import Mark
from gcrs.toolkit.errors import GcrsError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gcrs.toolkit.catalog.item import Fact
    from gcrs.toolkit.model.engine import Piece

ReadLine = Callable[[], str | None]  # one line without its end; None at the end of the input
Facts = Callable[
    [Sequence[str]], "Mapping[str, Mapping[str, Fact]]"
]  # facts of items by id, from wherever they are kept

MOST_LINKS = 12  # that are listed behind a reply
MOST_MORE = 20  # recommendations that one /more asks for

HELP = """Say what you like and what you are looking for. What was mentioned or given is not recommended again,
unless your message names it together with a word such as "again".
/more [N]            another recommendation, or N of them
/like N              I like item N (a card's number, or a title; nothing: the last one); also /dislike, /seen
/why [N]             what the last recommendation, or item N, rests on
/undo                take back the last message or command; /undo a takes back link (a) in my last words
/reset               start over
/save FILE           keep the session in a file; /load FILE goes on with one
/help, /quit         this list; leave (as Ctrl-D does). Ctrl-C stops a reply."""


def terminal_lines(prompt: str = "you> ") -> ReadLine:
    """Lines typed at the terminal, with editing and history where the platform has them."""
    with suppress(ImportError):
        import readline  # noqa: F401  (input() uses it once it is imported)

    def read() -> str | None:
        try:
            return input(prompt)
        except EOFError:
            return None
        except UnicodeDecodeError:
            return ""  # bytes that are no text: as if nothing was typed

    return read


def piped_lines(stream: BinaryIO | None = None) -> ReadLine:
    """Lines of a pipe or file; bytes that are not UTF-8 become U+FFFD."""
    source = sys.stdin.buffer if stream is None else stream

    def read() -> str | None:
        line = source.readline()
        return line.decode("utf-8", "replace").rstrip("\r\n") if line else None

    return read


def run_chat(
    session: ChatSession,
    console: Console,
    read_line: ReadLine,
    *,
    interactive: bool,
    notes: Console | None = None,
    show_decisions: bool = False,
    session_file: Path | None = None,
    facts: Facts | None = None,
) -> int:
    """Talk until the input ends. Returns the exit code: 0, or off a terminal that of the first line that failed.

    `session_file` is written after every step; `facts` fills the cards (default: the items' own). At a terminal Ctrl-C
    stops the reply, which stays in the conversation as far as it was shown; a second one at the prompt leaves. Off a
    terminal KeyboardInterrupt is the caller's.
    """
    return _Chat(session, console, notes or console, interactive, show_decisions, session_file, facts).run(read_line)


class _Chat:
    def __init__(
        self,
        session: ChatSession,
        console: Console,
        notes: Console,
        interactive: bool,
        show_decisions: bool,
        session_file: Path | None,
        facts: Facts | None,
    ) -> None:
        self.session = session
        self.console = console
        self.notes = notes
        self.interactive = interactive
        self.show_decisions = show_decisions
        self.session_file = session_file
        self.facts = facts
        self.code = 0
        self._stop = threading.Event()
        self._together = (0, 0)  # the steps from and to which the last /more went
        self._too_long = False
        self._shown = Running(lambda: session.catalog)
        self.commands: dict[str, Callable[[str], bool]] = {
            "more": self._more,
            "like": self._mark("liked"),
            "dislike": self._mark("disliked"),
            "seen": self._mark("seen"),
            "why": self._why,
            "undo": self._undo,
            "reset": self._reset,
            "save": self._save,
            "load": self._load,
            "help": self._help,
            "quit": lambda _: False,
            "exit": lambda _: False,
        }

    def run(self, read_line: ReadLine) -> int:
        if self.interactive:
            self.note("Tell me what you like. /help lists the commands, Ctrl-D leaves.")
        interrupted = False
        while True:
            try:
                line = read_line()
                if line is None:
                    break
                interrupted = False
                if line.strip() and not self._line(line.strip()):
                    return self.code
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                if interrupted:
                    break
                interrupted = True
                self.console.print()
                self.note("Ctrl-C again, or /quit, leaves.")
        if self.interactive:
            self.console.print()
        return self.code

    def _line(self, line: str) -> bool:
        """One message or command; False to leave."""
        try:
            self._tell(self.session.follow())
            if not line.startswith("/"):
                self._answer(lambda **options: self.session.say(line, **options))
                return True
            name, _, rest = line[1:].partition(" ")
            command = self.commands.get(name.lower())
            if command is None:
                raise UsageError(f"There is no command /{clean(name, lines=False)[:40]}.", hint="/help lists them.")
            return command(rest.strip())
        except GcrsError as error:
            self.note(str(error))
            if not self.interactive:
                self.code = self.code or error.exit_code
            return True

    def note(self, text: str) -> None:
        """A remark beside the conversation."""
        style = "" if is_plain(self.notes) else "dim"
        self.notes.print(Text(clean(text), style=style), soft_wrap=True)

    def _tell(self, changes: Followed) -> None:
        """What another process has changed in the catalogue since the last line."""
        told = (("New", changes.added), ("No longer recommended", changes.retired), ("Back", changes.restored))
        for what, items in told:
            if items:
                labels = ", ".join(self.session.catalog[item].label for item in items[:MOST_LINKS])
                rest = f" and {len(items) - MOST_LINKS} more" if len(items) > MOST_LINKS else ""
                self.note(f"{what} in the catalogue: {labels}{rest}.")

    # Replies

    def _answer(self, ask: Callable[..., Said | None]) -> None:
        self._shown = Running(lambda: self.session.catalog)
        with self._stoppable():
            said = ask(on_piece=self._piece, stop=self._stop.is_set)
        if self._shown.text:
            self.console.print()
        if said is None:
            self.note("Stopped before a word was said; your message is taken back.")
            return
        self._after(said)
        self._autosave()

    def _piece(self, piece: Piece) -> None:
        if not (text := self._shown.add(piece)):
            return
        plain = is_plain(self.console)
        style = "bold" if piece.kind == "item" and not plain else ""
        self.console.print(Text(text, style=style), end="", soft_wrap=True)

    def _after(self, said: Said) -> None:
        """Cards and remarks behind a reply."""
        reply, catalog = said.reply, self.session.catalog
        kept = self.facts([item for _, item in said.cards]) if self.facts and said.cards else {}
        for number, item in said.cards:
            print_card(self.console, number, catalog[item], kept.get(item))
        if self.show_decisions:
            print_decisions(self.console, reply, catalog)
        if said.links:
            shown = said.links[:MOST_LINKS]
            names = [f"({letter(n)}) {surface} = {catalog[i].label}" for n, (surface, i) in enumerate(shown, 1)]
            rest = f" and {len(said.links) - MOST_LINKS} more" if len(said.links) > MOST_LINKS else ""
            self.note(f"In your words: {', '.join(names)}{rest}. Not meant? /undo {letter(1)}")
        open_names = {name.surface.casefold(): name for name in said.ambiguous}
        for open_name in list(open_names.values())[:MOST_LINKS]:
            labels = ", ".join(catalog[item].label for item in open_name.candidates[:4])
            self.note(f"{open_name.surface!r} could be {labels}: say it with the year.")
        if gone := list(dict.fromkeys(item for _, item in said.links if item in self.session.retired)):
            labels = ", ".join(catalog[item].label for item in gone[:MOST_LINKS])
            self.note(f"Retired from this catalogue, so not recommended: {labels}.")
        if reply.dropped and not self._too_long:
            self.note(f"Too long to be read in full: {reply.dropped}")
        self._too_long = bool(reply.dropped)  # said when it begins, not behind every reply
        if reply.stopped:
            self.note("Stopped.")

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """At a terminal the first Ctrl-C asks the reply to stop; the second one interrupts whatever runs."""
        self._stop.clear()
        if not self.interactive or threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = signal.signal(signal.SIGINT, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # Commands: each takes what stands behind its name and says whether to go on

    def _more(self, rest: str) -> bool:
        if rest and not (rest.isdecimal() and 1 <= int(rest) <= MOST_MORE):
            raise UsageError(f"{rest[:20]!r} is no number from 1 to {MOST_MORE}.", hint="For example: /more 3")
        before = len(self.session.steps)
        for _ in range(int(rest or 1)):
            self._answer(self.session.more)
            if self._stop.is_set():
                break
        self._together = (before, len(self.session.steps))
        return True

    def _mark(self, value: Any) -> Callable[[str], bool]:
        def mark(rest: str) -> bool:
            item = self.session.find(rest)
            self.session.mark(item, value)
            self.note(f"{self.session.catalog[item].label}: {value}.")
            self._autosave()
            return True

        return mark

    def _why(self, rest: str) -> bool:
        lines = self.session.why(self.session.find(rest) if rest else None)
        self.console.print(Text(clean("\n".join(lines))), soft_wrap=True)
        return True

    def _undo(self, rest: str) -> bool:
        if rest:
            number = numbered(rest)
            self._answer(lambda **options: self.session.unlink(number, **options))
            return True
        first, last = self._together
        if len(self.session.steps) == last > first + 1:  # what one /more gave goes as one
            for _ in range(last - first):
                self.session.undo()
            self.note(f"Taken back: the last {last - first} recommendations.")
            self._autosave()
            return True
        step = self.session.undo()
        if isinstance(step, Mark):
            self.note(f"Taken back: {self.session.catalog[step.item].label} as {step.value}.")
        elif step.words == MORE:
            self.note("Taken back: the last recommendation.")
        else:
            self.note(f"Taken back: {clean(step.words, lines=False)[:60]!r} and its reply.")
        self._autosave()
        return True

    def _reset(self, rest: str) -> bool:
        self.session.reset()
        self.note("Everything said is forgotten; rules and exclusions stay.")
        self._autosave()
        return True

    def _save(self, rest: str) -> bool:
        path = Path(rest).expanduser() if rest else self.session_file
        if path is None:
            raise UsageError("Say where: /save FILE")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"There is no directory {path.absolute().parent}.", hint="/save takes a file's path.")
        self.session.save(path)
        self.note(f"Saved to {path}.")
        return True

    def _load(self, rest: str) -> bool:
        path = Path(rest).expanduser() if rest else self.session_file
        if path is None:
            raise UsageError("Say which file: /load FILE")
        self.session.load(path)
        count = len(self.session.exchanges)
        self.note(f"Loaded {path}: {count} {'exchange' if count == 1 else 'exchanges'}.")
        self._autosave()
        return True

    def _help(self, rest: str) -> bool:
        self.console.print(Text(HELP), soft_wrap=True)
        return True

    def _autosave(self) -> None:
        if self.session_file is not None:
            self.session.save(self.session_file)
