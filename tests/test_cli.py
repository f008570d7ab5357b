"""What the command line promises whatever the verb: help, exit codes, one sentence an error, results on stdout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gcrs.cli import main

HELP = """\
Usage: gcrs [OPTIONS] COMMAND [ARGS]...

  A generative conversational recommender over the catalogue that you bring.

Options:
  --version  Print the version and exit.
  --help     Show this message and exit.

Commands:
  finetune   Teach a model a catalogue, and dialogues if there are any.
  tune       Search the shares of the training data with short runs.
  export     Write bundle and base as one Hugging Face directory.
  push       Share a bundle: to a directory, or to the Hugging Face hub.
  pull       Fetch a bundle that was pushed; then --bundle finds it by name.
  chat       Talk with the recommender; reads lines from a pipe as well.
  recommend  The k best items and a reply for one message or dialogue.
  serve      Serve the recommender to programs, agents and browsers.
  batch      Answer a file of dialogues, by many workers, over kills.
  prove      Decode at random; fails unless every item is an allowed one.
  eval       Score a bundle on dialogues, beside baselines and another run.
  bench      What gcrs costs, each row beside a named baseline.
  doctor     Look after this machine; forecast a fine-tuning run.
  catalog    Build, show, check and change a catalogue with semantic IDs.
  data       Public data sets as gcrs dialogues.
