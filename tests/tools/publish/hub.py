"""A stand-in for the hub's HTTP interface on loopback, as far as an upload asks for it. It keeps what it is sent."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What was asked of it.

    Attributes:
        asked: Methods and paths, in order.
        created: The bodies that repositories were made with.
        files: What the last commit holds, by name.
        blobs: Large files by their SHA-256.
        refuse: A status to answer every commit with, in place of taking it.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.refuse = 0
        self.url = ""


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def answer(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def handle_one(self) -> None:
            path, body = self.path.partition("?")[0], self.body()
            state.asked.append(f"{self.command} {path}")
            state.tokens.add(self.headers.get("Authorization"))
            if path == "/api/repos/create":
                state.created.append(json.loads(body))
                self.answer({"url": f"{state.url}/me/small", "name": "me/small"})
            elif "/preupload/" in path:
                files = json.loads(body)["files"]
                modes = [
                    {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith("safetensors") else "regular"}
                    for f in files
                ]
                self.answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{state.url}/blob/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                self.answer({"transfer": "basic", "objects": objects})
            elif path.startswith("/blob/"):
                state.blobs[hashlib.sha256(body).hexdigest()] = body
                self.answer({})
            elif "/commit/" in path:
                self.commit(body)
            elif path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            else:
                self.answer({"id": "me/small", "sha": "0" * 40, "siblings": []})

        def commit(self, body: bytes) -> None:
            if state.refuse:
                self.answer({"error": "You have no right to this"}, state.refuse)
                return
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    state.files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    state.files[value["path"]] = state.blobs[value["oid"]]
            self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": f"{state.url}/me/small/commit/1111"})

        do_GET = do_POST = do_PUT = do_HEAD = handle_one  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
