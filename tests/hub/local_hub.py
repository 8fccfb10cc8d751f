"""A server on this machine that the unmodified huggingface_hub client talks to: repositories, commits, LFS, refs, and faults on demand.

It keeps real bytes, checks every sha256, and answers as the Hub's API does as far as a push and a download need it. What it cannot
show is the rules of huggingface.co: permissions, metadata checks, quotas.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "a" * 34
LFS_SUFFIXES = (".safetensors", "tokenizer.json")


@dataclass
class Blob:
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repository:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, Blob], title: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {branch} {title}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        self.titles.append(title)
        return name

    def resolve(self, revision: str) -> str | None:
        name = self.branches.get(revision) or self.tags.get(revision)
        return name or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, Blob]:
        return self.commits[self.resolve(revision)]


class LocalHub:
    """The server and what it holds. `faults[KIND]` is a queue of what goes wrong next: a status, drop, drop_after or slow.

    Kinds: create, preupload, batch, put, commit, tree, tag, read. A dataset is the repository `datasets/NAME`.
    """

    def __init__(self, xet: str | None = None) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: dict[str, list] = defaultdict(list)
        self.calls: list[str] = []
        self.corrupt = False  # keep other bytes than were sent
        self.xet = xet  # address of a Xet store
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "LocalHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Dropped(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = (
            self._read_chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(length)
        )
        path = unquote(urlsplit(self.path).path)
        self.hub.calls.append(f"{method} {path}")
        for wanted, pattern, action, fault in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method in wanted:
                try:
                    after = self._fault(fault)
                    if after is not None and after[0]:
                        self._send(*after)
                        return
                    with self.hub.lock:
                        answer = action(self, body, **match.groupdict())
                    if after is not None:
                        raise _Dropped
                    self._send(*answer)
                except _Dropped:
                    self.close_connection = True
                    self.connection.close()
                return
        self._send(404, {"error": f"no route {method} {path}"})

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _fault(self, kind: str | None):
        """None: nothing is wrong. An answer to give instead, or (0,): do it and drop the reply."""
        with self.hub.lock:
            fault = self.hub.faults[kind].pop(0) if kind and self.hub.faults[kind] else None
        if fault == "slow":
            time.sleep(0.5)
            return None
        if fault == "drop":
            raise _Dropped
        if fault == "drop_after":
            return (0,)
        if fault is not None:
            return fault, {"error": f"injected {fault}"}, {"Retry-After": "1"} if fault == 429 else {}
        return None

    def _send(self, status: int, content: object = None, headers: dict | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"


def _no(status: int, code: str, message: str):
    return status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message}


def _needs_token(action):
    def checked(handler: _Handler, body: bytes, **parts: str):
        return action(handler, body, **parts) if handler.is_known else _no(401, "", "Invalid username or password.")

    return checked


def _needs_repository(action):
    def checked(handler: _Handler, body: bytes, repo: str, **parts: str):
        found = handler.hub.repositories.get(repo)
        if found is None or (found.private and not handler.is_known):
            return _no(404 if handler.is_known else 401, "RepoNotFound", "Repository not found")
        return action(handler, body, found, repo, **parts)

    return checked


# ------------------------------------------------------------------------------------------------ repositories


@_needs_token
def whoami(handler: _Handler, body: bytes):
    return 200, {
        "type": "user",
        "name": "alice",
        "orgs": [],
        "auth": {"accessToken": {"displayName": "t", "role": "write"}},
    }


@_needs_token
def create(handler: _Handler, body: bytes):
    asked = json.loads(body)
    name = f"{asked.get('organization') or 'alice'}/{asked['name']}"
    url = f"{handler.hub.url}/{name}"
    if name in handler.hub.repositories:
        return 409, {"error": "You already created this model repo", "url": url}
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    handler.hub.repositories[name] = repository = Repository(private)
    repository.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, "initial commit")
    return 200, {"url": url, "name": name, "id": name}


@_needs_repository
def info(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str = "main"):
    commit = repository.resolve(rev)
    if commit is None:
        return _no(404, "RevisionNotFound", "Invalid rev")
    siblings = [{"rfilename": name} for name in sorted(repository.commits[commit])]
    return 200, {
        "_id": "0" * 24, "id": repo, "modelId": repo, "sha": commit, "private": repository.private, "tags": [],
        "downloads": 0, "likes": 0, "siblings": siblings,
    }  # fmt: skip


@_needs_repository
def tree(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str, folder: str | None = None):
    if repository.resolve(rev) is None:
        return _no(404, "RevisionNotFound", "Invalid rev")
    start = f"{folder}/" if folder else ""
    below = {name: blob for name, blob in repository.files(rev).items() if name.startswith(start)}
    if folder and not below:
        return _no(404, "EntryNotFound", "Entry not found")
    if "recursive=true" in urlsplit(handler.path).query.lower():
        return 200, _entries(below)
    direct = {name: blob for name, blob in below.items() if "/" not in name.removeprefix(start)}
    folders = {start + name.removeprefix(start).partition("/")[0] for name in below if name not in direct}
    return 200, [*_entries(direct), *({"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders))]


@_needs_repository
def paths_info(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str):
    asked = parse_qs(body.decode())["paths"]
    return 200, _entries({name: blob for name, blob in repository.files(rev).items() if name in asked})


def _entries(files: dict[str, Blob]) -> list[dict]:
    entries = []
    for name, blob in files.items():
        entry = {"type": "file", "path": name, "size": len(blob.data), "oid": blob.git}
        if name.endswith(LFS_SUFFIXES):
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
        entries.append(entry)
    return entries


@_needs_token
@_needs_repository
def branch(handler: _Handler, body: bytes, repository: Repository, repo: str, branch: str):
    if branch in repository.branches:
        return 409, {"error": "Reference already exists"}
    repository.branches[branch] = repository.branches["main"]
    return 200, {}


@_needs_token
@_needs_repository
def tag(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str):
    name = json.loads(body)["tag"]
    if name in repository.tags:
        return 409, {"error": "Tag reference exists already"}
    repository.tags[name] = repository.resolve(rev)
    return 200, {}


# ------------------------------------------------------------------------------------------------ uploads


@_needs_token
@_needs_repository
def preupload(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str):
    there = repository.files(rev)
    answers = []
    for asked in json.loads(body)["files"]:
        name = asked["path"]
        large = name.endswith(LFS_SUFFIXES)
        blob = there.get(name)
        oid = None if blob is None else blob.sha256 if large else blob.git
        answers.append({"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
    return 200, {"files": answers, "commitOid": repository.resolve(rev)}


@_needs_token
def batch(handler: _Handler, body: bytes, repo: str):
    url, objects = handler.hub.url, []
    for asked in json.loads(body)["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in handler.hub.large:
            answer["actions"] = {"upload": {"href": f"{url}/large/{asked['oid']}"}, "verify": {"href": f"{url}/verify"}}
        objects.append(answer)
    return 200, {"transfer": "basic", "objects": objects}


def put(handler: _Handler, body: bytes, oid: str):
    if hashlib.sha256(body).hexdigest() != oid:
        return 400, {"error": "sha256 mismatch"}
    handler.hub.large[oid] = body[:-1] + b"\xff" if handler.hub.corrupt else body
    return 200, {}


@_needs_token
@_needs_repository
def commit(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str):
    files, title = dict(repository.files(rev)), ""
    for line in filter(bytes.strip, body.splitlines()):
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            title = value["summary"]
        elif entry["key"] == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif entry["key"] == "lfsFile":
            data = handler.hub.large.get(value["oid"])
            if data is None and handler.hub.xet is None:
                return 400, {"error": f"LFS object {value['oid']} is missing"}
            files[value["path"]] = Blob(data) if data is not None else XetBlob(value["oid"], value["size"])
        elif entry["key"] == "deletedFile":
            files.pop(value["path"], None)
    name = repository.commit(rev, files, title)
    url = f"{handler.hub.url}/{repo}/commit/{name}"
    return 200, {"success": True, "commitOid": name, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None}


class XetBlob(Blob):
    """A file whose bytes are in a Xet store: only its digest and size are known here."""

    def __init__(self, oid: str, size: int) -> None:
        super().__init__(b"\0" * size)
        self.oid = oid

    @property
    def sha256(self) -> str:
        return self.oid


def xet_token(handler: _Handler, body: bytes, repo: str, rev: str):
    if handler.hub.xet is None:
        return 404, {"error": "no Xet store"}
    expires = int(time.time()) + 3600
    headers = {
        "X-Xet-Cas-Url": handler.hub.xet, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": str(expires)
    }  # fmt: skip
    return 200, {"accessToken": "x", "exp": expires, "casUrl": handler.hub.xet}, headers


@_needs_repository
def download(handler: _Handler, body: bytes, repository: Repository, repo: str, rev: str, path: str):
    name = repository.resolve(rev)
    if name is None:
        return _no(404, "RevisionNotFound", "Invalid rev")
    blob = repository.commits[name].get(path)
    if blob is None:
        return _no(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": name, "ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"}
    if part := re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")):
        start, end = int(part[1]), min(int(part[2] or len(blob.data) - 1), len(blob.data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(blob.data)}"
        return 206, blob.data[start : end + 1], headers
    return 200, blob.data, headers


def yaml_is_fine(handler: _Handler, body: bytes):
    return 200, {"errors": [], "warnings": []}


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/models/{_REPO}"
_DATASET = r"(?P<repo>datasets/[^/]+/[^/]+)"
# (methods, path, action, kind of fault)
ROUTES = [
    (("GET",), "/api/whoami-v2", whoami, None),
    (("POST",), "/api/repos/create", create, "create"),
    (("POST",), "/api/validate-yaml", yaml_is_fine, None),
    (("POST",), rf"{_API}/preupload/(?P<rev>.+)", preupload, "preupload"),
    (("POST",), rf"{_API}/commit/(?P<rev>.+)", commit, "commit"),
    (("GET",), rf"{_API}/revision/(?P<rev>.+)", info, None),
    (("GET",), rf"{_API}/tree/(?P<rev>[^/]+)", tree, "tree"),
    (("POST",), rf"{_API}/branch/(?P<branch>.+)", branch, None),
    (("POST",), rf"{_API}/tag/(?P<rev>.+)", tag, "tag"),
    (("GET",), rf"{_API}/xet-(?:write|read)-token/(?P<rev>.+)", xet_token, None),
    (("GET",), _API, info, None),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", batch, "batch"),
    (("PUT",), r"/large/(?P<oid>\w+)", put, "put"),
    (("POST",), "/verify", yaml_is_fine, None),
    (("GET",), rf"/api/{_DATASET}/revision/(?P<rev>.+)", info, None),
    (("GET",), rf"/api/{_DATASET}/tree/(?P<rev>[^/]+)(?:/(?P<folder>.+))?", tree, "tree"),
    (("POST",), rf"/api/{_DATASET}/paths-info/(?P<rev>[^/]+)", paths_info, None),
    (("GET",), rf"/api/{_DATASET}", info, None),
    (("GET", "HEAD"), rf"/{_DATASET}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", download, "read"),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", download, None),
]