"""
ITEMS = "id,title,year\n1,Alien,1979\n2,Heat,1995\n"


def gcrs(*arguments: str, cwd: Path | None = None, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", **env},
        timeout=240,
        check=False,
    )


def test_help_is_whole() -> None:
    done = gcrs("--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, HELP, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from gcrs import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"gcrs {__version__}\n", "")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gcrs.cli import main; main(['catalog', 'build', '--help']); heavy = set(sys.modules) & "
        "{'torch', 'transformers', 'chromadb', 'numpy', 'dspy', 'outlines', 'pyarrow', 'yaml'}; "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BUILD = ["catalog", "build", "x.csv", "--out", "y"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "No such option: --nonsense. See: gcrs --help"),
        (["talk"], "No such command 'talk'. See: gcrs --help"),
        (["catalog", "build"], "Missing argument 'ITEMS'. See: gcrs catalog build --help"),
        (
            [*BUILD, "--levels", "many"],
            "as an integer. See: gcrs catalog build --help",
        ),
        (
            [*BUILD, "--quantizer", "vq"],
            "'rqkmeans'. See: gcrs catalog build --help",
        ),
        (["recommend"], "Say what to answer, once. Pass either TEXT or --dialogue FILE."),
        (["recommend", "hi", "-k", "0"], "Input should be greater than or equal to 1. See: gcrs recommend --help"),
        (["finetune"], "--catalog is missing. Pass it, or name it in --config. See: gcrs finetune --help"),
        (["data", "prepare", "netflix", "x", "--out", "y"], "'movielens'. See: gcrs data prepare --help"),
        ([*BUILD, "--collaborative", "0.5"], "Pass --dialogues FILE."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_one_sentence_and_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and err.endswith(f"{message}\n") and err.count("\n") == 1


def test_without_a_verb_the_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Usage: gcrs")


BROKEN_ITEMS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "is empty, expected a header and at least one item."),
    "header only": ("a.csv", b"id,title\n", "holds no items."),
    "no title": ("a.csv", b"id,name\n1,x\n", "title"),
    "duplicate id": ("a.csv", b"id,title\n1,x\n1,y\n", "line 3, column 'id': found the id '1' a second time"),
    "mixed column": ("a.jsonl", b'{"id":1,"title":"x","n":1}\n{"id":2,"title":"y","n":"z"}\n', "line 2, column 'n'"),
    "truncated": ("a.jsonl", b'{"id":1,"title":"x"}\n{"id":2,"ti', "line 2: not valid JSON"),
    "not UTF-8": ("a.csv", b"id,title\n1,caf\xe9\n", "line 2: found the byte 0xe9"),
    "UTF-16": ("a.csv", "id,title\n1,x\n".encode("utf-16"), "is UTF-16 text, expected UTF-8."),
    "wrong type": ("a.csv", b"PK\x03\x04 a zip", "holds zip, expected text"),
    "truncated Parquet": ("a.parquet", b"PAR1 and then nothing", "Parquet"),
    "10 MB cell": (
        "a.csv",
        b"id,title,plot\n1,x," + b"y" * 10_000_000 + b"\n",
        "more than 1,000,000 characters",
    ),
    "unknown format": ("a.xlsx", b"x", "has the suffix .xlsx"),
}


@pytest.mark.parametrize("case", BROKEN_ITEMS)
def test_a_broken_catalogue_is_one_sentence_and_3(case: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, message = BROKEN_ITEMS[case]
    Path(name).write_bytes(content)
    assert main(["catalog", "build", name, "--out", "out"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and message in err and err.count("\n") == 1 and len(err) < 400
    assert sorted(path.name for path in in_tmp.iterdir()) == [name]  # nothing half-written


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["catalog", "build", "no.csv", "--out", "out"], 3, "no.csv does not exist."),
        (["catalog", "build", "a.csv", "--out", "a.csv"], 3, "a.csv exists and is no catalogue of gcrs."),
        (
            ["catalog", "build", "a.csv", "--out", "out", "--encoder", "no"],
            4,
            "The encoder 'no' is neither a known name",
        ),
        (["catalog", "show", "nowhere"], 3, "nowhere does not exist."),
        (["catalog", "show", "empty"], 3, "empty has no catalog.json: it is no prepared catalogue."),
        (["chat", "--bundle", "nowhere"], 3, "Bundle 'nowhere' is no directory and no shipped bundle."),
        (["recommend", "hi", "--bundle", "empty"], 3, "empty has no gcrs.json: it is no bundle."),
        (["recommend", "--dialogue", "no.jsonl"], 3, "no.jsonl does not exist."),
        (["recommend", "--dialogue", "-"], 3, "Standard input has no dialogue."),
        (["recommend", "--dialogue", "a.csv"], 3, "not valid JSON"),
        (["data", "prepare", "redial", "no", "--out", "d.jsonl"], 3, "no does not exist."),
        (["data", "prepare", "redial", "empty", "--out", "d.jsonl"], 3, "empty holds no .jsonl file."),
        (["data", "prepare", "inspired", "a.csv", "--out", "d.jsonl"], 3, "a.csv"),
        (["finetune", "--config", "no.yaml"], 3, "no.yaml does not exist."),
        (["finetune", "--config", "bad.yaml"], 3, "bad.yaml is not valid YAML"),
        (["finetune", "--config", "a.csv"], 3, "a.csv holds str, expected settings"),
        (["finetune", "--set", "nonsense"], 2, "'nonsense' is no setting."),
        (
            ["finetune", "--catalog", "c", "--dialogues", "d", "--out", "o", "--steps", "1", "--set", "speed=9"],
            2,
            "Unknown setting 'speed'",
        ),
        (["finetune", "--catalog", "c", "--dialogues", "d", "--out", "o"], 3, "c does not exist."),
        (["finetune", "--catalog", "c"], 2, "--out is missing."),
        (["finetune", "--catalog", "c", "--dialogues", "d", "--out", "o", "--steps", "1"], 3, "c does not exist."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_broken_inputs(
    arguments: list[str],
    code: int,
    message: str,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("a.csv").write_text(ITEMS, encoding="utf-8")
    Path("bad.yaml").write_text("a: [1\n", encoding="utf-8")
    Path("empty").mkdir()
    before = sorted(path.name for path in in_tmp.rglob("*"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and message in err and err.count("\n") == 1
    assert sorted(path.name for path in in_tmp.rglob("*")) == before


def test_an_unexpected_failure_is_one_sentence_too(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("gcrs.toolkit.catalog.readers.read_items", broken)
    assert main(["catalog", "build", "a.csv", "--out", "out"]) == 1
    expected = "Unexpected ZeroDivisionError (division by zero); run with GCRS_DEBUG=1 for the traceback."
    assert capsys.readouterr() == ("", f"gcrs: error: {expected}\n")
    monkeypatch.setenv("GCRS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["catalog", "build", "a.csv", "--out", "out"])


def test_ctrl_c_is_130_without_a_traceback(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gcrs.toolkit.catalog.readers.read_items", interrupted)
    assert main(["catalog", "build", "a.csv", "--out", "out"]) == 130
    assert capsys.readouterr() == ("", "")


def test_missing_weights_are_4_and_say_how_to_put_them_there(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_text(ITEMS, encoding="utf-8")
    monkeypatch.setenv("GCRS_CACHE", str(in_tmp / "cache"))
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    assert main(["catalog", "build", "a.csv", "--out", "out"]) == 4
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: The weights 'minilm-l6-v2' could not be had")
    assert "To put them there by hand" in err and err.count("\n") == 1 and not Path("out").exists()


def test_a_reader_that_leaves_ends_it_quietly(in_tmp: Path) -> None:
    rows = "".join(f"{n},Title {n // 2},1999\n" for n in range(4000))
    Path("a.csv").write_text(f"id,title,year\n{rows}", encoding="utf-8")
    code = "import sys; from gcrs.cli import main; sys.exit(main())"
    command = f"'{sys.executable}' -c '{code}' catalog check a.csv | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("4000 items, no semantic IDs yet\n0\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_1_and_one_sentence(in_tmp: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "gcrs: error: The system refused: No space left on device.\n")


def test_doctor_says_what_is_missing(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCRS_CACHE", str(in_tmp / "cache"))
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    assert main(["doctor", "--bundle", "nowhere", "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    failed = {check["name"]: check["exit_code"] for check in answer["checks"] if check["exit_code"]}
    assert failed == {"weights smollm2-135m-instruct": 4, "weights minilm-l6-v2": 4, "bundle nowhere": 3}
    assert not answer["ok"] and {check["name"] for check in answer["checks"]} >= {"gcrs", "torch", "cache"}


def test_no_colour_and_no_bars_in_a_pipe(
    in_tmp: Path, toy_encoder_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    Path("a.csv").write_text(ITEMS, encoding="utf-8")
    assert main(["catalog", "build", "a.csv", "--out", "out", "--encoder", str(toy_encoder_dir)]) == 0
    assert not {"\x1b", "\r"} & set("".join(capsys.readouterr()))
