"""push and pull with a directory as the remote: whole or not at all, nothing but a bundle's own parts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gcrs.cli import main
from gcrs.toolkit.files import sha256_file
from gcrs.toolkit.model.bundle import Bundle, shipped_bundles
from gcrs.toolkit.model.manifest import MANIFEST, write_manifest


@pytest.fixture(autouse=True)
def own_cache(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test pulls into a cache of its own."""
    monkeypatch.setenv("GCRS_CACHE", str(in_tmp / "cache"))


@pytest.fixture
def remote(toy_bundle: Path, in_tmp: Path) -> Path:
    """The toy bundle as it lies in a directory that was pushed to."""
    assert main(["push", str(toy_bundle), "./shared/toy"]) == 0
    return in_tmp / "shared" / "toy"


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, staging folders included."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def resealed(directory: Path, **changes: Any) -> None:
    """Make the manifest fit the files again, with these changes: what someone does who means harm."""
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    manifest["parts"] = {p.name: sha256_file(p) for p in sorted(directory.iterdir()) if p.name != MANIFEST}
    write_manifest(manifest | changes, directory)


def test_push_then_pull_gives_the_same_bytes(
    toy_bundle: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = Bundle.load(toy_bundle).hash[:12]
    files = len(tree(toy_bundle))
    size = sum(map(len, tree(toy_bundle).values())) / 1e6
    told = f"Its base model is {Bundle.load(toy_bundle).manifest['base']['name']}: "
    assert main(["push", str(toy_bundle), "./shared/toy"]) == 0
    out, err = capsys.readouterr()
    assert out == f"pushed: ./shared/toy ({files} files, {size:.1f} MB, hash {digest})\n"
    assert err.startswith(told) and err.count("\n") == 1  # the toy's base is a directory of this machine
    assert main(["push", str(toy_bundle), f"file://{in_tmp}/shared/toy"]) == 0
    said = f"nothing to do: file://{in_tmp}/shared/toy holds these bytes already (hash {digest})\n"
    assert capsys.readouterr().out == said
    assert main(["pull", "./shared/toy"]) == 0
    said = f"pulled: ./shared/toy (12 items, hash {digest})\nuse it: gcrs chat --bundle toy\n"
    assert capsys.readouterr() == (said, "")
    assert main(["pull", "./shared/toy"]) == 0
    assert capsys.readouterr().out.startswith("nothing to do, already here: ./shared/toy (12 items, ")
    assert tree(in_tmp / "cache" / "bundles") == {f"toy/{name}": data for name, data in tree(toy_bundle).items()}
    assert tree(in_tmp / "shared" / "toy") == tree(toy_bundle)


def test_json(toy_bundle: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = Bundle.load(toy_bundle)
    base, files = loaded.manifest["base"]["name"], tree(toy_bundle)
    assert main(["push", str(toy_bundle), "./r", "--json"]) == 0
    told = {"remote": "./r", "bundle": loaded.hash, "base": base, "files": len(files)}
    told |= {"bytes": sum(map(len, files.values())), "changed": True, "revision": None}
    assert json.loads(capsys.readouterr().out) == told
    assert main(["pull", "./r", "--name", "films", "--json"]) == 0
    out = str(in_tmp / "cache" / "bundles" / "films")
    told = {"remote": "./r", "name": "films", "out": out, "bundle": loaded.hash, "base": base, "items": 12}
    assert json.loads(capsys.readouterr().out) == told | {"changed": True, "revision": None}


def test_a_pulled_bundle_answers_by_its_name(remote: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "./shared/toy", "--name", "films"]) == 0
    capsys.readouterr()
    assert main(["recommend", "hi", "--bundle", "films", "-k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 2


def test_out_is_a_place_of_ones_own(remote: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "./shared/toy", "--out", "mine"]) == 0
    assert capsys.readouterr().out.endswith("use it: gcrs chat --bundle mine\n")
    assert tree(in_tmp / "mine") == tree(remote) and "toy" not in shipped_bundles()


def test_a_changed_bundle_replaces_the_old_one(remote: Path, toy_bundle: Path, in_tmp: Path) -> None:
    assert main(["pull", "./shared/toy"]) == 0
    other = in_tmp / "other"
    shutil.copytree(toy_bundle, other)
    (other / "README.md").write_text("# Another card\n", encoding="utf-8")
    resealed(other)
    assert main(["push", "other", "./shared/toy"]) == 0
    assert main(["pull", "./shared/toy"]) == 0
    assert tree(in_tmp / "cache" / "bundles" / "toy")["README.md"] == b"# Another card\n"
    assert [path.name for path in (in_tmp / "cache" / "bundles").iterdir()] == ["toy"]
    assert [path.name for path in (in_tmp / "shared").iterdir()] == ["toy"]


def test_only_the_bundles_own_parts_travel(toy_bundle: Path, in_tmp: Path) -> None:
    mine = in_tmp / "mine"
    shutil.copytree(toy_bundle, mine)
    (mine / "diary.txt").write_text("secret", encoding="utf-8")
    (mine / "link.json").symlink_to("/etc/hostname")
    (mine / "sub").mkdir()
    (mine / "sub" / "x.json").write_text("{}", encoding="utf-8")
    assert main(["push", "mine", "./r"]) == 0
    assert tree(in_tmp / "r") == tree(toy_bundle)
    (in_tmp / "r" / "setup.py").write_text("raise SystemExit", encoding="utf-8")
    assert main(["pull", "./r"]) == 0
    assert tree(in_tmp / "cache" / "bundles" / "r") == tree(toy_bundle)


def test_a_part_that_is_a_link_is_refused(toy_bundle: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = in_tmp / "mine"
    shutil.copytree(toy_bundle, mine)
    (mine / "items.jsonl").rename(in_tmp / "items.jsonl")
    (mine / "items.jsonl").symlink_to(in_tmp / "items.jsonl")
    assert main(["push", "mine", "./r"]) == 3
    assert "items.jsonl is a symbolic link." in capsys.readouterr().err and not (in_tmp / "r").exists()
    assert main(["pull", "./mine"]) == 3
    assert "items.jsonl is a symbolic link." in capsys.readouterr().err and not tree(in_tmp / "cache")


def truncated(remote: Path) -> None:
    part = remote / "adapter_model.safetensors"
    part.write_bytes(part.read_bytes()[:-1])


def mixed(remote: Path) -> None:
    ids = json.loads((remote / "semantic_ids.json").read_text(encoding="utf-8"))
    (remote / "semantic_ids.json").write_text(json.dumps(ids, indent=2), encoding="utf-8")


def missing(remote: Path) -> None:
    (remote / "mentions.json").unlink()


def pickled(remote: Path) -> None:
    (remote / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    resealed(remote)


def with_code(remote: Path) -> None:
    (remote / "modeling.py").write_text("print('hello')\n", encoding="utf-8")
    resealed(remote)


def with_auto_map(remote: Path) -> None:
    config = {"auto_map": {"AutoTokenizer": "someone/else--tokenizer.Tokenizer"}}
    (remote / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    resealed(remote)


def climbing(remote: Path) -> None:
    manifest = json.loads((remote / MANIFEST).read_text(encoding="utf-8"))
    manifest["parts"]["../../escaped.json"] = "0" * 64
    (remote / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def garbled(remote: Path) -> None:
    (remote / MANIFEST).write_text("{", encoding="utf-8")


def unknown(remote: Path) -> None:
    resealed(remote, format=2)


def counted_wrong(remote: Path) -> None:
    resealed(remote, items=13)


BROKEN = {
    truncated: "part adapter_model.safetensors is broken or from another bundle (its SHA-256 differs).",
    mixed: "part semantic_ids.json is broken or from another bundle (its SHA-256 differs).",
    missing: "mentions.json cannot be read: No such file or directory.",
    pickled: "names the part 'pytorch_model.bin', which no bundle holds.",
    with_code: "names the part 'modeling.py', which no bundle holds.",
    with_auto_map: "Part tokenizer_config.json asks for code of its own (auto_map), which is never run.",
    climbing: "names the part '../../escaped.json', which no bundle holds.",
    garbled: "is not valid JSON",
    unknown: "has format 2, expected 1.",
    counted_wrong: "items and semantic IDs do not fit gcrs.json.",
}


@pytest.mark.parametrize("harm", BROKEN, ids=lambda harm: harm.__name__)
def test_a_broken_bundle_is_refused_and_the_old_one_stays(
    harm: Any, remote: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", "./shared/toy"]) == 0
    before = tree(in_tmp / "cache")
    (remote / "README.md").write_text("# A later version\n", encoding="utf-8")
    resealed(remote)
    harm(remote)
    capsys.readouterr()
    assert main(["pull", "./shared/toy"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and BROKEN[harm] in err and err.count("\n") == 1
    assert "gcrs-pull-" not in err and ".toy." not in err, "places of the moment are nobody's business"
    assert tree(in_tmp / "cache") == before and not list(in_tmp.rglob("escaped.json"))
    assert main(["pull", "./shared/toy", "--name", "fresh"]) == 3
    assert tree(in_tmp / "cache") == before


def test_push_verifies_first_and_mends_a_broken_remote(
    remote: Path, toy_bundle: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated(remote)
    assert main(["push", str(remote), "./elsewhere"]) == 3
    assert "part adapter_model.safetensors is broken" in capsys.readouterr().err and not Path("elsewhere").exists()
    assert main(["push", str(toy_bundle), "./shared/toy"]) == 0
    assert capsys.readouterr().out.startswith("pushed: ./shared/toy ") and tree(remote) == tree(toy_bundle)


def test_a_broken_bundle_in_the_cache_is_fetched_again(remote: Path, in_tmp: Path) -> None:
    assert main(["pull", "./shared/toy"]) == 0
    truncated(in_tmp / "cache" / "bundles" / "toy")
    assert main(["pull", "./shared/toy"]) == 0
    assert tree(in_tmp / "cache" / "bundles" / "toy") == tree(remote)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["push", "BUNDLE", "shared/toy"], 2, "'shared/toy' may be a directory here or a repository of the hub."),
        (["push", "BUNDLE", "toy"], 2, "'toy' names no remote. Write ./DIR or file:///DIR for a directory"),
        (["push", "BUNDLE", "https://huggingface.co/a/b"], 2, "names no remote."),
        (["push", "BUNDLE", "file://elsewhere/toy"], 2, "is no directory of this machine."),
        (["push", "BUNDLE", "./new", "--private"], 2, "--private is for the hub, ./new is a directory."),
        (["push", "BUNDLE", "./new", "--revision", "v1"], 2, "--revision is for the hub"),
        (["push", "nowhere", "./new"], 3, "Bundle 'nowhere' is no directory and no shipped bundle."),
        (["push", "BUNDLE", "./full"], 3, "full holds something that is no bundle."),
        (["push", "BUNDLE", "./file"], 3, "file is no directory."),
        (["push", "BUNDLE", "./crowded"], 3, "crowded also holds notes.txt, which is no part of its bundle."),
        (["pull", "./nowhere"], 3, "./nowhere does not exist."),
        (["pull", "./full"], 3, "./full has no gcrs.json: it is no bundle."),
        (
            ["pull", "./shared/toy", "--name", "movies"],
            2,
            "The name 'movies' belongs to a bundle that comes with gcrs.",
        ),
        (["pull", "./shared/toy", "--name", "../toy"], 2, "--name is '../toy', expected letters"),
        (["pull", "./shared/toy", "--name", ".toy"], 2, "--name is '.toy', expected letters"),
        (["pull", "./shared/toy", "--name", "a", "--out", "b"], 2, "Pass one of the two."),
        (["pull", "./shared/toy", "--out", "full"], 3, "full holds something that is no bundle."),
        (["pull", "./shared/toy", "--revision", "v1"], 2, "--revision is for the hub"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused_changes_nothing(
    arguments: list[str], code: int, message: str, remote: Path, toy_bundle: Path, in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("full").mkdir()
    Path("full", "thesis.md").write_text("years of work", encoding="utf-8")
    Path("file").write_text("", encoding="utf-8")
    shutil.copytree(remote, "crowded")
    Path("crowded", "notes.txt").write_text("", encoding="utf-8")
    before = tree(in_tmp)
    capsys.readouterr()
    assert main([str(toy_bundle) if word == "BUNDLE" else word for word in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gcrs: error: ") and message in err and err.count("\n") == 1
    assert tree(in_tmp) == before


KILLED = """
import os, sys
from gcrs.cli import main
real = os.rename
def rename(source, target):
    left = int(os.environ["RENAMES"])
    if left == 0:
        os._exit(9)
    os.environ["RENAMES"] = str(left - 1)
    real(source, target)
os.rename = rename
sys.exit(main())
"""


@pytest.mark.parametrize("renames", [0, 1], ids=["before the first rename", "between the two"])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_kill_leaves_the_old_bundle_or_the_new_one(
    verb: str, renames: int, remote: Path, toy_bundle: Path, in_tmp: Path
) -> None:
    assert main(["pull", "./shared/toy"]) == 0
    before = tree(remote)
    other = in_tmp / "other"
    shutil.copytree(toy_bundle, other)
    (other / "README.md").write_text("# Another card\n", encoding="utf-8")
    resealed(other)
    arguments = ["push", "other", "./shared/toy"] if verb == "push" else ["pull", "./other", "--name", "toy"]
    command = [sys.executable, "-c", KILLED, *arguments]
    done = subprocess.run(command, env={**os.environ, "RENAMES": str(renames)}, check=False)
    assert done.returncode == 9
    if verb == "push":
        assert main(["pull", "./shared/toy", "--name", "again"]) == 0  # the remote still holds the old one, whole
        assert tree(in_tmp / "cache" / "bundles" / "again") == before
    else:
        assert list(shipped_bundles()) == ["movies", "toy"]
        assert tree(Bundle.load("toy").directory) == before
    assert main(arguments) == 0
    place = remote if verb == "push" else in_tmp / "cache" / "bundles" / "toy"
    assert tree(place) == tree(other)


def test_a_disk_that_is_full_changes_nothing(
    remote: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    capsys.readouterr()
    monkeypatch.setattr("gcrs.toolkit.model.described.shutil.copyfileobj", full)
    assert main(["pull", "./shared/toy"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert tree(in_tmp / "cache") == {}
