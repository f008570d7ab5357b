"""`gcrs eval` through the command line on the toy bundle: reports, comparison, refusals, promises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gcrs.cli import main
from gcrs.toolkit.dialogue.turns import Dialogue, Turn, write_dialogues
from toys import toy_dialogues

KEYS = ["protocol", "mode", "n", "data", "rows"]


def talks(count: int = 6) -> list[Dialogue]:
    """Dialogues that the toy bundle never saw; the third item of each is a repeat."""
    out = []
    for n in range(count):
        a, b = f"m{n + 1:02}", f"m{n + 4:02}"
        turns = (
            Turn("user", f"Number {n}: I liked <item:{a}>"),
            Turn("assistant", f"Then see <item:{b}>, from 1999."),
            Turn("user", "Seen it"),
            Turn("assistant", f"And <item:{a}> again?"),
            Turn("user", "bye"),
            Turn("assistant", "Bye!"),
        )
        out.append(Dialogue(f"v{n}", turns))
    return out


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eval") / "valid.jsonl"
    write_dialogues(talks(), path)
    return path


def flags(bundle: Path, valid: Path, *more: str) -> list[str]:
    return ["eval", "--bundle", str(bundle), "--dialogues", str(valid), "--workers", "1", *more]


@pytest.fixture(scope="module")
def reports(toy_bundle: Path, valid: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two equal runs, the second in two processes."""
    root = tmp_path_factory.mktemp("reports")
    train = str(toy_bundle.parent / "train.jsonl")
    names = ["--baselines", "popularity,copier,co-mention,bm25", "--train", train, "--replies", "4", "--seeds", "2"]
    for name, workers in (("one", "1"), ("two", "2")):
        assert main(flags(toy_bundle, valid, *names, "--report", str(root / name), "--workers", workers)) == 0
    return [root / "one", root / "two"]


