"""A server on loopback that misbehaves on purpose: a socket, so that it can send any bytes at any pace."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

KEY = "sk-EXAMPLE-of-a-key"
Send = Callable[[socket.socket, "Bad"], None]


class Bad:
    """The server.

    Attributes:
        send: What it does with a request: one of `MODES`, looked up once, since requests that are dropped at the end
            of a test are answered after it.
        requests: The head of each request that it was sent.
        elsewhere: The address that it redirects to.
    """

    def __init__(self, mode: str = "good", elsewhere: str = "http://127.0.0.2:9/v1/x") -> None:
        self.send, self.elsewhere = MODES[mode], elsewhere
        self.requests: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.open = True

    def serve(self) -> None:
        while self.open:
            with suppress(OSError):
                connection, _ = self.socket.accept()
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(next((h[15:] for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")), 0))
            while len(body) < length:
                body += connection.recv(65536)
            self.requests.append(head)
            self.send(connection, self)


@contextmanager
def misbehaving(mode: str = "good", **options: Any) -> Iterator[Bad]:
    server = Bad(mode, **options)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.open = False
        with suppress(OSError), socket.create_connection(server.socket.getsockname(), timeout=1):
            pass
        thread.join(5)
        server.socket.close()


def reply(body: bytes, status: str = "200 OK", headers: str = "") -> Send:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode()
    return lambda connection, server: connection.sendall(head + body)


def said(content: Any, **more: Any) -> Send:
    """An answer in the right form to chat and to plain completions."""
    choice = {"message": {"content": content}, "text": content, "finish_reason": "stop", **more}
    return reply(json.dumps({"choices": [choice]}).encode())


def dripping(head: bytes, pause: float = 0.02) -> Send:
    def send(connection: socket.socket, server: Bad) -> None:
        connection.sendall(head)
        while server.open:
            connection.sendall(b" ")
            time.sleep(pause)

    return send


def redirect(status: str, location: str | None = None) -> Send:
    return lambda connection, server: reply(b"", status, f"Location: {location or server.elsewhere}\r\n")(
        connection, server
    )


def endless(connection: socket.socket, server: Bad) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while server.open:
        connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def half(connection: socket.socket, server: Bad) -> None:
    send = said("[[6]]") if len(server.requests) % 2 else reply(b"{}", "400 Bad Request")
    send(connection, server)


GOOD = b'{"choices": [{"message": {"content": "[[6]]"}, "text": "[[6]]", "finish_reason": "stop"}]}'
MODES: dict[str, Send] = {
    "good": said("[[6]]"),
    "line separators": said("a\u2028b\u2029c\x85d [[6]]"),
    "surrogate": said("\ud800 [[6]]"),
    "nul": said("a\0b [[6]]"),
    "same origin 307": lambda connection, server: (
        said("[[6]]") if b"/moved" in server.requests[-1] else redirect("307 Moved", "/moved")
    )(connection, server),
    "500": reply(b"oops", "500 Internal Server Error"),
    "503 with the key": reply(f"bad: {KEY}".encode(), "503 Busy"),
    "401 with the key": reply(f"Authorization: Bearer {KEY}".encode(), "401 Unauthorized"),
    "404 html": reply(b"<html>no</html>", "404 Not Found"),
    "400": reply(b"{}", "400 Bad Request"),
    "the key in the answer": said(f"your key is {KEY} [[6]]"),
    "closed at once": lambda connection, server: None,
    "cut head": lambda connection, server: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-"),
    "cut body": lambda connection, server: connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + GOOD[:30]
    ),
    "no http": lambda connection, server: connection.sendall(b"\x00\x01\x02 garbage \xff\r\n\r\n"),
    "300 headers": reply(GOOD, headers="".join(f"X-{i}: {'v' * 50}\r\n" for i in range(300))),
    "a million headers": reply(GOOD, headers="X-Long: y\r\n" * 100_000),
    "empty": reply(b""),
    "no content": lambda connection, server: connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "html": reply(b"<html>hello</html>"),
    "not utf-8": reply(b'{"choices": [{"text": "\xff\xfe"}]}'),
    "null": reply(b"null"),
    "a number": reply(b"5"),
    "a list": reply(b"[1, 2]"),
    "no choices": reply(b'{"choices": []}'),
    "choices of another type": reply(b'{"choices": {"0": {"text": 5}}}'),
    "null content": said(None),
    "content of another type": said([{"type": "text", "text": "[[6]]"}]),
    "a number as content": said(10**30),
    "nested json": reply(b"[" * 100_000),
    "nested json, closed": reply(b'{"choices": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "digits": reply(b'{"choices": ' + b"9" * 5000 + b"}"),
    "nan": reply(b'{"choices": [{"message": {"content": NaN}, "text": NaN}]}'),
    "gzip": reply(b"\x1f\x8b" + b"x" * 50, headers="Content-Encoding: gzip\r\n"),
    "endless": endless,
    "hang": lambda connection, server: time.sleep(3),
    "drip": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
    "dripping head": dripping(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "endless 100": dripping(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "redirect elsewhere": redirect("302 Found"),
    "redirect elsewhere, 307": redirect("307 Temporary Redirect"),
    "redirect to another port": redirect("308 Moved", "http://127.0.0.1:9/v1/x"),
    "redirect with a user": lambda connection, server: redirect(
        "307 Moved", server.url.replace("http://", "http://me:hunter2hunter2@")
    )(connection, server),
    "redirect to a file": redirect("307 Moved", "file:///etc/passwd"),
    "redirect to https": lambda connection, server: redirect("307 Moved", server.url.replace("http", "https"))(
        connection, server
    ),
    "redirect loop": redirect("307 Moved", "/v1/again"),
    "redirect to nowhere": redirect("307 Moved", "http://[::1"),
    "redirect without address": reply(b"", "307 Moved"),
    "302 within": redirect("302 Found", "/v1/other"),
    "304": reply(b"", "304 Not Modified"),
    "half": half,
}
"""What it does, by name."""

ANSWERED = ("good", "line separators", "surrogate", "nul", "same origin 307", "300 headers")
"""The modes that are answers all the same."""
