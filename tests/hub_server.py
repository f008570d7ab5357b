"""A small hub on this machine: the endpoints that huggingface_hub 1.x calls for push and pull, kept in memory.

Repositories with commits and branches, private and gated ones, LFS files over plain HTTP (no Xet). It answers as that
client expects and checks what it is sent; what the real hub does beyond that is not known here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
LFS = (".safetensors", "tokenizer.json")


@dataclass
class Commit:
    """One state of a repository."""

    sha: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """Its commits and branches; `gated` shows the list of files but gives none without the token."""

    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, files: dict[str, bytes], message: str, branch: str = "main") -> Commit:
        """Commit these files on a branch."""
        seed = json.dumps([len(self.commits), message, branch, sorted(files)]).encode()
        commit = Commit(hashlib.sha1(seed).hexdigest(), message, files)
        self.commits.append(commit)
        self.branches[branch] = commit.sha
        return commit

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch or hash."""
        sha = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit.sha == sha), None)


class Hub:
    """Everything that the server holds, and the requests that it saw."""

    def __init__(self) -> None:
        self.repos: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.seen: list[str] = []
        self.url = ""

    def new(self, name: str, **options: Any) -> Repository:
        """A repository as the hub makes it."""
        self.repos[name] = repo = Repository(**options)
        repo.add({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return repo


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that listens on a free port of 127.0.0.1; `url` is for HF_ENDPOINT."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes = {
            r"(?:GET|HEAD) /api/models/([^/]+/[^/]+)(?:/revision/(.+))?": self._info,
            r"(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self._resolve,
            r"POST /api/repos/create": self._create,
            r"POST /api/validate-yaml": self._validate,
            r"POST /api/models/([^/]+/[^/]+)/preupload/(.+)": self._preupload,
            r"POST /api/models/([^/]+/[^/]+)/commit/(.+)": self._commit,
            r"POST /api/models/([^/]+/[^/]+)/branch/(.+)": self._branch,
            r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch": self._batch,
            r"PUT /lfs/([0-9a-f]{64})": self._store,
        }
        for pattern, answer in routes.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                answer(body, *found.groups())
                return
        self._send(500, {"error": f"the small hub does not know {self.command} {path}"})

    def _send(self, code: int, value: Any = None, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value if value is not None else {}).encode()
        self.send_response(code)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str, *, write: bool = False) -> Repository | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._owner):
            self._send(401, X_Error_Code="RepoNotFound")
            return None
        if write and not self._owner:
            self._send(403, {"error": "forbidden"})
            return None
        return repo

    def _at(self, repo: Repository, revision: str | None) -> Commit | None:
        commit = repo.at(revision or "main")
        if commit is None:
            self._send(404, X_Error_Code="RevisionNotFound")
        return commit

    def _info(self, body: bytes, name: str, revision: str | None) -> None:
        if (repo := self._repo(name)) is None or (commit := self._at(repo, revision)) is None:
            return
        files = [{"rfilename": path, "size": len(data)} for path, data in commit.files.items()]
        about = {"id": name, "modelId": name, "sha": commit.sha, "private": repo.private, "siblings": files}
        self._send(200, about | {"gated": "manual" if repo.gated else False, "tags": [], "downloads": 0, "likes": 0})

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if (repo := self._repo(name)) is None or (commit := self._at(repo, revision)) is None:
            return
        if repo.gated and not self._owner:
            self._send(403, X_Error_Code="GatedRepo")
        elif path not in commit.files:
            self._send(404, X_Error_Code="EntryNotFound")
        else:
            data = commit.files[path]
            self._send(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=commit.sha)

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._owner:
            self._send(401, {"error": "Invalid credentials"})
        elif name in self.hub.repos:
            self._send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        else:
            self.hub.new(name, private=asked.get("visibility") == "private")
            self._send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _validate(self, body: bytes) -> None:
        import yaml

        found = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        header = yaml.safe_load(found[1]) if found else {}
        base = header.get("base_model")
        if base is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
            self._send(400, {"errors": [{"message": f'"base_model" with value "{base}" is not valid.'}]})
        else:
            self._send(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if (repo := self._repo(name, write=True)) is None or (commit := self._at(repo, revision)) is None:
            return
        out = []
        for file in json.loads(body)["files"]:
            path, held = file["path"], commit.files.get(file["path"])
            mode = "lfs" if path.endswith(LFS) else "regular"
            blob = hashlib.sha256(held or b"") if mode == "lfs" else hashlib.sha1(b"blob %d\0" % len(held or b""))
            if mode == "regular":
                blob.update(held or b"")
            oid = blob.hexdigest() if held is not None else None
            out.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": out})

    def _batch(self, body: bytes, name: str) -> None:
        if self._repo(name, write=True) is None:
            return
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}
            there = asked["oid"] in self.hub.blobs
            objects.append({**asked, **({} if there else {"actions": upload})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self._send(200)

    def _branch(self, body: bytes, name: str, branch: str) -> None:
        if (repo := self._repo(name, write=True)) is not None:
            repo.branches[branch] = repo.branches["main"]
            self._send(200)

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        if (repo := self._repo(name, write=True)) is None or (commit := self._at(repo, revision)) is None:
            return
        files, header = dict(commit.files), {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        if header.get("parentCommit") not in (None, commit.sha):
            self._send(412, {"error": "A commit has happened since."})
            return
        new = repo.add(files, header["summary"], revision)
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{new.sha}", "commitOid": new.sha})
