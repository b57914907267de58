"""A Hub on loopback: the HTTP API that `huggingface_hub` speaks, over repositories in memory.

It knows repositories of models and data sets, branches, commits, private repositories, access tokens, uploads as plain
files and by LFS (batch, upload, verify), file information, downloads with etags, redirects and ranges. It does not
speak the xet protocol: no reply offers it. Faults can be injected to see what a client makes of them.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".png", ".jpg")
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>model|dataset)s/{_REPOSITORY}"
_PIECE = 1 << 20
_PREFIX = rf"/(?P<prefix>datasets/)?{_REPOSITORY}"


@dataclass(frozen=True)
class Blob:
    """A file's content, and whether LFS holds it."""

    content: bytes | memoryview
    is_lfs: bool

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_id(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        content = pointer.encode() if self.is_lfs else bytes(self.content)
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_id


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    files: dict[str, Blob]
    title: str

    @property
    def sha(self) -> str:
        names = {path: blob.etag for path, blob in sorted(self.files.items())}
        return hashlib.sha1(json.dumps([names, self.title]).encode()).hexdigest()


@dataclass
class Repository:
    """Branches, each with its commits, the last one first."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [Commit({}, "initial commit")]})

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch's name or a commit's hash names."""
        if revision in self.branches:
            return self.branches[revision][0]
        commits = (commit for branch in self.branches.values() for commit in branch)
        return next((commit for commit in commits if commit.sha == revision), None)


@dataclass
class Fault:
    """What happens to the next requests that match.

    Args:
        method, path: of the requests; the path is a regular expression.
        status: reply with this status; None breaks the connection off.
        times: so many requests.
        keep: of a download, send so many bytes before the connection breaks off.
        stall: wait for `released` before anything else happens.
    """

    method: str
    path: str
    status: int | None = None
    times: int = 1
    keep: int | None = None
    stall: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class RefusalError(Exception):
    """A reply with an error."""

    def __init__(self, status: int, code: str = "", message: str = "", **facts: Any):
        self.status, self.code, self.message, self.facts = status, code, message, facts


class LocalHub:
    """The server; start it with `running()`.

    It sends as fast as it can; `bytes_per_second` makes it as slow as a line to the real one.

    Args:
        tokens: access token → user. Users may write to their own repositories only.
    """

    def __init__(self, tokens: dict[str, str]):
        self.tokens = tokens
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes | memoryview] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: list[Fault] = []
        self.bytes_per_second: float | None = None
        self.url = ""
        self.storage_url = ""
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[LocalHub]:
        """Serve on a free port of 127.0.0.1 until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.storage_url = f"http://localhost:{server.server_port}"  # another host, which gets no access tokens
        thread.start()
        try:
            yield self
        finally:
            for fault in self.faults:
                fault.released.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def fail(self, method: str, path: str, status: int | None = None, **options: Any) -> Fault:
        """Inject a fault, see `Fault`."""
        self.faults.append(Fault(method, path, status, **options))
        return self.faults[-1]

    def files(self, repository: str, revision: str = "main", kind: str = "model") -> dict[str, bytes | memoryview]:
        """Content of a repository's files by path."""
        commit = self.repositories[kind, repository].find(revision)
        assert commit is not None
        return {path: blob.content for path, blob in commit.files.items()}

    def titles(self, repository: str, revision: str = "main", kind: str = "model") -> list[str]:
        """First lines of a branch's commit messages, the last one first."""
        return [commit.title for commit in self.repositories[kind, repository].branches[revision]]

    def count(self, method: str, path: str) -> int:
        """Number of requests so far whose path matches a regular expression."""
        return sum(name == method and bool(re.search(path, found)) for name, found, _ in self.requests)

    # --- requests: each answers with a status, a body and headers ---

    def create(self, user: str | None, body: dict[str, Any]) -> Any:
        if user is None:
            raise RefusalError(401, message="Invalid username or password.")
        name = f"{body.get('organization') or user}/{body['name']}"
        self._require_owner(user, name)
        key = (body.get("type") or "model", name)
        prefix = "datasets/" if key[0] == "dataset" else ""
        address = f"{self.url}/{prefix}{name}"
        if key in self.repositories:
            raise RefusalError(409, message="You already created this repository", url=address)
        self.repositories[key] = Repository(body.get("visibility") == "private")
        return {"url": address, "name": name}

    def repository(self, user: str | None, kind: str, name: str) -> Repository:
        found = self.repositories.get((kind, name))
        if found is None or (found.private and user != name.split("/")[0]):
            raise RefusalError(404 if user else 401, "RepoNotFound", "Repository not found")
        return found

    def commit_at(self, repository: Repository, revision: str) -> Commit:
        found = repository.find(unquote(revision))
        if found is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def info(self, user: str | None, kind: str, name: str, revision: str, blobs: bool = False) -> Any:
        repository = self.repository(user, kind, name)
        commit = self.commit_at(repository, revision)
        return {
            "id": name,
            "sha": commit.sha,
            "private": repository.private,
            "siblings": [self._sibling(path, commit.files[path], blobs) for path in sorted(commit.files)],
            "tags": [],
        }

    @staticmethod
    def _sibling(path: str, blob: Blob, blobs: bool) -> dict[str, Any]:
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(blob.content), "blobId": blob.git_id}
            if blob.is_lfs:
                sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": 130}
        return sibling

    def publish(self, name: str, files: dict[str, Blob]) -> None:
        """Put files into a model repository as one commit, as if their owner had."""
        repository = self.repositories.setdefault(("model", name), Repository(private=False))
        repository.branches["main"].insert(0, Commit(dict(files), "upload"))
        self.objects |= {blob.sha256: blob.content for blob in files.values() if blob.is_lfs}

    def tree(self, commit: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
        folder = folder.strip("/")
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in sorted(commit.files.items()):
            if folder and not path.startswith(f"{folder}/"):
                continue
            rest = path[len(folder) + 1 if folder else 0 :]
            parents = rest.split("/")[:-1]
            for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
                parent = "/".join([*([folder] if folder else []), *parents[:depth]])
                entries[parent] = {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0}
            if recursive or not parents:
                entries[path] = self._entry(path, blob)
        if folder and not entries:
            raise RefusalError(404, "EntryNotFound", f"{folder} does not exist")
        return list(entries.values())

    def paths_info(self, commit: Commit, paths: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in paths:
            if path in commit.files:
                found.append(self._entry(path, commit.files[path]))
            elif any(name.startswith(f"{path}/") for name in commit.files):
                found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        return found

    @staticmethod
    def _entry(path: str, blob: Blob) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob.git_id, "size": len(blob.content)}
        if blob.is_lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
        return entry

    def preupload(self, commit: Commit, body: dict[str, Any]) -> Any:
        files = []
        for file in body["files"]:
            known = commit.files.get(file["path"])
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": known.etag if known else None,
                }
            )
        return {"files": files}

    def lfs_batch(self, body: dict[str, Any]) -> Any:
        objects = []
        for entry in body["objects"]:
            known = dict(entry)
            if entry["oid"] not in self.objects:
                known["actions"] = {
                    "upload": {"href": f"{self.storage_url}/lfs/{entry['oid']}"},
                    "verify": {"href": f"{self.url}/lfs-verify"},
                }
            objects.append(known)
        return {"transfer": "basic", "objects": objects}

    def receive(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise RefusalError(400, message="The content is not what its checksum says")
        self.objects[oid] = content

    def verify(self, body: dict[str, Any]) -> Any:
        if len(self.objects.get(body["oid"], b"")) != body["size"]:
            raise RefusalError(404, message="No such object")
        return {}

    def commit(self, repository: Repository, name: str, revision: str, body: bytes) -> Any:
        revision = unquote(revision)
        if revision not in repository.branches:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files, title = dict(repository.branches[revision][0].files), ""
        for line in body.decode().splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.objects:
                    raise RefusalError(400, message=f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = Blob(self.objects[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise RefusalError(400, message=f"Unknown operation {key}")
        new = Commit(files, title)
        repository.branches[revision].insert(0, new)
        return {"commitUrl": f"{self.url}/{name}/commit/{new.sha}", "commitOid": new.sha, "success": True}

    def _require_owner(self, user: str | None, name: str) -> None:
        if user is None:
            raise RefusalError(401, message="Invalid username or password.")
        if user != name.split("/")[0]:
            raise RefusalError(403, message=f"You don't have the rights to write to {name}")


class _Handler(BaseHTTPRequestHandler):
    """One request after the other of a connection."""

    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path, query = address.path, parse_qs(address.query)
        with self.hub.lock:
            self.hub.requests.append((self.command, path, dict(self.headers.items())))
            fault = next(
                (f for f in self.hub.faults if f.times and f.method == self.command and re.search(f.path, path)), None
            )
            if fault is not None:
                fault.times -= 1
        if fault is not None:
            fault.reached.set()
            if fault.stall:
                fault.released.wait(60)
            if fault.keep is None and fault.status is None:
                self.close_connection = True
                return
        body = self._read_body()
        try:
            if fault is not None and fault.status is not None:
                raise RefusalError(fault.status, message="injected fault")
            with self.hub.lock:
                reply = self._route(path, query, body)
        except RefusalError as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, json.dumps({"error": refused.message} | refused.facts).encode(), headers)
            return
        if isinstance(reply, Download):
            self._send_file(reply, fault.keep if fault is not None else None)
        else:
            self._send(200, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _user(self) -> str | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> Any:
        hub = self.hub
        is_read = self.command in ("GET", "HEAD")
        if match := re.fullmatch(r"/lfs/(?P<oid>[0-9a-f]{64})", path):
            if is_read:
                return Download(hub.objects[match["oid"]], {"ETag": f'"{match["oid"]}"'})
            return hub.receive(match["oid"], body)  # whoever has a signed address may, as with the real one
        user = self._user()
        content = json.loads(body) if body and not path.endswith("/commit/") and "/commit/" not in path else {}
        if path == "/api/whoami-v2":
            if user is None:
                raise RefusalError(401, message="Invalid username or password.")
            return {"type": "user", "name": user, "orgs": []}
        if path == "/api/repos/create":
            return hub.create(user, content)
        if path == "/api/validate-yaml":
            return self._validate_card(content["content"])
        if path == "/lfs-verify":
            return hub.verify(content)
        if match := re.fullmatch(rf"{_PREFIX}\.git/info/lfs/objects/batch", path):
            hub._require_owner(user, match["repository"])
            return hub.lfs_batch(content)
        if match := re.fullmatch(rf"{_PREFIX}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", path):
            return self._resolve(user, match, unquote(match["path"]))
        actions: dict[str, Callable[[Repository, str, str], Any]] = {
            "preupload": lambda repository, revision, rest: hub.preupload(hub.commit_at(repository, revision), content),
            "tree": lambda repository, revision, rest: hub.tree(
                hub.commit_at(repository, revision), rest, query.get("recursive", [""])[0].lower() in ("true", "1")
            ),
            "paths-info": lambda repository, revision, rest: hub.paths_info(
                hub.commit_at(repository, revision), self._paths(body, content)
            ),
            "branch": lambda repository, revision, rest: self._branch(repository, unquote(revision)),
        }
        match = re.fullmatch(rf"{_API}(/revision/(?P<revision>[^/]+))?", path)
        if match and is_read:
            blobs = query.get("blobs", [""])[0].lower() in ("true", "1")
            return hub.info(user, match["kind"], match["repository"], match["revision"] or "main", blobs)
        match = re.fullmatch(rf"{_API}/(?P<action>[\w-]+)/(?P<revision>[^/]+)(?P<rest>/.*)?", path)
        if match is None or (match["action"] not in actions and match["action"] != "commit"):
            raise RefusalError(404, message=f"This Hub has no {path}")
        repository = hub.repository(user, match["kind"], match["repository"])
        if match["action"] in ("preupload", "commit", "branch"):
            hub._require_owner(user, match["repository"])
        if match["action"] == "commit":
            return hub.commit(repository, match["repository"], match["revision"], body)
        return actions[match["action"]](repository, match["revision"], unquote(match["rest"] or ""))

    @staticmethod
    def _paths(body: bytes, content: dict[str, Any]) -> list[str]:
        paths = content["paths"]
        return [paths] if isinstance(paths, str) else paths

    @staticmethod
    def _branch(repository: Repository, name: str) -> Any:
        if name in repository.branches:
            raise RefusalError(409, message="Reference already exists")
        repository.branches[name] = list(repository.branches["main"])
        return {}

    @staticmethod
    def _validate_card(text: str) -> Any:
        match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        try:
            metadata = yaml.safe_load(match[1]) if match else {}
        except yaml.YAMLError as error:
            raise RefusalError(400, errors=[{"message": str(error)}]) from error
        if not isinstance(metadata, dict):
            raise RefusalError(400, errors=[{"message": "metadata must be a mapping"}])
        return {"errors": [], "warnings": []}

    def _resolve(self, user: str | None, match: re.Match[str], path: str) -> Any:
        kind = "dataset" if match["prefix"] else "model"
        repository = self.hub.repository(user, kind, match["repository"])
        commit = self.hub.commit_at(repository, match["revision"])
        if path not in commit.files:
            refused = RefusalError(404, "EntryNotFound", "Entry not found")
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message, "X-Repo-Commit": commit.sha}
            return Download(b"", headers, status=404)
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.git_id}"'}
        if not blob.is_lfs:
            return Download(blob.content, headers)
        headers |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.sha256}"'}
        return Download(b"", headers | {"Location": f"{self.hub.storage_url}/lfs/{blob.sha256}"}, status=302)

    def _send_file(self, download: Download, keep: int | None) -> None:
        content, status = download.content, download.status
        headers = dict(download.headers)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if status == 200:
            headers["Accept-Ranges"] = "bytes"
            if wanted:
                start, stop = int(wanted[1]), int(wanted[2] or len(content) - 1) + 1
                headers["Content-Range"] = f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"
                content, status = content[start:stop], 206
        if keep is None or self.command == "HEAD":
            self._send(status, content, headers)
            return
        self._send(status, content[:keep], headers, length=len(content))
        self.close_connection = True

    def _send(
        self, status: int, content: bytes | memoryview, headers: dict[str, str], length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._write(content)

    def _write(self, content: bytes | memoryview) -> None:
        pace = self.hub.bytes_per_second
        if pace is None or len(content) < _PIECE:
            self.wfile.write(content)
            return
        begin = time.monotonic()
        for start in range(0, len(content), _PIECE):
            self.wfile.write(content[start : start + _PIECE])
            time.sleep(max(0.0, begin + start / pace - time.monotonic()))


@dataclass(frozen=True)
class Download:
    """A reply that is a file, or points to one."""

    content: bytes | memoryview
    headers: dict[str, str]
    status: int = 200


__all__ = ["Fault", "LocalHub"]
