"""A stand-in for the Hugging Face hub on loopback: as much of its HTTP as uploading and fetching a model takes.

Repos live in memory. Small files come inside the commit, safetensors by git-lfs, as on the hub.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "a" * 40


@dataclass
class Hub:
    token: str = "hf_good"
    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """git-lfs objects by SHA-256."""
    commits: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    broken: bool = False
    """Answers 500 to every commit."""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON or bytes, headers) for one request."""
        self.asked.append(f"{method} {path}")
        allowed = token == f"Bearer {self.token}"
        if method in {"POST", "PUT"} and not allowed and not path.startswith("/lfs/"):
            return 401, {"error": "Invalid username or password."}, {}
        routes: tuple[tuple[str, Callable[..., Any]], ...] = (
            (r"POST /api/repos/create", self._create),
            (r"POST /api/validate-yaml", lambda _: {"warnings": [], "errors": []}),
            (r"POST /api/models/(\S+?/\S+?)/preupload/main", self._preupload),
            (r"POST /(\S+?/\S+?)\.git/info/lfs/objects/batch", self._batch),
            (r"PUT /lfs/(\w+)", self._store),
            (r"POST /lfs-verify", lambda _: {}),
            (r"POST /api/models/(\S+?/\S+?)/commit/main", self._commit),
            (r"GET /api/models/([^/]+/[^/]+)(?:/revision/\w+)?", self._info),
            (r"GET /api/models/([^/]+/[^/]+)/tree/\w+", self._tree),
        )
        for pattern, act in routes:
            match = re.fullmatch(pattern, f"{method} {path.partition('?')[0]}")
            if match:
                found = act(body, *match.groups())
                if found is None:
                    return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
                return (500, {"error": "broken"}, {}) if self.broken and "/commit/" in path else (200, found, {})
        match = re.fullmatch(r"/(\S+?/\S+?)/resolve/\w+/(\S+)", path)
        if match and match[2] in self.repos.get(match[1], {}):
            content = self.repos[match[1]][match[2]]
            etag = hashlib.sha256(content).hexdigest()
            return 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION}
        return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}

    def _create(self, body: bytes) -> Any:
        asked = json.loads(body)
        repo = f"{asked['organization'] or 'me'}/{asked['name']}"
        self.repos.setdefault(repo, {})
        self.private.setdefault(repo, asked.get("private", False) or asked.get("visibility") == "private")
        return {"url": f"{self.url}/{repo}"}

    def _preupload(self, body: bytes, repo: str) -> Any:
        if repo not in self.repos:
            return None
        paths = [file["path"] for file in json.loads(body)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        return {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}

    def _batch(self, body: bytes, repo: str) -> Any:
        objects = []
        for wanted in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.url}/lfs/{wanted['oid']}"},
                "verify": {"href": f"{self.url}/lfs-verify"},
            }
            objects.append({**wanted, "authenticated": True, "actions": actions})
        return {"transfer": "basic", "objects": objects}

    def _store(self, body: bytes, oid: str) -> Any:
        assert hashlib.sha256(body).hexdigest() == oid
        self.stored[oid] = body
        return {}

    def _commit(self, body: bytes, repo: str) -> Any:
        if self.broken:
            return {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.commits.append(value["summary"])
            elif entry["key"] == "file":
                self.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.repos[repo][value["path"]] = self.stored[value["oid"]]
        return {"commitUrl": f"{self.url}/{repo}/commit/{REVISION}", "commitOid": REVISION}

    def _info(self, _: bytes, repo: str) -> Any:
        if repo not in self.repos:
            return None
        siblings = [{"rfilename": name} for name in self.repos[repo]]
        return {"id": repo, "sha": REVISION, "private": self.private[repo], "siblings": siblings, "tags": []}

    def _tree(self, _: bytes, repo: str) -> Any:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324
            for name, content in self.repos[repo].items()
        ]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            method = "GET" if self.command == "HEAD" else self.command
            status, found, headers = hub.answer(method, self.path, body, self.headers.get("Authorization", ""))
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - named by http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its parent names it
            """Silent: the hub remembers what it was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
