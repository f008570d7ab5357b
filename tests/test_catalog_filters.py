"""Rules over typed columns: what satisfies them, what never does, and what is refused."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcrs.toolkit.catalog.filters import Columns, Predicate, parse_where
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.rules import Conjunction, Disjunction, Negation, Rule
from gcrs.toolkit.errors import GcrsError, UnknownItem, UsageError

CATALOG = Catalog(
    [
        Item("1", "The Matrix", {"year": 1999, "genres": ["Action", "Science Fiction"], "price": 3.5, "stock": True}),
        Item("2", "Amélie", {"year": 2001, "genres": ["comedy"], "country": "FRANCE", "stock": False}, ("old2",)),
        Item("3", "The Matrix Reloaded", {"year": 2003, "price": 2.0, "released": "2003-05-15"}),
        Item("4", "Heat", {"genres": ["crime", "action"], "country": "usa", "released": "1995-12-15", "stock": True}),
        Item("5", "Nothing Known", {}),
    ],
    {
        "year": "integer",
        "genres": "list",
        "price": "number",
        "country": "string",
        "stock": "boolean",
        "released": "date",
    },
)
COLUMNS = Columns(CATALOG)


def passing(*rules: str, exclude: tuple[str, ...] = ()) -> str:
    mask = COLUMNS.allowed([parse_where(rule) for rule in rules], exclude)
    return "".join(item.id for item, ok in zip(CATALOG, mask, strict=True) if ok)


@pytest.mark.parametrize(
    ("rule", "ids"),
    [
        ("year>=2001", "23"),
        ("year > 2001", "3"),
        ("year<2001", "1"),
        ("year<=2001", "12"),
        ("year=1999", "1"),
        ("year==1999", "1"),
        ("year!=1999", "23"),
        ("year<2000.5", "1"),
        ("price<3", "3"),
        ("price!=2", "1"),
        ("genre=action", "14"),
        ("genres=ACTION", "14"),
        ("Genres!=action", "2"),
        ("genres='science fiction'", "1"),
        ("genres~com", "2"),
        ("genres=act", ""),
        ("title~matrix", "13"),
        ("title=heat", "4"),
        ("title!=heat", "1235"),
        ("title~AMÉL", "2"),
        ("id=3", "3"),
        ("country=france", "2"),
        ("country<france2", "2"),
        ("country>=france", "24"),
        ("country!=France", "4"),
        ("countries=usa", "4"),
        ("stock=yes", "14"),
        ("stock!=true", "2"),
        ("released>=2003", "3"),
        ("released>2003", ""),
        ("released=2003-05", "3"),
        ("released<2003-05-15", "4"),
        ("released!=1995", "3"),
        ("genre contains act", "14"),
        ("genre CONTAINS 'sci'", "1"),
        ("year>=2001 and price<3", "3"),
        ("year>=2001 or price>3", "123"),
        ("year<2000 or year>2002 and price<3", "13"),
        ("(year<2000 or year>2002) and price<3", "3"),
        ("NOT genre=action", "2"),
        ("not year>2000", "1"),
        ("not (year>2000 and genre=comedy)", "14"),
        ("not (genre=comedy or year<2000)", ""),
        ("not not year>2000", "23"),
        ("not(year>2000)or price=2", "13"),
        ("stock=true and not year>2000", "1"),
        ('title="The Matrix" or "title"=heat', "14"),
        ("title = The Matrix or title = Heat", "14"),
        ("title~Matrix Re", "3"),
    ],
)
def test_what_satisfies_a_rule(rule: str, ids: str) -> None:
    assert passing(rule) == ids


def test_rules_are_joined_by_and_and_exclusions_follow_aliases() -> None:
    assert passing() == "12345"
    assert passing("genre=action", "year>=1990") == "1"
    assert passing(exclude=("old2", "4")) == "135"
    with pytest.raises(UnknownItem):
        passing(exclude=("nobody",))
    with pytest.raises(UnknownItem, match="That is a title: its id is 4"):
        passing(exclude=("heat",))
    with pytest.raises(UnknownItem, match=r"Nearest: 4 \(Heat\)"):
        passing(exclude=("heet",))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "year",
            "is no rule: expected one of = != < <= > >= ~ or contains after the column 'year' at character 5, found ",
        ),
        (">=2000", "is no rule: expected a column at character 1, found '>=2000'"),
        ("year>=", "has no value behind '>=' at character 5"),
        ("year>=2000 and", "is no rule: expected a column at character 15, found the end"),
        ("title=Thelma and Louise", "after the column 'Louise' at character 24, found the end"),
        ("(year>=2000", "is no rule: expected and, or or a closing parenthesis at character 12, found the end"),
        ("year>=2000)", "is no rule: expected and, or or the end at character 11, found ')'"),
        ("year>2000 or not", "expected a column at character 14, found 'not'"),
        ("title='Heat' (1995)", "is no rule: expected and, or or the end at character 14, found '(1995)'"),
        ("title='Heat", "is no rule: expected a quoted text that is closed again at character 7"),
        ("genre contains ''", "has no value behind 'contains' at character 7"),
        ("(" * 60 + "year>2000" + ")" * 60, "is no rule: expected at most 50 parentheses"),
        ("not " * 60 + "year>2000", "is no rule: expected at most 50 negations"),
        ("genre=comedy or yeer>=2000", "no column 'yeer'. Nearest: year"),
        ("yeer>=2000", "no column 'yeer'. Nearest: year"),
        ("zzz=1", "Its columns: id, title, year"),
        ("year>=soon", "with 'soon', expected an integer. It holds 1999 to 2003."),
        ("price<cheap", "expected a number"),
        ("price<nan", "expected a number"),
        ("stock=maybe", "expected true or false"),
        ("stock<true", "is a boolean column"),
        ("year~19", "is an integer column"),
        ("genres<b", "is a list column"),
        ("released>soon", "2024-05 or 2024. It holds 1995-12-15 to 2003-05-15."),
    ],
)
def test_what_is_refused(rule: str, message: str) -> None:
    with pytest.raises(GcrsError, match=re.escape(message)) as caught:
        passing(rule)
    spelt_wrong = isinstance(caught.value, UsageError)
    assert spelt_wrong == any(words in str(caught.value) for words in ("is no rule", "has no value"))
    assert caught.value.exit_code == (2 if spelt_wrong else 3)


def test_a_rule_keeps_operators_and_pairs_of_parentheses_in_its_value() -> None:
    assert parse_where("title=a=b<c") == Predicate("title", "=", "a=b<c")
    assert parse_where("(title=Heat (1995) or year=1)") == parse_where("title='Heat (1995)' or year=1")
    assert parse_where("title='It\\'s \\\\ \\\"'") == Predicate("title", "=", "It's \\ \"")
    assert parse_where("release date>2000") == Predicate("release date", ">", "2000")
    assert str(parse_where(" year >= 2000 ")) == "year>=2000"


@pytest.mark.parametrize(
    ("rule", "ids"),
    [
        ("year>=2001", "2345"),
        ("not year>=2001", "145"),
        ("year!=1999", "2345"),
        ("price<3", "2345"),
        ("year>=2001 and price<3", "2345"),
        ("not (year>2000 and genre=comedy)", "1345"),
        ("year>=2001 or genre=crime", "2345"),
        ("not genre=action", "235"),
    ],
)
def test_or_unknown_admits_what_only_a_missing_value_leaves_open(rule: str, ids: str) -> None:
    mask = COLUMNS.allowed([parse_where(rule)], or_unknown=True)
    assert "".join(item.id for item, ok in zip(CATALOG, mask, strict=True) if ok) == ids
    mask = COLUMNS.allowed([parse_where(rule)], ["5"], allow=["old2", "5", "4", "nobody"], or_unknown=True)
    assert {item.id for item, ok in zip(CATALOG, mask, strict=True) if ok} == {"2", "4"} & set(ids)


def test_what_a_column_holds_is_said_nearest_first() -> None:
    def near(rule: str) -> str:
        return COLUMNS.values_near(parse_where(rule))  # type: ignore[arg-type]

    assert (
        near("genre=comedi") == "comedy, crime and 2 other values"
        and near("country=frannce") == "france and 1 other value"
    )
    assert near("year>3000") == "1999 to 2003" and near("stock=true") == "true and false"
    assert near("released>2030") == "1995-12-15 to 2003-05-15" and near("genre=%") == "action to science fiction"


KINDS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-3, 3),
    "number": st.floats(-3, 3, allow_nan=False),
    "boolean": st.booleans(),
    "string": st.sampled_from(["a", "A", "b", "ab", "Straße", "STRASSE"]),
    "date": st.sampled_from(["2001-01-01", "2001-02-03", "2002-01-01T10:00:00"]),
    "list": st.lists(st.sampled_from(["a", "A", "b", "ab"]), min_size=1, max_size=3, unique=True),
}
OPERATORS = {
    "integer": ["=", "!=", "<", "<=", ">", ">="],
    "number": ["=", "!=", "<", "<=", ">", ">="],
    "boolean": ["=", "!="],
    "string": ["=", "!=", "<", "<=", ">", ">=", "~"],
    "date": ["=", "!=", "<", "<=", ">", ">="],
    "list": ["=", "!=", "~"],
}


@st.composite
def catalog_and_rules(draw: st.DrawFn) -> tuple[Catalog, list[Predicate]]:
    rows = draw(
        st.lists(st.fixed_dictionaries({}, optional={kind: KINDS[kind] for kind in KINDS}), min_size=1, max_size=8)
    )
    items = [Item(str(number), f"T{number}", facts) for number, facts in enumerate(rows)]
    rules = []
    for kind in draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3)):
        value: Any = draw(KINDS[kind])
        text = value[0] if isinstance(value, list) else str(value)
        rules.append(Predicate(kind, draw(st.sampled_from(OPERATORS[kind])), text))  # type: ignore[arg-type]
    return Catalog(items, {kind: kind for kind in KINDS}), rules  # type: ignore[misc]


@given(catalog_and_rules())
def test_a_missing_value_satisfies_nothing(case: tuple[Catalog, list[Predicate]]) -> None:
    catalog, rules = case
    columns = Columns(catalog)
    for rule in rules:
        mask = columns.allowed([rule])
        assert not any(ok for item, ok in zip(catalog, mask, strict=True) if rule.column not in item.facts)


@given(catalog_and_rules())
def test_a_conjunction_is_the_intersection(case: tuple[Catalog, list[Predicate]]) -> None:
    catalog, rules = case
    columns = Columns(catalog)
    each = np.logical_and.reduce([columns.allowed([rule]) for rule in rules])
    assert (columns.allowed(rules) == each).all()


def composed(leaves: st.SearchStrategy[Rule]) -> st.SearchStrategy[Rule]:
    """Rules of rules, as the parser would shape them: no conjunction right inside a conjunction's own list."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(Negation, inner),
            st.builds(Conjunction, st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(Disjunction, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_leaves=6,
    )


def truth(rule: Rule, item: Item, columns: Columns) -> bool | None:
    """True, false, or None for a missing value, one item at a time."""
    if isinstance(rule, Predicate):
        if rule.column not in item.facts:
            return None
        return bool(columns.allowed([rule])[list(columns.catalog).index(item)])
    if isinstance(rule, Negation):
        value = truth(rule.rule, item, columns)
        return None if value is None else not value
    values = [truth(one, item, columns) for one in rule.rules]
    decides = isinstance(rule, Disjunction)
    return decides if decides in values else None if None in values else not decides


@given(catalog_and_rules(), st.data())
def test_joined_rules_are_true_false_or_open_for_each_item(
    case: tuple[Catalog, list[Predicate]], data: st.DataObject
) -> None:
    catalog, leaves = case
    columns = Columns(catalog)
    rule = data.draw(composed(st.sampled_from(leaves)))
    values = [truth(rule, item, columns) for item in catalog]
    assert columns.allowed([rule]).tolist() == [value is True for value in values]
    assert columns.allowed([rule], or_unknown=True).tolist() == [value is not False for value in values]
    assert columns.allowed([Negation(rule)]).tolist() == [value is False for value in values]


WRITTEN = st.text(st.sampled_from("ab =<>!~()\"'\\ néornt"), min_size=1, max_size=8)
PREDICATES = st.builds(
    Predicate, WRITTEN.filter(str.strip), st.sampled_from(OPERATORS["string"]), WRITTEN.filter(str.strip)
)  # type: ignore[arg-type]


@given(composed(PREDICATES))
def test_a_rule_reads_back_as_it_is_written(rule: Rule) -> None:
    assert parse_where(str(rule)) == rule


@given(st.text(st.sampled_from("yea r>=<!~()'\"\\ andortcis1"), max_size=30))
def test_any_text_is_a_rule_or_a_usage_error(text: str) -> None:
    try:
        rule = parse_where(text)
    except UsageError as error:
        assert "at character" in str(error) and len(str(error)) < 400
    else:
        assert parse_where(str(rule)) == rule


@given(catalog_and_rules())
def test_a_negation_splits_the_known_values(case: tuple[Catalog, list[Predicate]]) -> None:
    catalog, rules = case
    columns = Columns(catalog)
    for rule in rules:
        known = [rule.column in item.facts for item in catalog]
        equal = columns.allowed([Predicate(rule.column, "=", rule.value)])
        unequal = columns.allowed([Predicate(rule.column, "!=", rule.value)])
        assert (equal ^ unequal == known).all()


def test_a_filter_over_seven_thousand_items_takes_milliseconds() -> None:
    facts: list[dict[str, Any]] = [{"year": 1950 + n % 70, "genres": [f"g{n % 9}", f"g{n % 11}"]} for n in range(7000)]
    catalog = Catalog(
        [Item(str(n), f"Film {n}", f) for n, f in enumerate(facts)], {"year": "integer", "genres": "list"}
    )
    columns = Columns(catalog)
    rules = [parse_where(rule) for rule in ("year>=1980", "genre=g1", "genre!=g2", "title~film")]
    columns.allowed(rules)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        columns.allowed(rules, exclude=["5"])
        took.append(time.perf_counter() - start)
    assert min(took) < 0.02
