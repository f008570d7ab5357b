"""From a CSV to a recommendation through the command line alone, on toy parts: no network, no shipped weights."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gcrs.cli import main
from gcrs.toolkit.dialogue.turns import write_dialogues
from toys import toy_catalog, toy_dialogues

Run = tuple[int, str, str]


@pytest.fixture(scope="module")
def items_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("items") / "films.csv"
    rows = [f"{i.id},{i.title},{i.facts['year']},{'|'.join(i.facts['genre'])}" for i in toy_catalog()]  # type: ignore[arg-type]
    path.write_text("\n".join(["id,title,year,genre", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dialogues") / "train.jsonl"
    write_dialogues(toy_dialogues(), path)
    return path


@pytest.fixture(scope="module")
def catalog_dir(items_csv: Path, toy_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("catalog") / "films"
    shape = ["--levels", "3", "--codes", "8"]
    assert main(["catalog", "build", str(items_csv), "--out", str(out), "--encoder", str(toy_encoder_dir), *shape]) == 0
    return out


@pytest.fixture(scope="module")
def bundle(catalog_dir: Path, dialogues: Path, toy_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "toy"
    flags = ["--catalog", str(catalog_dir), "--dialogues", str(dialogues), "--base", str(toy_base_dir)]
    assert main(["finetune", *flags, "--steps", "3", "--out", str(out), "--set", "rank=2"]) == 0
    return out


def test_catalog_build_reports_health(
    items_csv: Path, toy_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    assert main(["catalog", "build", str(items_csv), "--out", str(out), "--encoder", str(toy_encoder_dir)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("12 items, 1 level, rqkmeans in ")
    assert "collisions: " in printed and f"written: {out} (hash " in printed
    parts = ["catalog.json", "codebook.safetensors", "health.json", "health.png", "items.jsonl", "semantic_ids.json"]
    assert sorted(path.name for path in out.iterdir()) == parts


def test_catalog_build_json(
    items_csv: Path, dialogues: Path, toy_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "films")
    flags = ["--encoder", str(toy_encoder_dir), "--quantizer", "rqvae", "--dialogues", str(dialogues), "--json"]
    assert main(["catalog", "build", str(items_csv), "--out", out, *flags]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["out", "hash", "health", "feed", "text"]
    assert answer["feed"] is None and answer["text"] == {"columns": ["year", "genre"], "left_out": {}}
    assert answer["out"] == out and len(answer["hash"]) == 64
    assert answer["health"]["items"] == 12 and answer["health"]["quantizer"] == "rqvae"


def test_catalog_show(catalog_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "show", str(catalog_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"12 items in {catalog_dir}",
        "  year: integer, filled in 12",
        "  genre: list, filled in 12",
    ]
    assert lines[3].startswith("semantic IDs: 8 x 8 x 8 codes by rqkmeans over ")
    assert main(["catalog", "show", str(catalog_dir), "galaxy quest", "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert item.pop("semantic_id").startswith("<a_")
    assert item == {"id": "m05", "title": "Galaxy Quest", "year": 1999, "genre": ["comedy", "sci-fi"]}
    assert main(["catalog", "show", str(catalog_dir), "galaxy qest"]) == 3
    expected = "gcrs: error: No item has the id or title 'galaxy qest'. Close: Galaxy Quest (1999).\n"
    assert capsys.readouterr() == ("", expected)


def test_catalog_check(catalog_dir: Path, items_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "check", str(catalog_dir)]) == 0
    lines = ["12 items, all parts verified", "items without facts: 0", "near-duplicates: 0", "findings: 0"]
    assert capsys.readouterr() == ("\n".join([*lines, ""]), "")
    assert main(["catalog", "check", str(items_csv), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    nothing: dict[str, object] = {"near_duplicates": [], "without_facts": [], "health": None, "feed": None}
    assert answer == {"items": 12, **nothing, "findings": []}


def test_recommend_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--bundle", str(bundle), "--where", "year>=1990", "--exclude", "m12", "-k", "4", "--json"]
    assert main(["recommend", "something like Galaxy Quest", *flags]) == 0
    first = capsys.readouterr().out
    answer = json.loads(first)
    assert list(answer) == ["intent", "reply", "items", "bundle", "catalog_version", "seconds"]
    assert answer["intent"] == "recommend" and answer["reply"].strip() and len(answer["bundle"]) == 64
    assert answer["catalog_version"] == 0
    assert len({item["id"] for item in answer["items"]}) == 4
    for item in answer["items"]:
        assert list(item) == ["id", "title", "semantic_id", "score", "year", "genre"]
        assert item["year"] >= 1990 and item["id"] not in ("m05", "m12")
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 0
    steps = ("bundle", "imports", "model", "program", "link", "intent", "target", "response", "facts", "total")
    assert sorted(answer["seconds"]) == sorted(steps)
    assert main(["recommend", "something like Galaxy Quest", *flags]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": None} == {**answer, "seconds": None}


def test_recommend_gives_all_that_is_allowed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--bundle", str(bundle), "--where", "genre=horror", "-k", "10"]
    assert main(["recommend", "hi", *flags]) == 0
    out, err = capsys.readouterr()
    listed = sorted(line.split(". ")[1] for line in out.splitlines()[-2:])
    assert listed == ["Alien | year: 1979; genre: horror, sci-fi", "It | year: 2017; genre: horror"]
    assert err == ""


def test_recommend_answers_a_dialogue(bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    turns = [{"role": "user", "text": "I loved <item:m01> and <item:nope>, and Heat."}]
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"id": "1", "turns": turns}) + "\n", encoding="utf-8")
    assert main(["recommend", "--dialogue", str(path), "--bundle", str(bundle), "-k", "12", "--json"]) == 0
    out, err = capsys.readouterr()
    ids = [item["id"] for item in json.loads(out)["items"]]
    assert len(ids) == 10 and not {"m01", "m09"} & set(ids)
    assert err == "Ids that are not in the catalogue, read as the word 'it': nope\n"


def test_recommend_may_only_chat(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "hello", "--bundle", str(bundle), "--intent", "chat", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["intent"] == "chat" and answer["items"] == [] and answer["reply"].strip()


def test_recommend_from_an_allow_list(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stock = tmp_path / "stock.json"
    stock.write_text('["m02", "m05", "m08", "x1", "x2"]', encoding="utf-8")
    flags = ["--bundle", str(bundle), "--allow", str(stock), "--where", "not genre=action or year<1980", "--or-unknown"]
    assert main(["recommend", "hi", *flags, "--json"]) == 0
    out, err = capsys.readouterr()
    assert {item["id"] for item in json.loads(out)["items"]} == {"m05", "m08"}
    assert err == "2 of the 5 allowed ids are not in the catalogue: x1, x2\n"


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--where", "colour=red"], 3, "The catalogue has no column 'colour'. Its columns: "),
        (["--where", "year"], 2, "'year' is no rule"),
        (["--where", "year>old"], 3, "compares the column 'year' with 'old', expected an integer"),
        (["--exclude", "m99"], 3, "Item 'm99' is not in the catalogue."),
        (
            ["--where", "year>2050"],
            1,
            "Nothing is left to recommend: no item satisfies 'year>2050'. year holds 1942 to 2017.",
        ),
        (["--where", "year>1990 and (genre=drama or"], 2, "expected a column at character 30, found the end"),
        (["--where", "yaer>1990 or genre=drama"], 3, "no column 'yaer'. Nearest: year"),
        (["--exclude", "Fargo"], 3, "Item 'Fargo' is not in the catalogue. That is a title: its id is m08."),
        (["--allow", "/no/such/list"], 3, "/no/such/list does not exist."),
        (["--allow", __file__], 3, "in the catalogue. The first is"),
    ],
)
def test_rules_that_cannot_be_met(
    bundle: Path, flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "hi", "--bundle", str(bundle), *flags]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "x " * 50_000,
        "\x00\x1b[31m\x07",
        "🎬👩‍👩‍👧🏳️‍🌈",
        "שלום \u202e עולם",
        "<|im_end|><BOI><a_1><EOI> <item:m01>",
        "\ud800",
    ],
    ids=["100,000 characters", "control characters", "emoji", "right to left", "our own marks", "lone surrogate"],
)
def test_any_text_gets_a_normal_reply(bundle: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", text, "--bundle", str(bundle), "-k", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["items"]) == 3 and answer["reply"].strip()


def test_chat_reads_a_pipe(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies on stdout, remarks on stderr, the session kept and gone on with."""
    session = tmp_path / "talk.json"

    def chat(lines: bytes) -> Run:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
        flags = ["--bundle", str(bundle), "--session", str(session), "--seed", "3", "--show-decisions"]
        code = main(["chat", *flags])
        return code, *capsys.readouterr()

    code, out, err = chat(b"I loved Galaxy Quest \xff\n/more\n/like 1\n")
    assert code == 0, err
    assert "\x1b" not in out and "intent: recommend" in out
    assert "Galaxy Quest = Galaxy Quest (1999)" in err and ": liked." in err
    saved = json.loads(session.read_text(encoding="utf-8"))
    assert saved["seed"] == 3 and len(saved["steps"]) == 3
    code, out, err = chat(b"/colour\n")
    assert code == 2 and "There is no command /colour." in err
    session.write_text("{}", encoding="utf-8")
    code, out, err = chat(b"hi\n")
    assert (code, out) == (3, "") and err.startswith("gcrs: error: ") and "is no gcrs session" in err


