"""push and pull over HTTP: huggingface_hub's own client against a small hub on this machine, never the real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcrs.toolkit.files import sha256_file
from gcrs.toolkit.model.bundle import Bundle
from gcrs.toolkit.model.manifest import MANIFEST, read_manifest, write_manifest
from hub_server import TOKEN, Hub, running_hub

Run = tuple[int, str, str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A fresh small hub."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def mine(toy_bundle: Path, in_tmp: Path) -> Path:
    """The toy bundle under another directory, free to be changed."""
    shutil.copytree(toy_bundle, in_tmp / "mine")
    return in_tmp / "mine"


def gcrs(hub: Hub, *arguments: str, token: str | None = TOKEN, **env: str) -> Run:
    """The command in a process of its own, as its client reads the hub's address when it is imported."""
    told = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": "hf", "GCRS_CACHE": "cache"}
    told |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | ({"HF_TOKEN": token} if token else {}) | env
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "GCRS_OFFLINE")}
    code = "import sys; from gcrs.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, **told}, timeout=240, check=False)
    return done.returncode, done.stdout, done.stderr


def changed(bundle: Path, part: str, text: str | None) -> None:
    """Write, or take out, a part and make the manifest fit again."""
    if text is None:
        (bundle / part).unlink()
    else:
        (bundle / part).write_text(text, encoding="utf-8")
    manifest = read_manifest(bundle / MANIFEST)
    manifest["parts"] = {p.name: sha256_file(p) for p in sorted(bundle.iterdir()) if p.name != MANIFEST}
    write_manifest(manifest, bundle)


def parts(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_there_and_back(hub: Hub, mine: Path) -> None:
    """A new private repository in one commit, nothing twice, and the same bytes on the other side."""
    (mine / "diary.txt").write_text("secret", encoding="utf-8")
    digest = Bundle.load(mine).hash
    code, out, err = gcrs(hub, "push", "mine", "films/toy", "--private", "--message", "First films", "--json")
    assert code == 0, err
    repo = hub.repos["films/toy"]
    assert repo.private and [commit.message for commit in repo.commits] == ["initial commit", "First films"]
    (mine / "diary.txt").unlink()
    assert repo.at("main").files == {".gitattributes": repo.commits[0].files[".gitattributes"], **parts(mine)}  # type: ignore[union-attr]
    told = json.loads(out)
    assert told["remote"] == "hf:films/toy" and told["bundle"] == digest and told["changed"]
    assert told["revision"] == repo.branches["main"]

    code, out, err = gcrs(hub, "push", "mine", "hf:films/toy")
    assert code == 0, err
    assert out == f"nothing to do: hf:films/toy holds these bytes already (hash {digest[:12]})\n"
    assert len(repo.commits) == 2

    code, out, err = gcrs(hub, "pull", "films/toy")
    said = f"pulled: hf:films/toy (12 items, hash {digest[:12]})\nuse it: gcrs chat --bundle toy\n"
    assert (code, out, err) == (0, said, "")
    assert parts(Path("cache/bundles/toy")) == parts(mine)
    before = len(hub.seen)
    code, out, err = gcrs(hub, "pull", "films/toy", "--json")
    assert code == 0 and not json.loads(out)["changed"]
    assert [line for line in hub.seen[before:] if "/resolve/" in line and MANIFEST not in line] == []


def test_a_push_replaces_parts_and_keeps_what_is_not_ours(hub: Hub, mine: Path) -> None:
    changed(mine, "metrics.jsonl", "{}\n")
    assert gcrs(hub, "push", "mine", "films/toy")[0] == 0
    first = hub.repos["films/toy"].branches["main"]
    changed(mine, "metrics.jsonl", None)
    code, _, err = gcrs(hub, "push", "mine", "films/toy", "--revision", "next")
    assert code == 0, err
    repo = hub.repos["films/toy"]
    assert repo.branches["main"] == first and repo.branches["next"] != first
    assert set(repo.at("next").files) == {".gitattributes", *parts(mine)}  # type: ignore[union-attr]
    assert "metrics.jsonl" in repo.at("main").files  # type: ignore[union-attr]
    code, _, err = gcrs(hub, "pull", "films/toy", "--revision", "next", "--out", "there")
    assert code == 0, err
    assert parts(Path("there")) == parts(mine)


def test_what_the_hub_refuses_is_one_sentence(hub: Hub, mine: Path) -> None:
    hub.new("films/secret", private=True)
    hub.new("films/gated", gated=True).add(parts(mine), "a bundle")
    hub.new("films/other").add({"model.safetensors": b"", "config.json": b"{}"}, "someone's model")
    hub.new("films/public")
    before = {name: len(repo.commits) for name, repo in hub.repos.items()}
    hand = "By hand: download all files of huggingface.co/films/"
    private = "there is no such repository, or it is private: log in with HF_TOKEN or `hf auth login`."
    cases: list[tuple[list[str], str | None, int, str]] = [
        (["pull", "films/nothing"], TOKEN, 4, f"hf:films/nothing: {private} {hand}nothing into a directory"),
        (["pull", "films/secret"], None, 4, f"hf:films/secret: {private} {hand}"),
        (["pull", "films/gated"], None, 4, "hf:films/gated: the repository is gated: ask for access on its page"),
        (["pull", "films/gated", "--revision", "v9"], TOKEN, 4, "@v9: the repository has no such revision."),
        (["pull", "films/other"], TOKEN, 3, "hf:films/other has no gcrs.json: it is no bundle."),
        (["push", "mine", "films/other"], TOKEN, 3, "films/other holds something that is no bundle (config.json, "),
        (["push", "mine", "films/public"], None, 4, "films/public: the hub refused (HTTP 403): log in with HF_TOKEN"),
        (["push", "mine", "films/new"], None, 4, "hf:films/new: the hub refused (HTTP 401): log in with HF_TOKEN"),
        (["push", "mine", "films/public", "--private"], TOKEN, 2, "films/public is public, so a push cannot be pri"),
    ]  # fmt: skip
    for arguments, token, expected, message in cases:
        code, out, err = gcrs(hub, *arguments, token=token)
        assert (code, out) == (expected, ""), (arguments, err)
        assert err.splitlines()[-1].startswith("gcrs: error: ") and message in err, (arguments, err)
    assert {name: len(repo.commits) for name, repo in hub.repos.items()} == before
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]


