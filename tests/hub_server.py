"""A stand-in of the Hugging Face Hub's HTTP interface for models, in memory, for the real `huggingface_hub` client.

It speaks what creating a repository, uploading, listing and downloading need: plain commits, and git LFS for large
files, but not Xet, so clients run with `HF_HUB_DISABLE_XET=1`. A client is a process of its own, for `HF_ENDPOINT` is
read when `huggingface_hub` is imported. Committing needs the token `TOKEN`; reading is free, and so is the upload of a
large file's content to the address that was given for it.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
USER = "tester"
LARGE = (".safetensors", ".bin", ".pth")


@dataclass(frozen=True)
class StoredFile:
    content: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Name of the git blob, that of the content even where git would store a pointer."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """Commits, oldest first: (name, title, path -> file)."""

    commits: list[tuple[str, str, dict[str, StoredFile]]] = field(default_factory=lambda: [("0" * 40, "initial", {})])

    @property
    def files(self) -> dict[str, StoredFile]:
        return self.commits[-1][2]

    def at(self, revision: str) -> tuple[str, dict[str, StoredFile]] | None:
        if revision == "main":
            return self.commits[-1][0], self.commits[-1][2]
        return next(((name, files) for name, _, files in self.commits if name == revision), None)

    def commit(self, title: str, files: dict[str, StoredFile]) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {title}".encode()).hexdigest()
        self.commits.append((name, title, files))
        return name


class HubError(Exception):
    """An answer other than 200, with the code by which clients know it."""

    def __init__(self, status: int, code: str, message: str, commit: str | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.commit = status, code, message, commit


class HubServer:
    """`with HubServer() as hub:` serves at `hub.endpoint`; `hub.repositories` and `hub.requests` say what happened."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repository(self, name: str) -> Repository:
        if name not in self.repositories:
            raise HubError(404, "RepoNotFound", f"Repository {name} not found")
        return self.repositories[name]

    def revision(self, name: str, revision: str) -> tuple[str, dict[str, StoredFile]]:
        found = self.repository(name).at(revision)
        if found is None:
            raise HubError(404, "RevisionNotFound", f"Revision {revision} of {name} not found")
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments):
        """Requests are kept in `hub.requests`; the tests' output stays clean."""

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, status: int, content: bytes = b"", headers: dict | None = None, length: int | None = None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle_request(self):
        body = self.read_body()
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        try:
            for method, pattern, function in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                        raise HubError(401, "", "Invalid user token")
                    result = function(self, body, *map(unquote, match.groups()))
                    if result is not None:
                        self.answer(200, json.dumps(result).encode(), {"Content-Type": "application/json"})
                    return
            raise HubError(404, "", f"The stand-in has no {self.command} {path}")
        except HubError as error:
            headers = {"X-Error-Message": error.message, "Content-Type": "application/json"}
            if error.code:
                headers["X-Error-Code"] = error.code
            if error.commit:
                headers["X-Repo-Commit"] = error.commit
            self.answer(error.status, json.dumps({"error": error.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request


def _who(request, body):
    return {"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token"}}


def _create(request, body):
    wanted = json.loads(body)
    name = f"{wanted.get('organization') or USER}/{wanted['name'].split('/')[-1]}"
    url = f"{request.hub.endpoint}/{name}"
    if name in request.hub.repositories:
        request.answer(409, json.dumps({"error": "You already created this model repo", "url": url}).encode())
        return None
    request.hub.repositories[name] = Repository()
    return {"url": url, "name": name}


def _validate_card(request, body):
    return {"errors": [], "warnings": []}


def _preupload(request, body, name, revision):
    commit, files = request.hub.revision(name, revision)
    answers = []
    for wanted in json.loads(body)["files"]:
        path, stored = wanted["path"], files.get(wanted["path"])
        answer = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
        if stored is not None:  # lets the client skip what has not changed
            answer["oid"] = stored.sha256 if stored.is_large else stored.oid
        answers.append(answer)
    return {"files": answers, "commitOid": commit}


def _commit(request, body, name, revision):
    _, files = request.hub.revision(name, revision)
    files, title = dict(files), ""
    for line in body.splitlines():
        entry = json.loads(line)
        kind, value = entry["key"], entry["value"]
        if kind == "header":
            title = value["summary"]
        elif kind == "file":
            files[value["path"]] = StoredFile(base64.b64decode(value["content"]), False)
        elif kind == "lfsFile":
            if value["oid"] not in request.hub.large:
                raise HubError(400, "", f"{value['path']} was committed before its content was uploaded")
            files[value["path"]] = StoredFile(request.hub.large[value["oid"]], True)
        elif kind == "deletedFile":
            files.pop(value["path"], None)
        elif kind == "deletedFolder":
            files = {path: f for path, f in files.items() if not path.startswith(value["path"].rstrip("/") + "/")}
        else:
            raise HubError(400, "", f"Unknown kind of change {kind!r}")
    commit = request.hub.repository(name).commit(title, files)
    return {"commitOid": commit, "commitUrl": f"{request.hub.endpoint}/{name}/commit/{commit}"}


def _info(request, body, name, revision="main"):
    commit, files = request.hub.revision(name, revision)
    siblings = [{"rfilename": path} for path in sorted(files)]
    return {"_id": name, "id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings}


def _tree(request, body, name, revision, folder=""):
    _, files = request.hub.revision(name, revision)
    prefix = f"{folder.strip('/')}/" if folder else ""
    recursive = "recursive=true" in urlsplit(request.path).query.lower()
    entries = {}
    for path, stored in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        head, _, rest = path[len(prefix) :].partition("/")
        if rest:
            entries[prefix + head] = {"type": "directory", "path": prefix + head, "oid": "0" * 40, "size": 0}
        if recursive or not rest:
            entry = {"type": "file", "path": path, "oid": stored.oid, "size": len(stored.content)}
            if stored.is_large:
                entry["lfs"] = {"oid": stored.sha256, "size": len(stored.content), "pointerSize": 134}
            entries[path] = entry
    if folder and not entries:
        raise HubError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
    return list(entries.values())


def _resolve(request, body, name, revision, path):
    commit, files = request.hub.revision(name, revision)
    if path not in files:
        raise HubError(404, "EntryNotFound", f"Entry {path} not found in {name}", commit)
    stored = files[path]
    headers = {"X-Repo-Commit": commit, "ETag": f'"{stored.oid}"', "Accept-Ranges": "bytes"}
    if stored.is_large:
        headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(len(stored.content))}
    content, status = stored.content, 200
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
        content, status = content[first : last + 1], 206
    request.answer(status, content, headers)


def _large_batch(request, body, name):
    request.hub.repository(name)
    wanted = json.loads(body)
    objects = []
    for item in wanted["objects"]:
        answer = {"oid": item["oid"], "size": item["size"], "authenticated": True}
        if item["oid"] not in request.hub.large:
            answer["actions"] = {"upload": {"href": f"{request.hub.endpoint}/lfs/{item['oid']}"}}
        objects.append(answer)
    return {"transfer": "basic", "objects": objects}


def _large_upload(request, body, oid):
    if hashlib.sha256(body).hexdigest() != oid:
        raise HubError(400, "", "The content is not what its name says")
    request.hub.large[oid] = body
    request.answer(200)


_NAME = r"([^/]+/[^/]+)"
_ROUTES = [
    ("GET", "/api/whoami-v2", _who),
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate_card),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", _preupload),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", _commit),
    ("GET", f"/api/models/{_NAME}", _info),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", _info),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _tree),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)/(.+)", _tree),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _resolve),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _large_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _large_upload),
]
