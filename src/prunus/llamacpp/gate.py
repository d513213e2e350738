"""A proxy in front of llama.cpp's server, which by itself answers any web page that the user's browser has open.

A page of another site can reach a port on loopback, by its address or by a host name that resolves to it (DNS
rebinding). Browsers reveal the first by `Origin` and `Sec-Fetch-Site`, the second by `Host`; llama.cpp's server checks
none of them. Behind the gate it requires a random key, so that the gate cannot be bypassed.
"""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from prunus.errors import RecipeError

LOOPBACK = "127.0.0.1"
MAX_BODY = 64 * 2**20
"""Maximum bytes of a request."""

_NAMES = (LOOPBACK, "localhost")
_OWN_PAGE = ("same-origin", "none")  # of Sec-Fetch-Site: our own page, or typed by the user
_IDLE = 120  # seconds that a connection without a request is kept open
_LINGER = 0.5  # seconds to read the rest of a refused body
_PIECE = 65536
_NOT_PASSED_ON = {
    "host", "origin", "referer", "cookie", "authorization", "x-api-key", "connection", "keep-alive", "te", "trailer",
    "upgrade", "transfer-encoding", "content-length", "expect", "proxy-authorization", "proxy-connection",
}  # fmt: skip
_NOT_PASSED_BACK = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


class Gate(ThreadingHTTPServer):
    """Forwards requests to llama.cpp's server, on loopback, from programs of this machine and from its own web page.

    The port is bound at once, so that a port in use is refused before a model is loaded; `open` starts serving.

    Args:
        port: The port; 0 for any free one.
        key: The key that clients must send as `Authorization: Bearer KEY`; None for no key.

    Raises:
        RecipeError: The port is in use.
    """

    daemon_threads = True
    allow_reuse_address = True

    upstream: str
    secret: str

    def __init__(self, port: int = 0, key: str | None = None) -> None:
        self.key = key
        try:
            super().__init__((LOOPBACK, port), _Request)
        except OSError as error:
            raise RecipeError(f"--port: {port} cannot be opened: {error.strerror}") from None

    def open(self, upstream: str, secret: str) -> None:
        """Start forwarding to `upstream`, such as `http://127.0.0.1:1234`, which requires the key `secret`."""
        self.upstream, self.secret = urlsplit(upstream).netloc, secret
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """The URL that it serves."""
        return f"http://{LOOPBACK}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore broken connections."""

    def refusal(self, headers: Any) -> tuple[int, str] | None:
        """Status and message if a request is refused, else None."""
        here = {f"{name}:{self.server_port}" for name in _NAMES}
        if self.server_port == http.client.HTTP_PORT:
            here |= set(_NAMES)
        if [host.strip().lower() for host in headers.get_all("Host", [])] not in [[name] for name in here]:
            return 403, f"Host: expected {LOOPBACK}:{self.server_port} or localhost:{self.server_port}"
        origins = {f"http://{name}" for name in here}
        if any(origin.strip().lower() not in origins for origin in headers.get_all("Origin", [])):
            return 403, "Origin: web pages of other sites are not served"
        if any(site.strip().lower() not in _OWN_PAGE for site in headers.get_all("Sec-Fetch-Site", [])):
            return 403, "Sec-Fetch-Site: web pages of other sites are not served"
        if self.key is not None and not self._has_key(headers):
            return 401, "Authorization: expected `Bearer KEY` with the key that the server was started with"
        return None

    def _has_key(self, headers: Any) -> bool:
        kind, _, sent = (headers.get("Authorization") or "").partition(" ")
        sent = sent.strip() if kind.lower() == "bearer" else headers.get("X-Api-Key") or ""
        return hmac.compare_digest(sent.encode("utf-8", "replace"), str(self.key).encode("utf-8", "replace"))


class _Request(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"
    timeout = _IDLE

    def do_GET(self) -> None:
        """Forward the request, or refuse it."""
        refused = self.server.refusal(self.headers) or self._unreadable()
        if refused:
            self.close_connection = True
            self._answer(*refused)
            self._drain()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(self.server.upstream)
        with contextlib.closing(upstream):
            try:
                upstream.request(self.command, self.path, body, self._headers())
                response = upstream.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._answer(502, f"llama.cpp's server does not answer: {error}")
                return
            self._pass_back(response)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_GET  # noqa: N815  names that http.server calls

    def _unreadable(self) -> tuple[int, str] | None:
        length = self.headers.get("Content-Length") or "0"
        if not self.path.startswith("/"):
            return 400, "the path must begin with /"
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            return 411, "a body needs a Content-Length"
        return (413, f"a body has at most {MAX_BODY} bytes") if int(length) > MAX_BODY else None

    def _headers(self) -> dict[str, str]:
        passed = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
        return {**passed, "Authorization": f"Bearer {self.server.secret}"}

    def _pass_back(self, response: http.client.HTTPResponse) -> None:
        """Forward a response: headers, except those that allow access by other sites, and the body as it arrives."""
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _NOT_PASSED_BACK and not name.lower().startswith("access-control-"):
                self.send_header(name, value)
        chunked = response.length is None and self.request_version != "HTTP/1.0"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif response.length is not None:
            self.send_header("Content-Length", str(response.length))
        else:
            self.close_connection = True  # the end of the connection is the end of the body
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in _pieces(response):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, message: str) -> None:
        """Send an error in OpenAI's format."""
        body = json.dumps({"error": {"code": status, "message": message, "type": "prunus_gate"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self) -> None:
        """Read the rest of a short body: closing the connection before that could reset it and lose the answer."""
        self.wfile.flush()
        self.connection.settimeout(_LINGER)
        with contextlib.suppress(OSError, ValueError):
            self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _PIECE))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: a line per request would hide the command's messages."""


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read1(_PIECE):
        yield piece
