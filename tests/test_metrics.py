"""Recall, its interval, cases and baselines, by hand."""

from __future__ import annotations

from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.eval.baselines import copier_ranking, mention_counts, popularity_ranking
from gcrs.toolkit.eval.cases import contexts
from gcrs.toolkit.eval.metrics import rank_of, recall


def test_recall_by_hand() -> None:
    ranks = [1, 0, 3, 10]
    assert recall(ranks, 1).value == 0.25
    assert recall(ranks, 3).value == 0.5
    assert recall(ranks, 10).value == 0.75
    assert recall([], 1).n == 0
    assert rank_of("b", ["a", "b"]) == 2 and rank_of("z", ["a"]) == 0


def test_interval_holds_the_value_and_widens_when_cases_come_in_clusters() -> None:
    ranks = [1, 0] * 50
    free = recall(ranks, 1)
    assert free.lo < 0.5 < free.hi
    clustered = recall([1] * 50 + [0] * 50, 1, [str(n // 10) for n in range(100)])
    assert clustered.value == 0.5 and clustered.hi - clustered.lo > free.hi - free.lo
    assert recall(ranks, 1, seed=3) == recall(ranks, 1, seed=3)


def test_cases_and_baselines_by_hand() -> None:
    talk = Dialogue(
        "d",
        (
            Turn("user", "I like <item:a>"),
            Turn("assistant", "<item:b> then, or <item:a> again"),
            Turn("user", "no"),
            Turn("assistant", "bye"),
        ),
    )
    (only,) = contexts([talk])
    assert only.gold == ("b", "a") and only.repeats == {"a"} and len(only.dialogue) == 1
    assert copier_ranking(talk) == ["a", "b"]
    counts = mention_counts([talk])
    assert counts == {"a": 2, "b": 1}
    assert popularity_ranking(counts, 5, frozenset({"a"})) == ["b"]
    assert mention_counts([talk], assistant_only=True) == {"a": 1, "b": 1}
