"""`gcrs catalog add | retire | restore` and what every other verb makes of it, on a toy bundle: no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from gcrs.cli import main
from gcrs.toolkit.dialogue.turns import write_dialogues
from gcrs.toolkit.files import data_dir
from toys import toy_catalog, toy_dialogues

NEW = "id,title,year,genre\nn01,Solaris,1972,drama|sci-fi\nn02,Stalker,,sci-fi\n"


@pytest.fixture(scope="module")
def bundle(toy_encoder_dir: Path, toy_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    rows = [f"{i.id},{i.title},{i.facts['year']},{'|'.join(i.facts['genre'])}" for i in toy_catalog()]  # type: ignore[arg-type]
    (folder / "films.csv").write_text("\n".join(["id,title,year,genre", *rows]) + "\n", encoding="utf-8")
    write_dialogues(toy_dialogues(), folder / "train.jsonl")
    build = ["catalog", "build", str(folder / "films.csv"), "--out", str(folder / "films"), "--levels", "3"]
    assert main([*build, "--codes", "8", "--encoder", str(toy_encoder_dir)]) == 0
    flags = ["--catalog", str(folder / "films"), "--dialogues", str(folder / "train.jsonl"), "--steps", "1"]
    out = folder / "toy"
    assert (
        main(
            [
                "finetune",
                *flags,
                "--base",
                str(toy_base_dir),
                "--out",
                str(out),
                "--set",
                "rank=2",
                "--set",
                "eval_limit=2",
            ]
        )
        == 0
    )
    return out


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals of this test alone."""
    monkeypatch.setenv("GCRS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def new_csv(tmp_path: Path) -> Path:
    (tmp_path / "new.csv").write_text(NEW, encoding="utf-8")
    return tmp_path / "new.csv"


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_add_reports_ids_and_neighbours_and_every_verb_sees_it(
    bundle: Path, new_csv: Path, own_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    answer = told(capsys, "catalog", "add", new_csv, "--bundle", bundle)
    assert list(answer) == ["added", "items", "catalog_version", "bundle", "seconds"]
    assert (answer["items"], answer["catalog_version"]) == (14, 1)
    solaris, stalker = answer["added"]  # type: ignore[misc]
    assert list(solaris) == ["id", "title", "semantic_id", "wanted", "taken_by", "moved", "distance",
                             "wanted_distance", "near"]  # fmt: skip
    assert solaris["semantic_id"] != stalker["semantic_id"] and solaris["semantic_id"].startswith("<a_")
    assert (solaris["taken_by"] is None) == (solaris["semantic_id"] == solaris["wanted"]) == (solaris["moved"] == 0)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before  # the bundle itself is untouched
    assert [path.name for path in own_data.rglob("*.sqlite")] == [f"{answer['bundle']}.sqlite"]

    found = told(capsys, "recommend", "hello", "-k", "20", "--bundle", bundle)
    items = {item["id"]: item for item in found["items"]}  # type: ignore[attr-defined]
    assert len(items) == 14 and found["catalog_version"] == 1 and found["bundle"] == answer["bundle"]
    assert items["n01"]["semantic_id"] == solaris["semantic_id"] and items["n01"]["genre"] == ["drama", "sci-fi"]
    assert items["n01"]["score"] < 0 and "year" not in items["n02"]
    ruled = told(capsys, "recommend", "hello", "-k", "20", "--bundle", bundle, "--where", "year=1972")
    assert [item["id"] for item in ruled["items"]] == ["n01"]  # type: ignore[attr-defined]

    shown = told(capsys, "catalog", "show", bundle)
    assert (shown["items"], shown["catalog_version"], shown["added"], shown["retired"]) == (14, 1, 2, [])
    assert told(capsys, "catalog", "show", bundle, "solaris")["items"] == [
        {"id": "n01", "title": "Solaris", "semantic_id": solaris["semantic_id"], "year": 1972,
         "genre": ["drama", "sci-fi"]}
    ]  # fmt: skip
    assert told(capsys, "catalog", "check", bundle)["items"] == 14
    assert main(["catalog", "check", str(bundle)]) == 0
    assert "live changes: version 1, 2 added, 0 retired\n" in capsys.readouterr().out


def test_add_of_many_tells_twenty(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"x{n},Film {n},{1950 + n},drama\n" for n in range(24))
    (tmp_path / "many.csv").write_text(f"id,title,year,genre\n{rows}", encoding="utf-8")
    assert main(["catalog", "add", str(tmp_path / "many.csv"), "--bundle", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("x") for line in lines) == 20 and lines[-2] == "and 4 more; --json has them all"
    assert lines[-1].startswith(f"added: 24 to {bundle}, now 36 items, version 1 ")


def test_add_in_words(bundle: Path, new_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "add", str(new_csv), "--bundle", str(bundle)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("n01 Solaris (1972): <a_") and err == ""
    assert lines[-1].startswith(f"added: 2 to {bundle}, now 14 items, version 1 (")


def test_retire_and_restore(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "retire", "m01", "m09", "--bundle", str(bundle)]) == 0
    expected = "retired: m01 Alien (1979)\nretired: m09 Heat (1995)\nversion 1: 10 of 12 items can be recommended\n"
    assert capsys.readouterr() == (expected, "")
    found = told(capsys, "recommend", "Something like Heat", "-k", "20", "--bundle", bundle)
    assert len(found["items"]) == 10 and found["catalog_version"] == 1  # type: ignore[arg-type]
    assert told(capsys, "catalog", "show", bundle, "m01")["items"][0]["retired"] is True  # type: ignore[index]
    assert told(capsys, "catalog", "check", bundle)["retired"] == ["m01", "m09"]
    assert main(["recommend", "hi", "--where", "title=Alien", "--bundle", str(bundle)]) == 1
    assert "Nothing is left to recommend" in capsys.readouterr().err
    answer = told(capsys, "catalog", "restore", "m09", "--bundle", bundle)
    assert answer == {"restored": ["m09"], "catalog_version": 2, "bundle": answer["bundle"]}
    assert len(told(capsys, "recommend", "hi", "-k", "20", "--bundle", bundle)["items"]) == 11  # type: ignore[arg-type]


BAD = {
    "another type": ("id,title,year\nx,X,soon\n", "line 2, column 'year': found 'soon', expected an integer."),
    "a type of a later line": ("id,title,year\nx,X,1999\ny,Y,1.5\n", "line 3, column 'year': found '1.5'"),
    "another column": (
        "id,title,genres\nx,X,drama\n",
        "has a column 'genres' that the catalogue does not have. Nearest: genre. Rename or leave it out.",
    ),
    "a known id": ("id,title\nm01,Alien\n", "Item 'm01' is in the catalogue already"),
    "a retired id": ("id,title\nm02,Aliens\n", "Item 'm02' is in the catalogue, retired. Nothing was changed. Bring "
                     "it back: gcrs catalog restore m02"),
    "twice": ("id,title\nx,X\nx,Y\n", "line 3, column 'id': found the id 'x' a second time"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_does_not_fit_changes_nothing(
    case: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["catalog", "retire", "m02", "--bundle", str(bundle)]) == 0
    capsys.readouterr()
    content, message = BAD[case]
    (tmp_path / "bad.csv").write_text(content, encoding="utf-8")
    assert main(["catalog", "add", str(tmp_path / "bad.csv"), "--bundle", str(bundle)]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and message in err and err.count("\n") == 1
    assert told(capsys, "catalog", "show", bundle)["catalog_version"] == 1


def test_values_take_the_bundles_types(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list of one entry stays a list in CSV, and JSON Lines join as well."""
    (tmp_path / "a.csv").write_text("id,title,genre,year\na,A,drama,\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"id": 7, "title": "B", "genre": ["war", "war"]}\n', encoding="utf-8")
    assert main(["catalog", "add", str(tmp_path / "a.csv"), "--bundle", str(bundle)]) == 0
    assert main(["catalog", "add", str(tmp_path / "b.jsonl"), "--bundle", str(bundle)]) == 0
    a, b = (told(capsys, "catalog", "show", bundle, name)["items"][0] for name in "a7")  # type: ignore[index]
    assert (a["genre"], b["genre"]) == (["drama"], ["war"]) and "year" not in a


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["retire", "nobody"], 3, "Item 'nobody' is not in the catalogue. Nothing was changed. See: gcrs catalog show"),
        (["restore", "m055"], 3, "Item 'm055' is not in the catalogue. Nothing was changed. Nearest: m05 ("),
        (["restore", "m01"], 3, "Item 'm01' is not retired. Nothing was changed."),
        (["retire"], 2, "Missing argument 'ID…'. See: gcrs catalog retire --help"),
    ],
)
def test_marks_that_cannot_be_made(
    arguments: list[str], code: int, message: str, bundle: Path, own_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["catalog", *arguments, "--bundle", str(bundle)]) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1 and not own_data.exists()


def test_no_bundle_is_changed_by_accident(new_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "add", str(new_csv)]) == 2
    assert "Missing option '--bundle'. See: gcrs catalog add --help" in capsys.readouterr().err


def test_a_broken_journal_stops_every_verb(bundle: Path, own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "retire", "m01", "--bundle", str(bundle)]) == 0
    (journal,) = own_data.rglob("*.sqlite")
    journal.write_bytes(b"not a journal" * 500)
    capsys.readouterr()
    for verb in (["recommend", "hi"], ["chat"], ["catalog", "retire", "m02"]):
        assert main([*verb, "--bundle", str(bundle)]) == 3
        out, err = capsys.readouterr()
        assert out == "" and f"journal {journal} cannot be used" in err and err.count("\n") == 1
    assert main(["catalog", "show", str(bundle)]) == 3
    assert main(["doctor", "--bundle", str(bundle)]) in (3, 4)  # 4 where the weights are missing as well
    assert "FAIL live changes" in capsys.readouterr().out


def line_with(stream: IO[str], words: str) -> str:
    """The next line that holds the words; the test fails by its timeout or at the end of the stream."""
    for line in stream:
        if words in line:
            return line
    raise AssertionError(f"the chat ended without {words!r}")


def test_a_running_chat_sees_what_other_processes_change(bundle: Path, new_csv: Path) -> None:
    """The chat is one process; `add` and `retire` are others. Its next line knows."""

    def gcrs(*arguments: str | Path) -> list[str]:
        command = [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())"]
        return [*command, *map(str, arguments), "--bundle", str(bundle)]

    pipe = subprocess.PIPE
    with subprocess.Popen(gcrs("chat", "--seed", "1"), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "NO_COLOR": "1"}) as chat:  # fmt: skip
        assert chat.stdin is not None and chat.stdout is not None
        chat.stdin.write("/help\n")
        chat.stdin.flush()
        line_with(chat.stdout, "Ctrl-C stops a reply")
        subprocess.run(gcrs("catalog", "add", new_csv), check=True, capture_output=True)
        subprocess.run(gcrs("catalog", "retire", "m01"), check=True, capture_output=True)
        chat.stdin.write("I loved Solaris and Alien\n")
        chat.stdin.flush()
        line_with(chat.stdout, "New in the catalogue: Solaris (1972), Stalker.")
        line_with(chat.stdout, "No longer recommended in the catalogue: Alien (1979).")
        line_with(chat.stdout, "(a) Solaris = Solaris (1972), (b) Alien = Alien (1979).")
        line_with(chat.stdout, "Retired from this catalogue, so not recommended: Alien (1979).")
        chat.stdin.write("/more 13\n")
        chat.stdin.close()
        shown = chat.stdout.read()
    assert "Stalker | genre: sci-fi" in shown and "] Alien (1979)" not in shown
    assert "Nothing is left to recommend" in shown and chat.returncode == 1


def test_journals_lie_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_dir() == tmp_path / "data"
    monkeypatch.delenv("GCRS_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_dir() == tmp_path / "xdg" / "gcrs"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_dir() == Path.home() / ".local" / "share" / "gcrs"
