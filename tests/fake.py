"""A server of our own on loopback, which says what vLLM's and OpenAI's say."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fake(ThreadingHTTPServer):
    """Answers `choice`, or what `reply` makes of a request, after as many failures as `failures` holds.

    `reply` gives a choice, a whole answer as bytes, or a status.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.failures: list[int] = []
        self.choice: dict = {"text": " plum tree", "finish_reason": "stop"}
        self.reply: Callable[[dict], dict | bytes | int] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = {"path": self.path, **body}
        self.server.asked.append(asked)
        self.server.headers.append(dict(self.headers))
        code = self.server.failures.pop() if self.server.failures else 200
        choice = self.server.reply(asked) if self.server.reply and code == 200 else self.server.choice
        if isinstance(choice, int):
            code = choice
        answer = {"choices": [choice]} if code == 200 else {"message": "no such model"}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(choice if isinstance(choice, bytes) else json.dumps(answer).encode())

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def serving() -> Iterator[Fake]:
    """A server for as long as the context is open."""
    made = Fake()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()
