"""A stand-in of the Hugging Face Hub's HTTP interface for models, in memory, for the real `huggingface_hub` client.

It speaks what creating a repository, its settings, uploading, branches, tags, pull requests, listing and downloading
need: plain commits, and git LFS for large files, but not Xet, so clients run with `HF_HUB_DISABLE_XET=1`. A client is a
process of its own, for `HF_ENDPOINT` is read when `huggingface_hub` is imported. Changes need the token `TOKEN`, which
may write to the repositories of `USER` and `ORGANIZATION`, and open pull requests elsewhere; `READ_TOKEN` may change
nothing. Reading is free, except of private repositories, and so is the upload of a large file's content to the address
that was given for it.
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
READ_TOKEN = "hf_read"
USER, ORGANIZATION = "tester", "lab"
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


Commit = tuple[str, str, dict[str, StoredFile]]


@dataclass
class Repository:
    """Branches, "refs/pr/N" among them, of commits, oldest first: (name, title, path -> file)."""

    private: bool = False
    gated: str | bool = False
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [("0" * 40, "initial", {})]})
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def commits(self) -> list[Commit]:
        return self.branches["main"]

    @property
    def files(self) -> dict[str, StoredFile]:
        return self.commits[-1][2]

    def at(self, revision: str) -> tuple[str, dict[str, StoredFile]] | None:
        if revision in self.branches:
            name, _, files = self.branches[revision][-1]
            return name, files
        sought = self.tags.get(revision, revision)
        every = (commit for commits in self.branches.values() for commit in commits)
        return next(((name, files) for name, _, files in every if name == sought), None)

    def branch(self, name: str, start: str = "main") -> None:
        self.branches[name] = list(self.branches[start])

    def commit(self, title: str, files: dict[str, StoredFile], branch: str = "main") -> str:
        name = hashlib.sha1(f"{len(self.branches[branch])} {branch} {title}".encode()).hexdigest()
        self.branches[branch].append((name, title, files))
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
        self.failing: int | None = None  # status of all answers, as of a Hub that is down
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

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def check_token(self, path: str, name: str = "") -> None:
        changes = self.command == "POST" or (self.command == "PUT" and path.endswith("/settings"))
        repository = self.hub.repositories.get(name)
        if self.token not in (TOKEN, READ_TOKEN):
            if changes or path.endswith("/whoami-v2"):
                raise HubError(401, "", "Invalid user token")
            if repository is not None and repository.private:
                raise HubError(401, "RepoNotFound", "Invalid username or password")
        elif changes and "/" in name and not path.endswith("/objects/batch") and "/preupload/" not in path:
            proposes = "create_pr=1" in urlsplit(self.path).query
            if self.token == READ_TOKEN or not (proposes or name.split("/")[0] in (USER, ORGANIZATION)):
                raise HubError(403, "", f"You do not have the rights to write to {name}")

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
            if self.hub.failing:
                raise HubError(self.hub.failing, "", "The Hub is down")
            for method, pattern, function in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    self.check_token(path, *map(unquote, match.groups()[:1]))
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
    owner = wanted.get("organization") or USER
    name = f"{owner}/{wanted['name'].split('/')[-1]}"
    if request.token == READ_TOKEN or owner not in (USER, ORGANIZATION):
        raise HubError(403, "", f'You do not have the rights to create a model under the namespace "{owner}"')
    url = f"{request.hub.endpoint}/{name}"
    if name in request.hub.repositories:
        request.answer(409, json.dumps({"error": "You already created this model repo", "url": url}).encode())
        return None
    private = wanted.get("private") or wanted.get("visibility") == "private"
    request.hub.repositories[name] = Repository(private=bool(private))
    return {"url": url, "name": name}


def _settings(request, body, name):
    wanted, repository = json.loads(body), request.hub.repository(name)
    repository.gated = wanted.get("gated", repository.gated)
    if "visibility" in wanted or "private" in wanted:
        repository.private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    return {}


def _refs(request, body, name):
    repository = request.hub.repository(name)
    branches = [
        {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commits[-1][0]}
        for branch, commits in repository.branches.items()
        if not branch.startswith("refs/pr/")
    ]
    tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": at} for tag, at in repository.tags.items()]
    return {"branches": branches, "converts": [], "tags": tags}


def _branch(request, body, name, branch):
    repository = request.hub.repository(name)
    if branch in repository.branches:
        raise HubError(409, "", f"Reference already exists: {branch}")
    repository.branch(branch)
    return {}


def _tag(request, body, name, revision):
    commit, _ = request.hub.revision(name, revision)
    tags, tag = request.hub.repository(name).tags, json.loads(body)["tag"]
    if tag in tags:
        raise HubError(409, "", f"Tag reference exists already: {tag}")
    tags[tag] = commit
    return {}


def _validate_card(request, body):
    content = json.loads(body)["content"]
    if "license: none-such" in content:
        answer = {"errors": [{"message": '"license" must be one of the licenses of the Hub'}], "warnings": []}
        request.answer(400, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        return None
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
    repository, url = request.hub.repository(name), f"{request.hub.endpoint}/{name}"
    answer = {}
    if "create_pr=1" in urlsplit(request.path).query:
        number = 1 + sum(branch.startswith("refs/pr/") for branch in repository.branches)
        start, revision = revision, f"refs/pr/{number}"
        repository.branch(revision, start)
        answer = {"pullRequestUrl": f"{url}/discussions/{number}"}
    commit = repository.commit(title, files, revision)
    return {"commitOid": commit, "commitUrl": f"{url}/commit/{commit}", **answer}


def _info(request, body, name, revision="main"):
    commit, files = request.hub.revision(name, revision)
    siblings = [{"rfilename": path} for path in sorted(files)]
    return {"_id": name, "id": name, "modelId": name, "sha": commit, "siblings": siblings} | {
        "private": request.hub.repository(name).private,
        "gated": request.hub.repository(name).gated,
    }


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
    ("PUT", f"/api/models/{_NAME}/settings", _settings),
    ("GET", f"/api/models/{_NAME}/refs", _refs),
    ("POST", f"/api/models/{_NAME}/branch/([^/]+)", _branch),
    ("POST", f"/api/models/{_NAME}/tag/([^/]+)", _tag),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", _info),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _tree),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)/(.+)", _tree),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _resolve),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _large_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _large_upload),
]
