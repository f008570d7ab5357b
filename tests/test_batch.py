"""`gcrs batch`: real answers by the shipped bundle, here and by two workers, over a kill of a worker and of the job."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gcrs.cli import main
from gcrs.programs.batch import BatchConfig, answer_all
from gcrs.programs.one_reply import Request
from gcrs.toolkit.catalog.encoders import encode_texts
from gcrs.toolkit.errors import DataError, GcrsError, UsageError
from gcrs.toolkit.parts import PartsDirectory, read_lines, split_lines
from gcrs.toolkit.ray_data import RayConfig, ray_rows

WORDS = ["I loved The Matrix.", "something scary please", "A film for my kids?", "hi! I like Titanic", "a war film"]
ROWS = 10


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    lines = [{"id": f"d{n}", "turns": [{"role": "user", "text": WORDS[n % 5] + " ok" * (n // 5)}]} for n in range(ROWS)]
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:3]) + "\n")  # a blank line is no row
    with open(file, "a") as handle:
        handle.writelines(json.dumps(line) + "\n" for line in lines[3:])
    return file


def config(dialogues: Path, out: str, **options: Any) -> BatchConfig:
    return BatchConfig(dialogues, dialogues.with_name(out), request=Request(k=3), respond=False, part=2, **options)


def verb(*arguments: Any) -> list[str]:
    return [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())", *map(str, arguments)]


def until(there: Callable[[], Any], process: subprocess.Popen[Any], seconds: float = 120) -> Any:
    """What `there` gives once it is something, as long as the process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if found := there():
            return found
        time.sleep(0.05)
    raise AssertionError(f"it never came; the process ended with {process.poll()}")


def children(pid: int) -> Iterator[tuple[int, str]]:
    """Every process below this one, with its command line."""
    table: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            table.setdefault(parent, []).append(int(entry.name))
    todo = [pid]
    while todo:
        for child in table.get(todo.pop(), []):
            todo.append(child)
            try:
                yield child, Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue


# ----------------------------------------------------------------------------------------------------------- parts


def test_parts_are_all_rows_once_and_know_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\r\n   \n{"a": "é\u2028"}\n{"a": 4}', encoding="utf-8")
    for rows in (1, 2, 3, 4, 9):
        parts = split_lines(file, rows)
        found = [(number, json.loads(text)["a"]) for part in parts for number, text in read_lines(file, part)]
        assert found == [(1, 1), (3, 2), (5, "é\u2028"), (6, 4)]
        assert [part.rows for part in parts] == [min(rows, 4 - n) for n in range(0, 4, rows)]
    (tmp_path / "empty").write_text("\n \n")
    for wrong in ("empty", "absent", "."):
        with pytest.raises(DataError):
            split_lines(tmp_path / wrong, 2)
    file.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        list(read_lines(file, split_lines(file, 9)[0]))


def test_a_directory_of_parts_belongs_to_one_job(tmp_path: Path) -> None:
    directory = PartsDirectory(tmp_path / "out.jsonl")
    directory.open({"k": 1, "seed": 2})
    directory.open({"k": 1, "seed": 2})
    with pytest.raises(DataError, match="another job: k differ"):
        directory.open({"k": 3, "seed": 2})


# -------------------------------------------------------------------------------------------------------- by workers


class Doubled:
    """Work for the tests: fails on what it is told to, and dies once where a file is not there yet."""

    def __init__(self, once: str) -> None:
        self.once = Path(once)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["n"] == 3 and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if row["n"] == 99:
            raise DataError("Row 99 is wrong.", hint="Mend it.")
        return {"n": int(row["n"]), "twice": 2 * int(row["n"])}


def test_a_killed_worker_costs_nothing_and_our_errors_come_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers must find this module
    once = tmp_path / "died"
    rows = [{"n": n} for n in range(6)]
    found = sorted(row["twice"] for row in ray_rows(Doubled, {"once": str(once)}, rows, RayConfig(2)))
    assert found == [0, 2, 4, 6, 8, 10] and once.exists()
    with pytest.raises(DataError, match=r"Row 99 is wrong\. Mend it\."):
        list(ray_rows(Doubled, {"once": str(once)}, [{"n": 99}], RayConfig(1)))
    assert list(ray_rows(Doubled, {"once": str(once)}, [], RayConfig(1))) == []
    with pytest.raises(GcrsError, match="no Ray cluster"):
        list(ray_rows(Doubled, {"once": str(once)}, rows, RayConfig(1, "127.0.0.1:1")))
    with pytest.raises(UsageError, match="shall take 1 GPUs, the cluster has 0"):
        list(ray_rows(Doubled, {"once": str(once)}, rows, RayConfig(1, gpus=1)))
    with pytest.raises(UsageError, match="0 workers"):
        RayConfig(0)


