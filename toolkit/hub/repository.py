"""A repository of the Hugging Face hub as a remote, through huggingface_hub: its endpoint, its token, its errors.

Everything is read from one commit and written as one commit. Knows nothing of what the files mean.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError, GcrsError, MissingModelError, UsageError
from gcrs.toolkit.hub.remote import Put
from gcrs.toolkit.model.manifest import MANIFEST, MOST_BYTES, read_manifest
from gcrs.toolkit.model.quiet import quiet_hub
from gcrs.toolkit.weights import offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

# What a repository may hold before its first bundle: the hub itself puts these there.
NEW = {".gitattributes", "README.md", "LICENSE"}


class HubRemote:
    """One bundle in one model repository, at one revision (default: `main`)."""

    def __init__(self, repo: str, revision: str | None = None, private: bool = False) -> None:
        self.repo = repo
        self.asked = revision
        self.private = private
        self.name = f"hf:{repo}" + (f"@{revision}" if revision else "")
        self.short = repo.split("/")[1]

    def manifest(self, scratch: Path) -> dict[str, Any]:
        """The manifest at that revision; DataError when the repository holds no bundle."""
        with self._reached("read"):
            files = {file.rfilename: file.size for file in self._info.siblings or ()}
            if MANIFEST not in files:
                raise DataError(f"{self.name} has no {MANIFEST}: it is no bundle.", hint="Give a bundle's repository.")
            if (files[MANIFEST] or 0) > MOST_BYTES:
                raise DataError(f"{self.name}: {MANIFEST} is larger than any manifest is.")
        self.take(MANIFEST, scratch / MANIFEST)
        return read_manifest(scratch / MANIFEST)

    def take(self, part: str, target: Path) -> None:
        """Download one file of that commit."""
        from huggingface_hub import hf_hub_download

        folder = target.with_name(".download")
        with self._reached("read"):
            if part not in {file.rfilename for file in self._info.siblings or ()}:
                raise DataError(f"{self.name}: part {part} is missing.", hint="Its owner has to push it again.")
            with quiet_hub(bars=False):
                fetched = hf_hub_download(
                    self.repo, part, revision=self._info.sha, local_dir=folder, endpoint=self._api.endpoint
                )
        shutil.move(fetched, target)
        shutil.rmtree(folder, ignore_errors=True)

    def revision(self) -> str | None:
        """The commit's hash."""
        return self._info.sha

    def put(self, staged: Path, manifest: dict[str, Any], message: str) -> Put:
        """Commit the parts, and the removal of parts that the bundle there had and this one has not.

        Raises DataError when the repository holds something else, UsageError when it is public and shall be private.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with self._reached("write"):
            before, held = self._state(staged)
            # create_commit and not upload_folder: that one may split an upload into several commits
            names = [*manifest["parts"], MANIFEST]
            operations: list[Any] = [CommitOperationAdd(name, str(staged / name)) for name in names]
            operations += [CommitOperationDelete(name) for name in sorted(held - set(names))]
            with quiet_hub(bars=False):
                done = self._api.create_commit(
                    self.repo, operations, commit_message=message, revision=self.asked, parent_commit=before
                )
        return Put(changed=done.oid != before, revision=done.oid)

    def _state(self, staged: Path) -> tuple[str | None, set[str]]:
        """(the commit before ours, the files of the bundle there), the repository and branch made if need be."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            self._api.repo_info(self.repo)
        except RepositoryNotFoundError:
            self._api.create_repo(self.repo, private=self.private or None, exist_ok=True)
        if self.asked not in (None, "main"):
            try:
                self._api.repo_info(self.repo, revision=self.asked)
            except RevisionNotFoundError:
                self._api.create_branch(self.repo, branch=self.asked, exist_ok=True)
        info = self._info
        if self.private and not info.private:
            raise UsageError(
                f"{self.repo} is public, so a push cannot be private.",
                hint="Make it private on the hub, or choose another name. Nothing was uploaded.",
            )
        files = {file.rfilename for file in info.siblings or ()}
        if MANIFEST in files:
            with self._folder(staged) as scratch:
                return info.sha, {*self.manifest(scratch)["parts"]} & files
        if strays := sorted(files - NEW):
            raise DataError(
                f"{self.repo} holds something that is no bundle ({', '.join(strays[:3])}).",
                hint="Choose a new name. Nothing was uploaded.",
            )
        return info.sha, set()

    @contextmanager
    def _folder(self, staged: Path) -> Iterator[Path]:
        folder = staged.with_name(".manifest")
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(library_name="gcrs")

    @cached_property
    def _info(self) -> ModelInfo:
        """The repository at the revision: its commit and its files, asked once."""
        return self._api.model_info(self.repo, revision=self.asked, files_metadata=True)

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        """Turn whatever the client raises into one sentence and what to do instead."""
        if offline():
            raise MissingModelError(f"{self.name}: GCRS_OFFLINE is set.", hint=self._by_hand(what))
        import httpx
        from huggingface_hub import errors

        try:
            yield
        except GcrsError:
            raise
        except errors.HFValidationError as error:
            raise UsageError(f"{self.repo!r} is no name of a repository: {_first_line(error)}") from error
        except (httpx.HTTPError, OSError) as error:  # the client's own errors are both
            if error.__class__ is OSError and getattr(error, "errno", None):
                raise  # this machine's disk, not the hub
            raise MissingModelError(f"{self.name}: {self._reason(error)}", hint=self._by_hand(what)) from error
        except ValueError as error:  # the hub refused the card's header
            raise DataError(f"{self.name} refused the bundle: {_first_line(error)}") from error

    def _reason(self, error: Exception) -> str:
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            return "the repository is gated: ask for access on its page, then log in with HF_TOKEN or `hf auth login`."
        if isinstance(error, errors.RepositoryNotFoundError):
            return "there is no such repository, or it is private: log in with HF_TOKEN or `hf auth login`."
        if isinstance(error, errors.RevisionNotFoundError):
            return "the repository has no such revision."
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return (
                f"the hub refused (HTTP {status}): log in with HF_TOKEN or `hf auth login`, with the right to do this."
            )
        if isinstance(error, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set."
        if status:
            return f"the hub answered HTTP {status}."
        return f"the hub at {self._api.endpoint} cannot be reached ({type(error).__name__})."

    def _by_hand(self, what: str) -> str:
        if what == "write":
            return "By hand: gcrs push BUNDLE ./DIR, then put the directory's files into the repository."
        page = f"huggingface.co/{self.repo}"
        return f"By hand: download all files of {page} into a directory, then gcrs pull ./DIR --name {self.short}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".") + "."
