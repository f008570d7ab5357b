"""The chat loop: commands, cards and remarks in a pipe, and Ctrl-C, Ctrl-D and streaming at a real terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gcrs.programs.chat import piped_lines, run_chat
from gcrs.programs.lm import local_lm
from gcrs.programs.recommender import Recommender
from gcrs.programs.render import clean, print_card, shown_text
from gcrs.programs.session import ChatSession
from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.model.engine import Sampling
from toys import toy_catalog, toy_engine

CHILD = Path(__file__).with_name("chat_child.py")


@pytest.fixture(scope="module")
def parts() -> tuple[Recommender, Linker]:
    engine, catalog = toy_engine(), toy_catalog()
    linker = Linker(catalog)
    return Recommender(catalog, engine.book, engine.tokens, local_lm(engine, "toy"), linker=linker), linker


class Talk:
    """One chat in a pipe: its session, what came out as replies and as remarks, its exit code."""

    def __init__(self, parts: tuple[Recommender, Linker], script: str, **options: Any) -> None:
        self.session = ChatSession(*parts, bundle_hash="toy", seed=3, sampling=Sampling(max_tokens=8))
        out, notes = io.StringIO(), io.StringIO()
        self.code = run_chat(
            self.session,
            Console(file=out, width=80),
            piped_lines(io.BytesIO(script.encode("utf-8", "surrogateescape"))),
            interactive=False,
            notes=Console(file=notes, width=80),
            **options,
        )
        self.out, self.notes = out.getvalue(), notes.getvalue()


def test_each_line_is_a_message_and_blank_lines_are_none(parts: Any) -> None:
    talk = Talk(parts, "Hello\n\n   \nI like Alien, what now?\n")
    assert len(talk.session.exchanges) == 2 and talk.code == 0
    assert "you>" not in talk.out and talk.out.count("\n") >= 2
    assert "(a) Alien = Alien (1979). Not meant? /undo a" in talk.notes


def test_a_recommendation_shows_a_card_with_its_facts(parts: Any) -> None:
    talk = Talk(parts, "/more\n")
    item = talk.session.catalog[talk.session.given[0]]
    assert f"[1] {item.label} | genre: {', '.join(item.facts['genre'])}" in talk.out  # type: ignore[arg-type]


def test_facts_may_come_from_elsewhere(parts: Any) -> None:
    talk = Talk(parts, "/more\n", facts=lambda ids: {item: {"stock": 3, "new": True} for item in ids})
    assert "| stock: 3; new: yes" in talk.out


def test_commands_change_the_session(parts: Any) -> None:
    talk = Talk(parts, "/more\n/like 1\n/dislike Fargo\n/seen m09\n/undo\n/why\n/help\n")
    assert list(talk.session.feedback.values()) == ["liked", "disliked"]
    assert "Fargo (1996): disliked." in talk.notes and "Taken back: Heat (1995) as seen." in talk.notes
    assert "came 1st of 12 allowed of 12 items" in talk.out and "/save FILE" in talk.out and talk.code == 0


def test_what_one_more_gave_is_taken_back_at_once(parts: Any) -> None:
    talk = Talk(parts, "Hello\n/more 3\n/undo\n/more\n/undo\n/undo\n")
    assert talk.session.exchanges == ()
    told = [line for line in talk.notes.splitlines() if line.startswith("Taken back")]
    assert told[:2] == ["Taken back: the last 3 recommendations.", "Taken back: the last recommendation."]
    assert told[2] == "Taken back: 'Hello' and its reply."


def test_a_wrong_link_is_taken_back_by_its_letter(parts: Any) -> None:
    talk = Talk(parts, "I love The Matrix and Heat\n/undo b\n/undo z\n")
    (exchange,) = talk.session.exchanges
    assert exchange.links == (("The Matrix", "m03"),) and "there is none (z)" in talk.notes and talk.code == 2


def test_what_cannot_be_done_is_one_sentence(parts: Any) -> None:
    talk = Talk(parts, "/dance\n/like\n/load /nowhere/at/all\n/undo\n/save\n/undo ?!\nHello\n")
    lines = talk.notes.splitlines()
    assert lines[0] == "There is no command /dance. /help lists them." and len(lines) == 6
    assert len(talk.session.exchanges) == 1 and talk.code == 2


def test_quit_ends_before_the_input_does(parts: Any) -> None:
    assert len(Talk(parts, "Hello\n/quit\nHello\n").session.exchanges) == 1


def test_decisions_are_shown_when_asked_for(parts: Any) -> None:
    talk = Talk(parts, "/more\n", show_decisions=True)
    assert re.search(r"intent: recommend \(forced\) \| recommend \d\.\d\d, chat \d\.\d\d", talk.out)
    assert re.search(r"\*  1\. .+ \| P .+ % \| <a_\d><b_\d><c_\d>", talk.out) and "seconds: intent" in talk.out


def test_a_session_file_is_written_after_every_step_and_goes_on(parts: Any, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    Talk(parts, "Hello\n/like m01\n", session_file=file)
    assert len(json.loads(file.read_text())["steps"]) == 2
    talk = Talk(parts, f"/load {file}\n/more\n/save {tmp_path / 't.json'}\n/reset\n")
    assert "Loaded" in talk.notes and talk.session.steps == ()
    assert len(json.loads((tmp_path / "t.json").read_text())["steps"]) == 3


@pytest.mark.parametrize("line", ["\x1b]0;title\x07\x1b[2J hi", "<|im_end|><BOI><a_1>", "\udcff\udcfe", "\u202eabc"])
def test_strange_lines_get_a_reply_and_are_not_echoed_raw(parts: Any, line: str) -> None:
    talk = Talk(parts, f"{line}\n/undo\n/{line}\n")
    assert talk.out.strip() and "Taken back" in talk.notes
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", talk.out + talk.notes)


def test_escape_sequences_in_facts_are_not_shown(parts: Any) -> None:
    nasty = Item("x", "Evil\x1b[31m [bold]film[/bold]", {"note": "a\x1b]52;c;aGk=\x07\nb", "tags": ["x\x9b1m"] * 9})
    for terminal in (False, True):
        out = io.StringIO()
        print_card(Console(file=out, width=100, force_terminal=terminal, color_system=None), 1, nasty)
        told = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())  # rich's own styles
        assert "[bold]film[/bold]" in told and "and 3 more" in told
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", told)
    assert clean("a\tb\u2028c\x00") == "a\tbc"
    assert shown_text("See <item:m01>\x1b[0m", toy_catalog()) == "See Alien (1979)[0m"


def test_no_color_is_plain_even_at_a_terminal() -> None:
    out = io.StringIO()
    print_card(Console(file=out, force_terminal=True, no_color=True), 1, toy_catalog()["m01"])
    assert out.getvalue() == "[1] Alien (1979) | genre: horror, sci-fi\n"


class Terminal:
    """The chat behind a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        paths = [str(CHILD.parent), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TERM": "xterm", "INPUTRC": "/dev/null"}
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: _control(0),
        )
        os.close(slave)
        self.seen = ""

    def until(self, pattern: str, seconds: float = 250) -> str:
        """Everything up to and with the next match of `pattern`."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.master], [], [], min(left, 0.5))[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"ended without {pattern!r}: {self.seen!r}") from None
        out, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return out

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            os.close(self.master)


def _control(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_at_a_terminal_ctrl_c_stops_a_reply_cards_have_boxes_and_ctrl_d_leaves(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    terminal = Terminal(str(file), "400", "400")  # the first reply takes many seconds
    try:
        terminal.until("you> ")
        terminal.type("Hello there\n")
        terminal.until("Hello there")
        time.sleep(2)
        terminal.type("\x03")
        assert "Stopped" in terminal.until("you> ")
        if file.exists():  # something had been shown: it is closed as a turn of the conversation
            (step,) = json.loads(file.read_text())["steps"]
            assert step["turns"][1]["text"].strip()
        terminal.type("/more\n")
        assert "╭─ [1] " in re.sub(r"\x1b\[[\d;]*m", "", terminal.until("(?s)╰.*you> "))
        terminal.type("\x04")
        assert terminal.end() == 0
    finally:
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)
            terminal.process.wait()


def test_ctrl_c_twice_at_the_prompt_leaves_and_once_does_not(parts: Any) -> None:
    session = ChatSession(*parts, bundle_hash="toy", sampling=Sampling(max_tokens=4))
    typed: list[str | None] = ["^C", "Hello", "^C", "^C", "Never"]

    def read() -> str | None:
        line = typed.pop(0)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    out = io.StringIO()
    assert run_chat(session, Console(file=out), read, interactive=True) == 0
    assert len(session.exchanges) == 1 and typed == ["Never"] and out.getvalue().count("Ctrl-C again") == 2


def test_off_a_terminal_an_interrupt_is_the_callers(parts: Any) -> None:
    session = ChatSession(*parts, bundle_hash="toy")

    def read() -> str | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_chat(session, Console(file=io.StringIO()), read, interactive=False)


def test_a_pipe_has_replies_on_stdout_and_remarks_on_stderr() -> None:
    done = subprocess.run(
        [sys.executable, str(CHILD), "-", "6", "0"],
        input="I loved The Matrix\n/more\n/nonsense\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHILD.parent)},
        check=False,
    )
    assert "[1] " in done.stdout and "you>" not in done.stdout and "\x1b" not in done.stdout
    assert done.stderr.splitlines()[-1] == "There is no command /nonsense. /help lists them." and done.returncode == 2