def test_workers_encode_texts_as_this_process_does(
    encoder_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    texts = [f"film number {n} about the sea" for n in range(7)]
    alone = encode_texts(texts, batch_size=2)
    for name in ("weights", "bases"):
        (tmp_path / name).symlink_to(Path(os.environ["GCRS_CACHE"], name).resolve())
    monkeypatch.setenv("GCRS_CACHE", str(tmp_path))
    assert np.abs(encode_texts(texts, batch_size=2, ray=RayConfig(2)) - alone).max() < 1e-6
    assert (tmp_path / "texts.sqlite").is_file(), "kept, so a second run has nothing to do"


@pytest.mark.timeout(600)
def test_the_same_answers_here_by_workers_and_over_kills(movies_bundle: Path, dialogues: Path) -> None:
    alone = config(dialogues, "alone.jsonl")
    report = answer_all(alone)
    assert (report["rows"], report["failed"], report["kept"]) == (ROWS, 0, 0)
    answers = [json.loads(line) for line in alone.out.read_text().splitlines()]
    assert [one["id"] for one in answers] == [f"d{n}" for n in range(ROWS)] and answers[3]["line"] == 5
    for one in answers:
        assert one["intent"] == "recommend" and len({item["id"] for item in one["items"]}) == 3 and "reply" not in one
    out = dialogues.with_name("killed.jsonl")
    flags = (dialogues, "--out", out, "-k", 3, "--part", 2, "--items-only", "--workers", 2)
    directory = PartsDirectory(out)
    first = subprocess.Popen(verb("batch", *flags), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until(lambda: list(directory.path.glob("0*.jsonl")), first)
        workers = [pid for pid, what in children(first.pid) if "MapWorker" in what]
        assert len(workers) == 2, "one process a worker"
        os.kill(workers[0], signal.SIGKILL)  # a worker dies: another one does its part
        until(lambda: len(list(directory.path.glob("0*.jsonl"))) > 1, first)
    finally:
        below = [pid for pid, _ in children(first.pid)]
        first.kill()  # the job dies: the same command goes on
        first.wait()
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    assert not out.exists() and directory.path.is_dir()
    second = subprocess.Popen(
        verb("batch", *flags, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    workers = until(lambda: [pid for pid, what in children(second.pid) if "MapWorker" in what], second)
    os.kill(workers[0], signal.SIGKILL)
    said, warned = second.communicate(timeout=300)
    assert second.returncode == 0, warned
    told = json.loads(said)  # what Ray says of the kill is not among the results
    assert told["kept"] >= 4 and told["rows"] == ROWS and told["workers"] == 2
    assert out.read_bytes() == alone.out.read_bytes(), "neither workers nor kills change an answer"
    assert not directory.path.exists()


# ---------------------------------------------------------------------------------------------------------- bad input


def test_what_a_batch_refuses(movies_bundle: Path, dialogues: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = dialogues.with_name("out.jsonl")

    def fails(*flags: Any) -> tuple[int, str]:
        code = main(["batch", str(dialogues), "--out", str(out), *map(str, flags)])
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert not out.exists()
        return code, error

    code, error = fails("--ray-address", "auto")
    assert code == 2 and "--ray-address and --gpus are for workers. Pass --workers N." in error
    for flags in (("--device", "cuda"), ("--gpus", 1)):
        code, error = fails("--workers", 1, *flags)
        assert code == 2 and "Pass both --device cuda and --gpus 1" in error
    code, error = fails("--where", "colour=red")
    assert code == 3 and "no column 'colour'" in error
    code, error = fails("--workers", 1, "--ray-address", "127.0.0.1:1")
    assert code == 1 and "127.0.0.1:1 does not answer" in error
    parts = PartsDirectory(out)
    assert not parts.path.exists(), "what kept nothing leaves nothing"
    parts.open({"part": 1})
    parts.file(0).write_text("")
    code, error = fails("--part", 2)
    assert code == 3 and "another job: " in error and parts.file(0).exists()
    with open(dialogues, "a") as handle:
        handle.write('{"turns": \n')
    code, error = fails()
    assert code == 3 and "line 12: not valid JSON" in error
    dialogues.write_bytes(gzip.compress(dialogues.read_bytes()))
    code, error = fails()
    assert code == 3 and "is compressed. Unpack it first" in error
    assert main(["batch", str(dialogues), "--out", str(dialogues)]) == 2
    out.write_text("precious")
    assert main(["batch", str(dialogues), "--out", str(out)]) == 3 and out.read_text() == "precious"


def test_a_dialogue_without_an_answer_is_a_row_that_says_why(movies_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    said = [["I love <item:85036>"], ["something funny, <item:nobody>"], []]
    file.write_text("".join(
        json.dumps({"id": str(n), "turns": [{"role": "user", "text": text} for text in turns]}) + "\n"
        for n, turns in enumerate(said)
    ))  # fmt: skip
    from gcrs.toolkit.catalog.allow_list import AllowList

    request = Request(k=1, allow=AllowList(tmp_path / "allowed", ("85036",)))
    report = answer_all(BatchConfig(file, tmp_path / "out.jsonl", request=request, respond=False))
    first, second, third = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert report["failed"] == 2
    assert "Nothing is left to recommend" in first["error"] and "no turns" in third["error"]
    assert second["items"][0]["id"] == "85036" and second["unknown_ids"] == ["nobody"]