def test_harm_on_the_hub_is_refused(hub: Hub, mine: Path) -> None:
    """A part of another bundle, a part that is not there, a part that can run, a card that the hub does not take."""
    files = parts(mine)
    hub.new("films/mixed").add({**files, "semantic_ids.json": b"{}"}, "mixed")
    hub.new("films/short").add({name: data for name, data in files.items() if name != "mentions.json"}, "short")
    shutil.copytree(mine, "evil")
    changed(Path("evil"), "modeling.py", "print('hello')\n")
    hub.new("films/evil").add(parts(Path("evil")), "evil")
    for name, message in (
        ("mixed", "Bundle hf:films/mixed: part semantic_ids.json is broken or from another bundle"),
        ("short", "hf:films/short: part mentions.json is missing."),
        ("evil", "The bundle at hf:films/evil names the part 'modeling.py', which no bundle holds."),
    ):
        code, out, err = gcrs(hub, "pull", f"films/{name}")
        assert (code, out) == (3, "") and message in err and err.count("\n") == 1, err
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]
    assert not [line for line in hub.seen if "modeling.py" in line]
    changed(mine, "README.md", "---\nbase_model: not an id\n---\n# A card\n")
    code, out, err = gcrs(hub, "push", "mine", "films/card")
    assert (code, out) == (3, "") and "hf:films/card refused the bundle: Invalid metadata in README.md." in err
    assert len(hub.repos["films/card"].commits) == 1


def test_out_of_reach(hub: Hub, mine: Path) -> None:
    for env, message in (
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub at http://127.0.0.1:9 cannot be reached (ConnectError)."),
        ({"GCRS_OFFLINE": "1"}, "GCRS_OFFLINE is set."),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set."),
    ):
        for arguments, hand in (
            (("push", "mine", "films/toy"), "By hand: gcrs push BUNDLE ./DIR, then put the directory's files into"),
            (("pull", "films/toy"), "into a directory, then gcrs pull ./DIR --name toy\n"),
        ):
            code, out, err = gcrs(hub, *arguments, **env)
            assert (code, out) == (4, ""), err
            assert f"hf:films/toy: {message} By hand: " in err and hand in err
    assert hub.seen == []
