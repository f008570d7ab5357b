"""Rules as people write them: `year>=2000 and not (genre=horror or title contains "part")`, and what they mean.

A rule is a comparison, or rules joined by `and`, `or`, `not` and parentheses; `not` binds closer than `and`, `and`
closer than `or`. Knows nothing of catalogues: whether a column exists and what satisfies a rule is known to
`filters.Columns`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

from gcrs.toolkit.errors import UsageError

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]

DEEPEST = 50  # parentheses and negations inside one another
_OPERATOR = re.compile(r"==|!=|<=|>=|[=<>~]|contains(?=[\s\"'])", re.IGNORECASE)
_COLUMN_WORD = re.compile(r"[^=<>!~()\s]+")
_JOINT = re.compile(r"(and|or)(?=[\s(]|$)", re.IGNORECASE)
_NOT = re.compile(r"not(?=\s*\(|\s+[^=<>!~\s])", re.IGNORECASE)
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'", re.DOTALL)
_PLAIN_COLUMN = re.compile(r"[^=<>!~()\s\"'\\]+")
_PLAIN_VALUE = re.compile(r"[^()\s\"'\\=][^()\s\"'\\]*")
_WORDS = ("and", "or", "not", "contains")
_HINT = "For example: --where 'year>=2000 and not genre=horror'; quote a value that holds and, or or parentheses."


@dataclass(frozen=True)
class Predicate:
    """One comparison: a column (as typed, perhaps its singular), an operator and the value as typed."""

    column: str
    operator: Operator
    value: str

    def __str__(self) -> str:
        column = _spelled(self.column, _PLAIN_COLUMN)
        value = _spelled(self.value, _PLAIN_VALUE)
        return f"{column}{self.operator}{value}"


@dataclass(frozen=True)
class Negation:
    """`not` a rule."""

    rule: Rule

    def __str__(self) -> str:
        return f"not ({self.rule})"


@dataclass(frozen=True)
class Conjunction:
    """Rules that must all hold."""

    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        return " and ".join(_inside(rule) for rule in self.rules)


@dataclass(frozen=True)
class Disjunction:
    """Rules of which one must hold."""

    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        return " or ".join(_inside(rule) for rule in self.rules)


Rule = Predicate | Negation | Conjunction | Disjunction


def parse_where(text: str) -> Rule:
    """The rule that a text spells: `column OP value`, OP one of = != < <= > >= ~ or `contains`, joined or alone.

    A bare value ends before `and`, `or` or an unmatched parenthesis; in quotes it may hold anything, a backslash
    protects a quote. Raises UsageError that says at which character something else was expected.
    """
    return _Reader(text).whole()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def whole(self) -> Rule:
        rule = self._either(0)
        self._space()
        if self.at < len(self.text):
            self._fail("and, or or the end")
        return rule

    def _either(self, depth: int) -> Rule:
        if depth > DEEPEST:
            self._fail(f"at most {DEEPEST} parentheses inside one another")
        rules = [self._all(depth)]
        while self._joint("or"):
            rules.append(self._all(depth))
        return rules[0] if len(rules) == 1 else Disjunction(tuple(rules))

    def _all(self, depth: int) -> Rule:
        rules = [self._one(depth)]
        while self._joint("and"):
            rules.append(self._one(depth))
        return rules[0] if len(rules) == 1 else Conjunction(tuple(rules))

    def _one(self, depth: int) -> Rule:
        self._space()
        if found := _NOT.match(self.text, self.at):
            if depth >= DEEPEST:
                self._fail(f"at most {DEEPEST} negations inside one another")
            self.at = found.end()
            return Negation(self._one(depth + 1))
        if not self.text.startswith("(", self.at):
            return self._comparison()
        self.at += 1
        rule = self._either(depth + 1)
        self._space()
        if not self.text.startswith(")", self.at):
            self._fail("and, or or a closing parenthesis")
        self.at += 1
        return rule

    def _comparison(self) -> Predicate:
        column = self._column()
        self._space()
        if (found := _OPERATOR.match(self.text, self.at)) is None:
            self._fail(f"one of {' '.join(get_args(Operator))} or contains after the column {column!r}")
        self.at = found.end()
        operator = {"==": "=", "contains": "~"}.get(found[0].lower(), found[0])
        value = self._value()
        if not value.strip():
            raise UsageError(
                f"{_shown(self.text)} has no value behind {found[0]!r} at character {found.start() + 1}.",
                hint=f"For example: {column}{operator}2000",
            )
        return Predicate(column, operator, value)  # type: ignore[arg-type]

    def _column(self) -> str:
        if (quoted := self._quoted()) is not None:
            return quoted
        begin = end = self.at
        while word := _COLUMN_WORD.match(self.text, self.at):
            if word[0].lower() in _WORDS and (end > begin or word[0].lower() != "contains"):
                break
            self.at = end = word.end()
            self._space()
        if end == begin:
            self._fail("a column")
        self.at = end
        return self.text[begin:end]

    def _value(self) -> str:
        self._space()
        if (quoted := self._quoted()) is not None:
            return quoted
        begin, open_ = self.at, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == ")" and not open_:
                break
            open_ += (char == "(") - (char == ")")
            if not open_ and char.isspace() and _JOINT.match(self.text, self.at + 1):
                break
            self.at += 1
        return self.text[begin : self.at].rstrip()

    def _quoted(self) -> str | None:
        if self.text[self.at : self.at + 1] not in ("'", '"'):
            return None
        if (found := _QUOTED.match(self.text, self.at)) is None:
            self._fail("a quoted text that is closed again")
        self.at = found.end()
        inner = found[1] if found[1] is not None else found[2]
        return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)

    def _joint(self, word: str) -> bool:
        self._space()
        found = _JOINT.match(self.text, self.at)
        if found is None or found[0].lower() != word:
            return False
        self.at = found.end()
        return True

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _fail(self, expected: str) -> NoReturn:
        rest = self.text[self.at : self.at + 12].split()
        found = repr(rest[0]) if rest else "the end"
        raise UsageError(
            f"{_shown(self.text)} is no rule: expected {expected} at character {self.at + 1}, found {found}.",
            hint=_HINT,
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def _spelled(text: str, plain: re.Pattern[str]) -> str:
    """A column or value as `parse_where` reads it back."""
    if plain.fullmatch(text) and text.lower() not in _WORDS:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _inside(rule: Rule) -> str:
    return f"({rule})" if isinstance(rule, (Conjunction, Disjunction)) else str(rule)
