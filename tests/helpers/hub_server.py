"""A small Hub on loopback: the routes that the client uses to make, fill and read a repository.

Files live in memory. Large ones take the Git LFS route: requested in a batch, sent to an address of
their own, and read back through a redirect, as on the real Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_of_the_tests"
LARGE = (".safetensors", ".onnx")

Files = dict[str, bytes]


class Refusal(Exception):
    """An error response: its status, and the code from which the client picks its exception."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status = status
        self.code = code


class Commit(NamedTuple):
    oid: str
    files: Files


class Hub:
    """Start on entering, stop on leaving.

    Attributes:
        repos: "owner/name" -> its commits, the newest last.
        private: repositories that only the token's owner sees.
        asked: method and path of each request.
    """

    def __init__(self) -> None:
        self.repos: dict[str, list[Commit]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []
        self.large: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"state": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # As far as a client can see, large files are on another host.
        self.storage = f"http://localhost:{self._server.server_port}/lfs"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo: str) -> Files:
        return self.repos[repo][-1].files

    def commit(self, repo: str, files: Files) -> str:
        """A new commit that holds exactly `files`."""
        history = self.repos.setdefault(repo, [])
        oid = hashlib.sha1(f"{repo} {len(history)}".encode()).hexdigest()
        history.append(Commit(oid, files))
        return oid

    def at(self, repo: str, revision: str) -> Commit:
        if repo not in self.repos:
            raise Refusal(404, "RepoNotFound")
        history = self.repos[repo]
        found = [c for c in history if c.oid == revision] or (history if revision == "main" else [])
        if not found:
            raise Refusal(404, "RevisionNotFound")
        return found[-1]


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def _handle(self) -> None:
        self.body = self._read_body()
        path = unquote(urlsplit(self.path).path)
        self.state.asked.append(f"{self.command} {path}")
        try:
            for method, pattern, route in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    self._check_visible(match.groupdict().get("repo"))
                    route(self, **match.groupdict())
                    return
            raise Refusal(404, "EntryNotFound", f"no route {self.command} {path}")
        except Refusal as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            self._answer(json.dumps({"error": str(error)}).encode(), error.status, headers)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _check_visible(self, repo: str | None) -> None:
        if repo in self.state.private and not self._is_owner():
            raise Refusal(401, "RepoNotFound")

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _check_owner(self) -> None:
        if not self._is_owner():
            raise Refusal(401, "", "Invalid credentials in Authorization header")

    def _answer(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")  # so that a stopped server answers nobody
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    # ---- making and filling --------------------------------------------------------------------

    def create(self) -> None:
        self._check_owner()
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.state.repos:
            self._json({"error": "You already created it", "url": f"{self.state.url}/{repo}"}, 409)
            return
        self.state.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        if asked.get("private") or asked.get("visibility") == "private":
            self.state.private.add(repo)
        self._json({"url": f"{self.state.url}/{repo}"})

    def validate(self) -> None:
        page = json.loads(self.body)["content"]
        assert page.startswith("---\nlibrary_name: fewclip\n")
        self._json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        self._check_owner()
        self.state.at(repo, revision)
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def batch(self, repo: str) -> None:
        self._check_owner()
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.state.storage}/{each['oid']}"}}}
            for each in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def put_large(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "", "the content has another sha256")
        self.state.large[oid] = self.body
        self._answer(b"")

    def commit(self, repo: str, revision: str) -> None:
        self._check_owner()
        files = dict(self.state.at(repo, revision).files)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.state.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.state.commit(repo, files)
        self._json({"commitUrl": f"{self.state.url}/{repo}/commit/{oid}", "commitOid": oid})

    # ---- reading -------------------------------------------------------------------------------

    def info(self, repo: str, revision: str = "main") -> None:
        found = self.state.at(repo, revision)
        siblings = [{"rfilename": name} for name in found.files]
        private = repo in self.state.private
        self._json({"id": repo, "sha": found.oid, "private": private, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        self._json(list(_entries(self.state.at(repo, revision).files)))

    def resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.state.at(repo, revision)
        if name not in found.files:
            raise Refusal(404, "EntryNotFound")
        content = found.files[name]
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": found.oid, "ETag": f'"{_blob(content)}"'}
        if not name.endswith(LARGE):
            self._answer(content, 200, headers)
            return
        self.state.large[digest] = content
        headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self._answer(b"", 302, headers | {"Location": f"{self.state.storage}/{digest}"})

    def get_large(self, oid: str) -> None:
        self._answer(self.state.large[oid], 200, {"ETag": f'"{oid}"'})


def _entries(files: Files) -> Iterator[dict[str, Any]]:
    for name, content in files.items():
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
        entry["oid"] = _blob(content)
        if name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        yield entry


def _blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", f"/api/models/{_REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", f"/{_REPO}\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", _Handler.put_large),
    ("POST", f"/api/models/{_REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("GET", f"/api/models/{_REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    ("GET", f"/api/models/{_REPO}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("GET", f"/api/models/{_REPO}", _Handler.info),
    ("GET HEAD", f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.resolve),
    ("GET HEAD", "/lfs/(?P<oid>[0-9a-f]+)", _Handler.get_large),
]
