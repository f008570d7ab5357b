"""Every metric of an evaluation against a sum done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.eval.base_picks import candidates_of, continuations, reordered, transcript
from gcrs.toolkit.eval.baselines import CoMentions
from gcrs.toolkit.eval.claims import Claim, Claims, count_claims
from gcrs.toolkit.eval.config import BASELINES, EvalConfig, baseline_names
from gcrs.toolkit.eval.decisions import bits_per_byte, intent_scores, perplexity
from gcrs.toolkit.eval.metrics import Resampling, mrr_at, ndcg_at, recall, recall_at
from gcrs.toolkit.eval.replies import Written, measure, over_seeds
from gcrs.toolkit.eval.retrieval import bm25_rankings, dialogue_text, newest_text
from gcrs.toolkit.eval.significance import paired
from gcrs.toolkit.eval.spread import (
    BANDS,
    band_of,
    breadth,
    by_band,
    calibration,
    coverage,
    failing_level,
    gini,
    recommended_counts,
)  # fmt: skip
from gcrs.toolkit.eval.table import Row, table
from gcrs.toolkit.eval.text_metrics import bleu, distinct, longest_copies, masked, tokens_of

RANKS = [1, 0, 3, 10]


def test_recall_ndcg_and_mrr() -> None:
    assert recall_at(RANKS, 3).tolist() == [1, 0, 1, 0]
    assert ndcg_at(RANKS, 10) == pytest.approx([1, 0, 1 / 2, 1 / math.log2(11)])
    assert ndcg_at(RANKS, 3).tolist() == [1, 0, 0.5, 0]
    assert mrr_at(RANKS, 10) == pytest.approx([1, 0, 1 / 3, 1 / 10]) and mrr_at(RANKS, 1).tolist() == [1, 0, 0, 0]


def test_an_interval_is_that_of_drawing_whole_dialogues() -> None:
    """Two dialogues of unequal length: a draw is one of aa, ab, ba, bb, so the mean is 1, 1/3 or 0."""
    drawn = Resampling(["a", "b", "b"], seed=1, draws=500)
    means = drawn.means(np.array([1.0, 0.0, 0.0]))
    assert set(np.round(means, 6)) == {1.0, 0.333333, 0.0} and 0.15 < (means == 1).mean() < 0.35
    found = drawn.estimate(np.array([1.0, 0.0, 0.0]))
    assert (found.value, found.lo, found.hi, found.n) == (pytest.approx(1 / 3), 0.0, 1.0, 3)
    assert recall(RANKS, 3, list("aabb"), seed=5) == recall(RANKS, 3, list("aabb"), seed=5)


def test_a_paired_difference_and_its_p() -> None:
    ones, zeros = np.ones(3), np.zeros(3)
    drawn = Resampling(list("abc"))
    found = paired(ones, zeros, drawn)
    assert (found.value, found.lo, found.hi, found.n) == (1.0, 1.0, 1.0, 3)
    assert found.p == pytest.approx(2 / 8, abs=0.02)  # all three must flip the same way
    assert paired(ones, ones, drawn).p == 1.0
    clustered = paired(ones, zeros, Resampling(list("aaa")))
    assert clustered.p == 1.0  # one dialogue says nothing
    assert paired(np.zeros(0), np.zeros(0), Resampling([])).n == 0


def test_a_row_over_some_cases_is_compared_on_those() -> None:
    rows = [
        Row("model", "model", "", {"all": [1, 2, 0]}),
        Row("few", "baseline", "", {"all": [2, None, 0]}, ("recall@1",)),
    ]
    one, few = table(rows, "all", list("abc"), seed=0)
    assert one["n"] == 3 and one["recall@1"]["value"] == pytest.approx(1 / 3) and one["mrr@5"]["value"] == 0.5
    assert few["n"] == 2 and few["against"] == "model" and set(few["difference"]) == {"recall@1"}
    assert few["difference"]["recall@1"]["value"] == -0.5 and "recall@5" not in few


def test_intent_accuracy_precision_and_recall() -> None:
    found = intent_scores([True, True, False, False], [True, False, True, False], list("abcd"), seed=0)
    assert [found[name]["value"] for name in ("accuracy", "precision", "recall")] == [0.5, 0.5, 0.5]
    assert [found[name]["n"] for name in ("accuracy", "precision", "recall")] == [4, 2, 2]
    assert intent_scores([False], [False], ["a"], seed=0)["precision"]["n"] == 0


def test_perplexity_and_bits_per_byte() -> None:
    assert perplexity(4 * math.log(2), 4) == pytest.approx(2) and perplexity(0.0, 0) is None
    assert bits_per_byte(8 * math.log(2), 16) == pytest.approx(0.5) and bits_per_byte(1.0, 0) is None


def test_coverage_gini_and_bands() -> None:
    assert coverage([["a", "b"], ["a"]], 4) == 0.5 and recommended_counts([["a", "b"], ["a"]]) == [2, 1]
    assert gini([1, 1], 2) == 0 and gini([3], 3) == pytest.approx(2 / 3) and gini([], 3) == 0
    assert gini([2, 1], 4) == pytest.approx((1 * 1 + 3 * 2) / (4 * 3))  # places 3 and 4 weigh 2n-5: 1 and 3
    assert [band_of(n, BANDS) for n in (0, 9, 10, 5000)] == ["0", "1-9", "10-49", "200+"]
    rows = {"model": np.array([1.0, 0.0, 1.0]), "copier": np.zeros(3)}
    found = by_band(rows, [0, 0, 60], BANDS, ["x", "y", "y"])
    assert found[0]["n"] == 2 and found[0]["rows"]["model"] == {"value": 0.5, "lo": 0.0, "hi": 1.0}
    assert found[0]["rows"]["copier"] == {"value": 0.0, "lo": 0.0, "hi": 0.0}
    assert found[3]["rows"]["model"]["value"] == 1.0 and found[1]["rows"]["model"]["value"] is None
    assert breadth([["a", "b"], ["a"]], 4)["coverage@1"] == 0.25 and breadth([["a", "b"], ["a"]], 4)["gini@1"] == 0.75


def test_calibration_and_the_level_that_fails() -> None:
    found = calibration([0.1, 0.2, 0.8, 0.9], [False, False, True, False], bins=2)
    assert [(one["n"], round(one["probability"], 3), one["right"]) for one in found["bins"]] == [
        (2, 0.15, 0),
        (2, 0.85, 0.5),
    ]
    assert found["error"] == pytest.approx(0.5 * 0.15 + 0.5 * 0.35)
    assert failing_level((1, 2, 3), [(1, 2, 4), (0, 0, 0)]) == 2 and failing_level((1, 2, 3), [(1, 2, 3)]) == 3
    assert failing_level((1, 2, 3), [(9, 2, 3)]) == 0


def test_text_metrics() -> None:
    text = "Try <item:m01>, it's great"
    assert masked(text) == "Try <movie>, it's great"
    assert tokens_of(masked(text)) == ["try", "<movie>", ",", "it", "'", "s", "great"]
    assert distinct([["a", "b"], ["a", "b", "a"]], 1) == (2 / 5, 1.0)
    assert distinct([["a", "b"], ["a", "b", "a"]], 2) == (2 / 3, 1.0) and distinct([], 1) == (0.0, 0.0)
    same = ["see <movie> , it is good", "hello how are you today"]
    found = bleu(same, same)
    assert found["value"] == pytest.approx(100) and "tok:13a" in found["signature"]
    assert bleu(["no word in common"], ["see <movie> , it is good"])["value"] < 10
    training = [["a", "b", "c"], ["c", "d"]]
    assert longest_copies([["x", "a", "b", "c", "d"], ["b", "x"], ["z"]], training) == [3, 1, 0]


def catalog() -> Catalog:
    facts = {"year": 1979, "genres": ["horror", "science fiction"], "cast": ["Sigourney Weaver"]}
    items = [
        Item("a", "Alien", facts),
        Item("b", "Big", {"year": 1988, "genres": ["comedy"], "cast": ["Tom Hanks"]}),
        Item("c", "C"),
    ]
    return Catalog(items, {"year": "integer", "genres": "list", "cast": "list"})


def test_claims_by_hand() -> None:
    claims = Claims(catalog())
    said = claims.of(
        "<item:a> from 1979 is Science Fiction. Tom Hanks is in <item:a>! A comedy. <item:a> or <item:b>, 1999?"
    )
    assert said == [
        Claim("a", "year", "1979", True),
        Claim("a", "genres", "science fiction", True),
        Claim("a", "cast", "Tom Hanks", False),
    ]
    assert claims.of("<item:c> is a comedy with Tom Hanks of 1990") == []  # the catalogue knows nothing of it
    assert claims.of("<item:b> is from 1979") == [Claim("b", "year", "1979", False)]
    assert count_claims(said) == {
        "cast": {"stated": 1, "wrong": 1}, "genres": {"stated": 1, "wrong": 0}, "year": {"stated": 1, "wrong": 0},
    }  # fmt: skip


def written(text: str, targets: tuple[str, ...], gold: tuple[str, ...], **more: object) -> Written:
    intent = "recommend" if targets else "chat"
    head = {"dialogue": text, "turn": 1, "intent": intent, "targets": targets, "text": text, "gold": gold}
    rest = {"reference": "see <item:z>", "spoken_of": ("s",), "withheld": 0, "leaked": 0} | more
    return Written(**head, **rest)  # type: ignore[arg-type]


def test_replies_by_hand() -> None:
    replies = [
        written("see <item:a>", ("a",), ("a", "b")),  # right target, named
        written("see <item:s>", ("c",), ("s",), withheld=1),  # wrong target, but an item of the dialogue lands
        written("see <item:q>", ("d",), ("z",)),  # neither target nor of the dialogue: must never be
        written("hello", (), ()),
    ]
    found = measure(replies, [["see", "<movie>"]], seed=0)
    assert (found["n"], found["recommend"], found["non_empty"], found["repeat_another"]) == (4, 3, 4, 0)
    assert found["repeat_another_but_for_items"] == 2
    assert found["names_its_target"]["value"] == pytest.approx(1 / 3)
    assert found["target_precision"]["value"] == pytest.approx(1 / 3) and found["target_precision"]["n"] == 3
    assert found["lands_when_target_right"]["value"] == 1 and found["lands_when_target_wrong"]["value"] == 0.5
    assert (found["recommends_another_item"], found["names_another_of_the_dialogue"]) == (1, 2)
    assert (found["titles_withheld"], found["titles_leaked"]) == (1, 0)
    assert found["copied"] == {"longest": 2, "mean_longest": 1.5, "whole_replies": 3, "example": "see <movie>"}
    assert "copied" not in measure(replies, [], seed=0)
    assert over_seeds([found, found])["mean_tokens"] == {"mean": 1.75, "least": 1.75, "most": 1.75}


def test_co_mentions_by_hand() -> None:
    def talk(*items: str) -> Dialogue:
        return Dialogue("x", (Turn("user", " ".join(f"<item:{item}>" for item in items)),))

    held = CoMentions([talk("a", "b"), talk("a", "b", "c"), talk("a", "d"), talk("e", "e", "e")])
    assert held.ranking(["a"], 3) == ["b", "c", "d"]  # 2/13, 1/13, 1/13
    assert held.ranking(["b", "c"], 9)[:3] == ["a", "b", "c"]  # a: 2/12 + 1/11; b: 1/11; c: 1/12
    assert held.ranking([], 2) == ["a", "b"]


def test_retrieval_by_hand() -> None:
    texts = ["title: Alien | genres: horror", "title: Big | genres: comedy", "title: Heat"]
    found = bm25_rankings(texts, ["a", "b", "h"], ["a horror film", "", "comedy or horror alien"], [2, 2, 2])
    assert found == [["a"], [], ["a", "b"]]
    talk = Dialogue("x", (Turn("user", "I saw <item:a>"), Turn("assistant", "and <item:?>!")))
    assert dialogue_text(talk, {"a": "Alien (1979)"}) == "I saw Alien (1979)\nand it!"
    assert newest_text("one two three", 7) == "three" and newest_text("one", 7) == "one"


def test_the_base_model_reads_a_transcript_and_orders_candidates() -> None:
    import torch

    from gcrs.toolkit.model.cache import PrefixCache
    from toys import toy_model, toy_tokens

    talk = Dialogue("x", (Turn("user", "I saw <item:a>"), Turn("assistant", "Nice\nreally")))
    assert transcript(talk, {"a": "Alien"}).endswith(
        "User: I saw Alien\nRecommender: Nice really\nRecommender: You should try"
    )
    model = toy_model(toy_tokens())
    endings = [[5, 6, 7], [5], [9, 8]]
    with torch.no_grad():
        for ending, score in zip(endings, continuations(PrefixCache(model, 0), [1, 2, 3], endings), strict=True):
            logp = torch.log_softmax(model(torch.tensor([[1, 2, 3, *ending]])).logits[0].float(), dim=-1)
            want = sum(float(logp[2 + n, token]) for n, token in enumerate(ending)) / len(ending)
            assert score == pytest.approx(want, abs=1e-4)
    ranking = [str(n) for n in range(50)]
    chosen = candidates_of(ranking, ["0", "1"])
    assert chosen == ranking[:22] and candidates_of(ranking, []) == ranking[:20]
    assert reordered(["a", "b", "c"], ["a", "b"], [-2.0, -1.0]) == ["b", "a", "c"]


def test_settings_that_contradict_each_other_are_refused(tmp_path: object) -> None:
    from pathlib import Path

    def config(**changes: object) -> EvalConfig:
        return EvalConfig("toy", Path("d.jsonl"), **changes)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="--train FILE"):
        config(baselines=("co-mention",))
    with pytest.raises(UsageError, match="--zero-shot-lm and --api-base"):
        config(zero_shot_lm="openai/x")
    with pytest.raises(UsageError, match="--limit is 0"):
        config(limit=0)
    assert baseline_names("all", has_training=True) == (BASELINES, [])
    names, left_out = baseline_names("all", has_training=False)
    assert "co-mention" not in names and "--train FILE" in left_out[0]
    assert baseline_names("none", has_training=True) == ((), [])
    assert baseline_names("dense, popularity", has_training=False)[0] == ("popularity", "dense")
    with pytest.raises(UsageError, match="no baseline 'best'"):
        baseline_names("best", has_training=True)