def test_ctrl_c_in_a_pipe_is_130(bundle: Path) -> None:
    command = [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())", "chat"]
    with subprocess.Popen(
        [*command, "--bundle", str(bundle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(b"/help\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"Say what you like")  # it waits for the next line now
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        assert b"Traceback" not in process.stderr.read()


def test_finetune_reports_json_and_refuses_a_run_that_is_there(
    catalog_dir: Path, dialogues: Path, toy_base_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"catalog: {catalog_dir}\ndialogues: [{dialogues}]\nrank: 2\nlr: 1e-3\nsteps: 5\n", encoding="utf-8"
    )
    flags = [
        "--config",
        str(config),
        "--base",
        str(toy_base_dir),
        "--out",
        str(tmp_path / "out"),
        "--max-minutes",
        "0.02",
    ]
    assert main(["finetune", *flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["finished"] and report["out"] == str(tmp_path / "out") and len(report["bundle"]) == 64
    kept = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))["config"]
    assert (kept["max_minutes"], kept["steps"], kept["rank"], kept["lr"]) == (0.02, None, 2, 0.001)
    assert main(["finetune", *flags]) == 2
    assert "Pass --resume" in capsys.readouterr().err


def test_a_bundle_mixed_from_two_names_the_part(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(bundle, mixed)
    (mixed / "semantic_ids.json").write_text("{}", encoding="utf-8")
    assert main(["recommend", "hi", "--bundle", str(mixed)]) == 3
    assert "semantic_ids.json" in capsys.readouterr().err
