"""ChatSession: what a conversation remembers, without a terminal.

The conversation is a list of steps (an exchange of two turns, or a like, dislike or "seen"); all else is derived from
it, so undoing is dropping the last step and saving is writing the list. What was mentioned, given or judged is not
recommended again, except: a message that names an item together with a word such as "again" lifts the ban on that item
for its reply. Exclusions, rules and dislikes are never lifted. Knows nothing of how a reply is shown or typed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.programs.recommender import Choice, Recommender
from gcrs.programs.reply import Reply, derive
from gcrs.programs.rules import Rules
from gcrs.programs.session_file import Decision, Exchange, Mark, Saved, Step, read_session, write_session
from gcrs.programs.why import explain
from gcrs.toolkit.catalog.allow_list import AllowList, read_allow_list
from gcrs.toolkit.dialogue.turns import Dialogue, Feedback, Turn, check_message
from gcrs.toolkit.errors import DeadEnd, UsageError
from gcrs.toolkit.model.engine import Piece, Sampling

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.dialogue.linker import Ambiguous, Linked, Linker

CARD_DIGITS = 2  # a shorter number is a card, whether it was given or not
MORE = "What else would you recommend?"
_AGAIN = re.compile(r"\b(?:again|once more|re-?(?:watch|read|play|visit|listen|try)\w*|repeat\w*)\b", re.I)
_SAID: dict[Feedback, str] = {
    "liked": "I like {}.",
    "disliked": "I do not like {}.",
    "seen": "I have already seen {}.",
}


@dataclass(frozen=True)
class Said:
    """One message and what came of it: the reply, what was linked in my words, what could not be told apart."""

    reply: Reply
    links: tuple[tuple[str, str], ...]
    ambiguous: tuple[Ambiguous, ...]
    cards: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Followed:
    """What has changed in the catalogue since the last message: ids of items."""

    added: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()


def letter(n: int) -> str:
    """How the n-th link (from 1) of a message is called: a, b, …, then numbers."""
    return string.ascii_lowercase[n - 1] if n <= 26 else str(n)


def numbered(text: str) -> int:
    """`letter` read back: the link, from 1, that `a`, `(a)` or `1` means. UsageError for anything else."""
    text = text.strip(" ()").lower()
    if len(text) == 1 and text in string.ascii_lowercase:
        return string.ascii_lowercase.index(text) + 1
    if text.isdecimal():
        return int(text)
    raise UsageError(f"{text[:20]!r} is no link.", hint="/undo takes nothing, or a link's letter such as /undo a")


class ChatSession:
    """One person's conversation with a recommender.

    `where` are rules such as `year>=2000`, `exclude` item ids that are never recommended, `allow` the only ids that
    may be, `or_unknown` admits items whose values are missing; all hold for the whole session. Each reply's seed
    derives from `seed` and the number of exchanges before it. Raises what `Rules.admitted` raises.

    `newest` gives the program and the linker over the catalogue as it stands now; it is asked before every message, so
    that what another process adds or retires holds from the next one on.
    """

    def __init__(
        self,
        recommender: Recommender,
        linker: Linker,
        *,
        bundle_hash: str,
        where: Sequence[str] = (),
        exclude: Sequence[str] = (),
        allow: AllowList | None = None,
        or_unknown: bool = False,
        seed: int = 0,
        sampling: Sampling = Sampling(),  # noqa: B008  (frozen)
        k: int = 10,
        n_targets: int = 1,
        newest: Callable[[], tuple[Recommender, Linker]] | None = None,
    ) -> None:
        self.newest = newest
        self.bundle_hash = bundle_hash
        self.seed = seed
        self.sampling = sampling
        self.k = k
        self.n_targets = n_targets
        self.steps: tuple[Step, ...] = ()
        self.blocked: frozenset[tuple[str, str]] = frozenset()
        self._take(recommender, linker)
        self._set_rules(Rules(tuple(where), tuple(exclude), allow, or_unknown))

    def _take(self, recommender: Recommender, linker: Linker) -> None:
        """Go on with this program, over the catalogue that it has."""
        self.recommender, self.linker = recommender, linker
        self.catalog = recommender.parts.catalog
        self._row = {item: row for row, item in enumerate(recommender.parts.book)}

    def _set_rules(self, rules: Rules) -> None:
        self._permitted = rules.offered(self.recommender.parts.edition)
        exclude = tuple(dict.fromkeys(self.catalog.canonical(item) for item in rules.exclude))
        self.rules = replace(rules, exclude=exclude)

    @property
    def where(self) -> tuple[str, ...]:
        """The rules in force, as typed."""
        return self.rules.where

    @property
    def exclude(self) -> tuple[str, ...]:
        """The items that are never recommended."""
        return self.rules.exclude

    def follow(self) -> Followed:
        """Take over what another process has changed in the catalogue, and say what.

        Raises DataError for a journal that can no longer be read: without it nobody knows what may be recommended.
        """
        before = self.recommender.parts.edition
        if self.newest is None or (taken := self.newest())[0] is self.recommender:
            return Followed()
        self._take(*taken)
        self._set_rules(self.rules)
        now = self.recommender.parts.edition
        return Followed(
            tuple(item.id for item in now.catalog.items[len(before.catalog) :]),
            tuple(sorted(now.retired - before.retired)),
            tuple(sorted(before.retired - now.retired)),
        )

    # What follows from the steps

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges in order."""
        return tuple(step for step in self.steps if isinstance(step, Exchange))

    @property
    def dialogue(self) -> Dialogue:
        """Everything said so far."""
        return Dialogue("chat", tuple(turn for e in self.exchanges for turn in (e.user, e.assistant)))

    @property
    def feedback(self) -> dict[str, Feedback]:
        """What was said of each item, the last word counting."""
        return {step.item: step.value for step in self.steps if isinstance(step, Mark)}

    @property
    def given(self) -> tuple[str, ...]:
        """Items recommended so far, in order; an item's card number is its place in this list, from 1."""
        return tuple(dict.fromkeys(item for e in self.exchanges for item in e.assistant.decided_targets))

    @property
    def mentioned(self) -> tuple[str, ...]:
        """Items that either side mentioned, in order."""
        return tuple(dict.fromkeys(item for turn in self.dialogue.turns for item in turn.mentions))

    def allowed(self, again: Iterable[str] = (), also: Iterable[str] = ()) -> np.ndarray:
        """bool [items in the codebook's order]: what may be recommended now.

        `again` lifts the ban on what was mentioned, given, liked or seen; `also` are further items to leave out.
        """
        disliked = {item for item, value in self.feedback.items() if value == "disliked"}
        banned = ({*self.given, *self.mentioned, *self.feedback, *also} - set(again)) | disliked
        mask = self._permitted.copy()
        mask[[self._row[item] for item in banned if item in self._row]] = False
        return mask

    @property
    def retired(self) -> frozenset[str]:
        """Items that are known by title and are never recommended."""
        return self.recommender.parts.edition.retired

    def permits(self, item: str) -> bool:
        """Whether the session's rules and exclusions admit an item, whatever was said so far."""
        return bool(self._permitted[self._row[self.catalog.canonical(item)]])

    # What a person can do

    def say(
        self,
        text: str,
        *,
        intent: Choice = "free",
        targets: Sequence[str] | None = None,
        on_piece: Callable[[Piece], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Said | None:
        """Send a message and get the reply. None when `stop` ended it before a word: then nothing was said.

        `targets` are rendered instead of predicted, also when they were mentioned or given before.
        Nothing changes when it raises: UsageError for a blank message, DeadEnd when nothing is left to recommend.
        """
        words = text.encode("utf-8", "replace").decode("utf-8").strip()
        check_message(words)
        self.follow()
        linked = self._link(words)
        user = self._user_turn(linked)
        named = tuple(dict.fromkeys(link.item for link in linked.links))
        again = (
            *(named if _AGAIN.search(words) else ()),
            *(self.catalog.canonical(target) for target in targets or ()),
        )
        allowed = self.allowed(again, user.mentions)
        if intent == "recommend" and not targets and not allowed.any():
            raise DeadEnd(
                "Nothing is left to recommend: all that the rules admit was mentioned or given.",
                hint="Relax a rule, or /undo or /reset.",
            )
        before = self.dialogue
        reply = self.recommender.reply(
            Dialogue(before.id, (*before.turns, user)),
            intent=intent,
            targets=targets,
            n_targets=self.n_targets,
            k=max(self.k, self.n_targets),
            allowed=allowed,
            admitted=self._permitted,
            sampling=replace(self.sampling, seed=derive(self.seed, len(self.exchanges))),
            on_piece=on_piece,
            stop=stop,
            rules=self.where,
        )
        if reply.stopped and not reply.text.strip():
            return None
        links = tuple((link.surface, link.item) for link in linked.links)
        decision = Decision.of(reply, int(allowed.sum()), again, intent, tuple(targets or ()))
        self.steps = (*self.steps, Exchange(words, links, user, reply.turn, decision))
        numbers = {item: n for n, item in enumerate(self.given, 1)}
        cards = tuple((numbers[target.item_id], target.item_id) for target in reply.targets)
        return Said(reply, links, linked.ambiguous, cards)

    def more(self, **options: Any) -> Said | None:
        """Another recommendation; never one that was given before."""
        return self.say(MORE, intent="recommend", **options)

    def mark(self, item: str, value: Feedback) -> None:
        """Like, dislike or have seen an item; the model hears of it with my next message."""
        self.steps = (*self.steps, Mark(self.catalog.canonical(item), value))

    def unlink(self, n: int, **options: Any) -> Said | None:
        """Undo the n-th link (from 1) in my last message and answer that message anew.

        For the rest of the session these words no longer mean that item. Raises UsageError when there is no such link.
        """
        last = self.steps[-1] if self.steps else None
        links = last.links if isinstance(last, Exchange) else ()
        if not isinstance(last, Exchange) or not 1 <= n <= len(links):
            count = f"{len(links)} link{'s' if len(links) > 1 else ''}" if links else "no link"
            raise UsageError(
                f"The last step has {count}, there is none ({letter(n)}).",
                hint="A link is undone right after its message; a plain /undo takes back the last step.",
            )
        kept = self.steps, self.blocked
        surface, item = links[n - 1]
        self.steps = self.steps[:-1]
        self.blocked |= {(surface.casefold(), item)}
        done = None
        try:
            done = self.say(last.words, intent=last.decision.asked, targets=last.decision.given or None, **options)
        finally:
            if done is None:
                self.steps, self.blocked = kept
        return done

    def undo(self) -> Step:
        """Take back the last step and return it; UsageError when there is none."""
        if not self.steps:
            raise UsageError("There is nothing to undo.")
        step = self.steps[-1]
        self.steps = self.steps[:-1]
        return step

    def reset(self) -> None:
        """Forget everything said; rules, exclusions and seed stay."""
        self.steps, self.blocked = (), frozenset()

    def why(self, item: str | None = None) -> tuple[str, ...]:
        """Lines that explain a recommendation by the decisions behind it (`why.explain`)."""
        return explain(self, item)

    def find(self, name: str) -> str:
        """The item that a card number, an id or a title means; UsageError when it means none or several.

        A number of one or two digits is a card's, never a title's: "12" in quotes or "12 (2007)" is the film. Nothing
        means the item of the last reply, when that gave just one.
        """
        name, quoted = name.strip(), False
        if not name:
            last = next((step for step in reversed(self.steps) if isinstance(step, Exchange)), None)
            if last is not None and len(last.assistant.decided_targets) == 1:
                return self.catalog.canonical(last.assistant.decided_targets[0])
            raise UsageError("Name an item by its card number or its title.")
        if len(name) > 2 and name[0] == name[-1] == '"':
            name, quoted = name[1:-1].strip(), True
        if name.isdigit() and not quoted:
            if 1 <= int(name) <= len(self.given):
                return self.given[int(name) - 1]
            if len(name) <= CARD_DIGITS:
                had = f"the cards go up to {len(self.given)}" if self.given else "no card has been given yet"
                raise UsageError(
                    f"There is no card {name}: {had}.",
                    hint="A title that is a number stands in quotes or with its year.",
                )
        if name in self.catalog:
            return self.catalog.canonical(name)
        folded = name.casefold()
        found = [item.id for item in self.catalog if folded in (item.label.casefold(), item.title.casefold())]
        if not found:
            linked = self.linker.link(f'"{name}"', self.mentioned)
            found = [link.item for link in linked.links] or [i for a in linked.ambiguous for i in a.candidates]
        if len(found) > 1:
            spoken = [item for item in found if item in (*self.mentioned, *self.given)]
            if len(spoken) != 1:
                labels = ", ".join(self.catalog[item].label for item in found[:5])
                raise UsageError(f"{name!r} could be {labels}.", hint="Add the year.")
            found = spoken
        if not found:
            given = f" from 1 to {len(self.given)}" if self.given else ", once there are cards"
            raise UsageError(f"Nothing here is called {name[:60]!r}.", hint=f"Use a title, or a card number{given}.")
        return found[0]

    # Saving

    def save(self, path: Path) -> None:
        """Write the session as JSON, whole or not at all."""
        allow = self.rules.allow.path if self.rules.allow else None
        saved = Saved(
            self.bundle_hash,
            self.seed,
            self.where,
            self.exclude,
            self.steps,
            self.blocked,
            allow,
            self.rules.or_unknown,
        )
        write_session(saved, path)

    def load(
        self,
        path: Path,
        *,
        where: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        allow: AllowList | None = None,
        or_unknown: bool = False,
        seed: int | None = None,
    ) -> Saved:
        """Continue a saved session and return what it held.

        `where`, `allow` and `seed` replace the saved ones where given, `exclude` joins those saved; a saved allow-list
        is read anew from its file, so it is that of today. DataError (exit 3) for a file that is broken, of another
        version, or made with another bundle, or whose allow-list is gone.
        """
        saved = read_session(path, self.bundle_hash, self.catalog)
        if allow is None and saved.allow is not None:
            allow = read_allow_list(saved.allow)
        kept = saved.where if where is None else tuple(where)
        self._set_rules(Rules(kept, (*saved.exclude, *exclude), allow, or_unknown or saved.or_unknown))
        self.seed, self.steps, self.blocked = saved.seed if seed is None else seed, saved.steps, saved.blocked
        return saved

    # Inside

    def _link(self, words: str) -> Linked:
        linked = self.linker.link(words, (*self.mentioned, *self.given))
        wrong = [link.item for link in linked.links if (link.surface.casefold(), link.item) in self.blocked]
        return linked.without(*wrong) if wrong else linked

    def _user_turn(self, linked: Linked) -> Turn:
        """My words, with what I liked, disliked or have seen since the last message said in front of them."""
        marks: dict[str, Feedback] = {}
        for step in reversed(self.steps):
            if not isinstance(step, Mark):
                break
            marks.setdefault(step.item, step.value)
        said = [_SAID[value].format(f"<item:{item}>") for item, value in reversed(marks.items())]
        return Turn("user", " ".join([*said, linked.text]), feedback=marks)