def test_two_runs_agree_byte_for_byte(reports: list[Path]) -> None:
    one, two = reports
    assert sorted(path.name for path in one.iterdir()) == ["cases.jsonl", "page.html", "report.json"]
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_the_report_holds_every_protocol_and_mode_on_the_same_cases(reports: list[Path], valid: Path) -> None:
    report = json.loads((reports[0] / "report.json").read_text(encoding="utf-8"))
    assert list(report)[:5] == KEYS and (report["protocol"], report["mode"], report["n"]) == ("all", "forced", 12)
    assert {name: held["n"] for name, held in report["protocols"].items()}["new"] == 6
    assert report["protocols"]["cold"]["n"] < 6
    for held in report["protocols"].values():
        for mode in ("forced", "free"):
            assert [row["name"] for row in held[mode]] == ["model", "popularity", "copier", "co-mention", "bm25"]
            assert all(row["n"] == held["n"] for row in held[mode])
    model, popularity, copier, *_ = report["rows"]
    assert report["rows"] == report["protocols"]["all"]["forced"] and model["role"] == "model"
    assert 0 <= model["recall@1"]["lo"] <= model["recall@1"]["value"] <= model["recall@1"]["hi"] <= 1
    assert model["recall@50"]["value"] == 1 and copier["recall@10"]["value"] == 0.5  # 12 items; half are repeats
    assert popularity["against"] == "model" and "p" in popularity["difference"]["recall@10"]
    assert report["protocols"]["new"]["forced"][2]["recall@50"]["value"] == 0  # nothing is left to copy
    assert report["intent"]["n"] == 18 and report["intent"]["gold_recommend"] == 12
    assert report["likelihood"]["words"]["tokens"] > 0 and report["likelihood"]["words"]["bits_per_byte"] > 0
    assert report["written"]["n"] == 4 and report["written"]["seeds"]["n"] == 2 and "copied" in report["written"]
    assert report["original_ids"]["all"]["n"] == 12 and set(report["data"]) == {"valid.jsonl", "train.jsonl"}
    assert "seconds" not in json.dumps(report) and str(valid.parent) not in json.dumps(report)
    lines = [json.loads(line) for line in (reports[0] / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 12 and lines[0]["gold"] == "m04" and not lines[0]["repeat"]
    assert set(lines[1]["ranks"]) == {"all"} and set(lines[0]["ranks"]["all"]) >= {"model", "model (free)", "bm25"}


def test_the_page_stands_alone(reports: list[Path]) -> None:
    page = (reports[0] / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5 and page.count("Ours (") == 4  # the written replies
    missed = page[page.index("Where the target step fails") :]
    assert 1 <= missed.count("First instead:") <= 10 and re.search(r"<code>&lt;a_\d+&gt;", missed)
    assert page.count("model (free)") == 3
    assert not re.search(r'(?:src|href)="(?!#)', page.replace("xlink:href", "href")) and "<script" not in page
    assert "protocol all" in page and "original ids" in page


def test_json_and_a_comparison_with_the_same_cases(
    toy_bundle: Path, valid: Path, reports: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = flags(
        toy_bundle, valid, "--json", "--replies", "0", "--compare", str(reports[0] / "report.json"), "--beams", "9"
    )
    assert main([*run, "--protocol", "new", "--mode", "free"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert list(report)[:5] == KEYS and (report["protocol"], report["mode"], report["n"]) == ("new", "free", 6)
    assert report["written"] is None
    rows = {row["name"]: row for row in report["compare"]["protocols"]["all"]}
    assert set(rows) == {"model", "popularity", "copier", "model (free)"}
    assert rows["model"]["recall@1"]["difference"] == {"value": 0.0, "lo": 0.0, "hi": 0.0, "p": 1.0}
    assert {one["what"]: (one["this"], one["other"]) for one in report["compare"]["differs"]} == {
        "popularity": ("the bundle's own counts", "counted on --train"),
        "beams": (9, 60),
        "training file train.jsonl": (
            None,
            json.loads((reports[0] / "report.json").read_text())["data"]["train.jsonl"][:12],
        ),
    }
    assert report["compare"]["not_compared"] == {} and set(report["compare"]["protocols"]) == {"all", "new", "cold"}
    assert re.fullmatch(r"\d+ s\n", printed.err)


def test_other_cold_items_are_not_compared(
    toy_bundle: Path, valid: Path, reports: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = "".join(f"<item:m{n:02}>" for n in range(1, 13))
    write_dialogues([Dialogue("t", (Turn("user", every), Turn("assistant", "ok")))], tmp_path / "all.jsonl")
    there = json.loads((reports[0] / "report.json").read_text())["protocols"]["cold"]["n"]
    assert there > 0  # talks() has items that the toy bundle's training does not mention
    run = flags(
        toy_bundle, valid, "--train", str(tmp_path / "all.jsonl"), "--replies", "0", "--compare", str(reports[0])
    )
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert f"cold: not compared (other cases, 0 here and {there} there" in printed and "  new, model, R@1" in printed


def test_another_runs_cases_are_refused(
    toy_bundle: Path, valid: Path, reports: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    less = flags(toy_bundle, valid, "--replies", "0", "--limit", "2")
    assert main([*less, "--compare", str(reports[0])]) == 3
    error = capsys.readouterr().err
    assert "scored other cases" in error and error.count("\n") == 1
    (tmp_path / "report.json").write_text((reports[0] / "report.json").read_text(encoding="utf-8"), encoding="utf-8")
    assert main(flags(toy_bundle, valid, "--compare", str(tmp_path / "report.json"))) == 3
    assert "has no cases.jsonl beside it" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    assert main(flags(toy_bundle, valid, "--compare", str(tmp_path / "other.json"))) == 3
    assert "is no report of an evaluation" in capsys.readouterr().err


def test_training_data_is_refused_unless_forced(
    toy_bundle: Path, valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = toy_bundle.parent / "train.jsonl"
    assert main(flags(toy_bundle, trained, "--replies", "0")) == 3
    assert "is training data of this bundle" in capsys.readouterr().err
    assert main(flags(toy_bundle, valid, "--replies", "0", "--train", str(valid))) == 3
    assert "is the --train file valid.jsonl" in capsys.readouterr().err
    write_dialogues([*toy_dialogues()[:1], *talks(1)], tmp_path / "mixed.jsonl")
    mixed = flags(toy_bundle, tmp_path / "mixed.jsonl", "--replies", "0", "--train", str(trained))
    assert main(mixed) == 3
    assert "1 of the 2 dialogues" in capsys.readouterr().err
    assert main([*mixed, "--force", "--json"]) == 0
    forced = json.loads(capsys.readouterr().out)
    assert forced["settings"]["forced_on_training_data"] is True
    assert forced["overlap"] == {"file": None, "file_of_bundle": False, "dialogues": 1}


def test_what_training_has_seen_stands_by_the_scores(
    toy_bundle: Path, valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = toy_bundle.parent / "train.jsonl"
    write_dialogues([*toy_dialogues()[:1], *talks(1)], tmp_path / "mixed.jsonl")
    for dialogues, more, words in (
        (valid, [], "its dialogues were not compared (--train FILE does)"),
        (valid, ["--force", "--train", str(trained)], "overlap with training: none, by the file's hash and by each"),
        (tmp_path / "mixed.jsonl", ["--force", "--train", str(trained)], "FORCED: 1 of the 2 dialogues stand"),
        (trained, ["--force"], "FORCED: this file is training data of this bundle"),
    ):
        assert main(flags(toy_bundle, dialogues, "--replies", "0", "--report", str(tmp_path / "out"), *more)) == 0
        assert words in capsys.readouterr().out and words in (tmp_path / "out/page.html").read_text().replace(
            "&#x27;", "'"
        )
        report = json.loads((tmp_path / "out/report.json").read_text())
        assert report["settings"]["forced_on_training_data"] is words.startswith("FORCED")


def test_a_protocol_without_cases_has_no_scores(
    toy_bundle: Path, valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = flags(toy_bundle, valid, "--protocol", "cold", "--train", str(valid), "--force", "--replies", "0")
    assert main([*run, "--report", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "n = 0 cases" in printed and re.search(r"^model +-( +-){5}$", printed, re.MULTILINE)
    model, popularity = json.loads((tmp_path / "out/report.json").read_text())["rows"][:2]
    assert model["n"] == 0 and model["recall@1"] == {"value": None, "lo": None, "hi": None}
    assert "difference" not in popularity


def test_a_place_that_cannot_hold_a_report_is_refused_first(
    toy_bundle: Path, valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for place in ("file", "file/out"):
        assert main(flags(toy_bundle, valid, "--report", str(tmp_path / place))) == 2
        captured = capsys.readouterr()
        assert "is no directory" in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_bad_input_is_one_sentence(
    toy_bundle: Path, valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dialogues([Dialogue("x", (Turn("user", "hi"), Turn("assistant", "hello")))], tmp_path / "none.jsonl")
    for more, code, words in (
        (flags(toy_bundle, tmp_path / "none.jsonl"), 3, "has no reply to score"),
        (flags(toy_bundle, tmp_path / "missing.jsonl"), 3, "does not exist"),
        (flags(toy_bundle, valid, "--baselines", "co-mention"), 2, "--train FILE"),
        (flags(toy_bundle, valid, "--baselines", "mystery"), 2, "no baseline 'mystery'"),
        (flags(toy_bundle, valid, "--baselines", "zero-shot"), 2, "--zero-shot-lm NAME"),
        (flags(toy_bundle, valid, "--api-base", "http://localhost:1"), 2, "--zero-shot-lm"),
        (flags(toy_bundle, valid, "--limit", "0"), 2, "--limit is 0"),
        (flags(toy_bundle, valid, "--device", "cuda:99"), 2, "but torch finds"),
        (flags(toy_bundle, valid, "--device", "quantum"), 2, "expected cpu, cuda"),
    ):
        assert main(more) == code
        captured = capsys.readouterr()
        assert words in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_strict_and_items_outside_the_catalogue(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "unknown.jsonl"
    strange = Dialogue("s", (Turn("user", "hm"), Turn("assistant", "See <item:nobody> or <item:m02>")))
    write_dialogues([*talks(2), strange], path)
    run = flags(toy_bundle, path, "--replies", "2", "--strict")
    assert main(run) == 1
    captured = capsys.readouterr()
    assert "gold items outside the catalogue: 1 cases, counted as misses (nobody)" in captured.out
    assert "A promise is broken: 1 cases whose gold item is outside the catalogue" in captured.err
    assert "n = 6 cases" in captured.out and "promises broken: gold_outside 1" in captured.out
    assert main([*run, "--skip-unknown"]) == 0
    printed = capsys.readouterr().out
    assert "n = 5 cases" in printed and "left out" in printed and "promises broken: none" in printed


def test_items_left_out_are_no_targets(toy_bundle: Path, tmp_path: Path) -> None:
    """A reply whose items are all outside the catalogue is a miss of the target step, unless they are left out."""
    path = tmp_path / "unknown.jsonl"
    strange = Dialogue("s", (Turn("user", "hm"), Turn("assistant", "See <item:nobody>")))
    write_dialogues([*talks(2), strange], path)
    found = []
    for n, more in enumerate(([], ["--skip-unknown"])):
        assert main([*flags(toy_bundle, path, "--replies", "0", *more), "--report", str(tmp_path / str(n))]) == 0
        found.append(json.loads((tmp_path / str(n) / "report.json").read_text())["target"])
    assert [one["n"] for one in found] == [5, 4]
    assert sum(found[0]["leaves_gold_at"].values()) == sum(found[1]["leaves_gold_at"].values()) == 4
    assert found[0]["calibration"] != found[1]["calibration"]


@pytest.fixture
def other_model() -> Iterator[str]:
    """A server that speaks the chat-completions protocol and recommends Heat, or a film that does not exist."""

    class Answer(BaseHTTPRequestHandler):
        count = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            Answer.count += 1
            title = "Heat (1995)" if Answer.count % 2 else "A Film Nobody Made (2031)"
            said = f"[[ ## target ## ]]\n{title}\n\n[[ ## completed ## ]]"
            message = {"role": "assistant", "content": said}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            data = json.dumps(body | {"usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_another_model_zero_shot_on_a_sample(
    toy_bundle: Path, valid: Path, other_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--baselines", "none", "--zero-shot-lm", "openai/m", "--api-base", other_model, "--sampled", "4"]
    assert main(flags(toy_bundle, valid, *more, "--replies", "0", "--json")) == 0
    model, row = json.loads(capsys.readouterr().out)["rows"]
    assert (row["name"], row["n"], model["n"]) == ("zero-shot", 4, 12) and row["outside_the_catalogue"] == 2
    assert "recall@5" not in row and "recall@1" in row["difference"]
    assert main(flags(toy_bundle, valid, *more[:-4], "--api-base", "http://127.0.0.1:9/v1", "--replies", "0")) == 4
    assert "does not answer" in capsys.readouterr().err


def test_retrieve_then_generate_on_a_sample(
    toy_bundle: Path, valid: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    def encoded(texts: list[str], **_: object) -> np.ndarray:
        rows = [np.bincount([ord(c) % 8 for c in text], minlength=8) + 1.0 for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)

    monkeypatch.setattr("gcrs.toolkit.catalog.encoders.encode_texts", encoded)
    more = ["--baselines", "retrieve-then-generate", "--sampled", "3", "--replies", "0", "--json"]
    assert main(flags(toy_bundle, valid, *more)) == 0
    model, row = json.loads(capsys.readouterr().out)["rows"]
    assert (row["name"], row["n"], model["n"]) == ("retrieve-then-generate", 3, 12)
    assert row["recall@50"]["value"] == 1 and "sampled" in row["about"]


def test_a_report_goes_into_a_bundles_card(reports: list[Path], toy_bundle: Path, tmp_path: Path) -> None:
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.described import EVALUATION, describe

    describe(Bundle.load(toy_bundle), tmp_path / "scored", scores=reports[0] / "report.json")
    held = json.loads((tmp_path / "scored" / EVALUATION).read_text(encoding="utf-8"))
    assert held["replies"] == 12 and list(held["data"]) == ["valid.jsonl"]
    assert [(t["protocol"], t["name"], t["n"]) for t in held["tables"]][:2] == [
        ("all", "model", 12),
        ("all", "popularity", 12),
    ]
    assert "n = 12:" in (tmp_path / "scored" / "README.md").read_text(encoding="utf-8")
