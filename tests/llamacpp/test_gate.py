"""The gate before llama.cpp's server: no web page of another site gets through, whatever it sends; programs do."""

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prunus.errors import RecipeError
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.gate import MAX_BODY, Gate
from prunus.llamacpp.server import start_server
from prunus.models.folder import ModelFolder
from tests.tiny import make_model

SECRET = "behind"


class Upstream(BaseHTTPRequestHandler):
    """Answers as llama.cpp does: to any origin, with its headers; `/stream` waits until it is told to go on."""

    protocol_version = "HTTP/1.1"
    go_on: threading.Event
    heard: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.heard.append({"path": self.path, "body": body, **{k.lower(): v for k, v in self.headers.items()}})
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin") or "*")
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(2):
            if number and self.path == "/stream":
                self.go_on.wait(20)
            piece = b"data: %d\n\n" % number
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_OPTIONS = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[ThreadingHTTPServer]:
    Upstream.go_on, Upstream.heard = threading.Event(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    Upstream.go_on.set()
    server.shutdown()
    server.server_close()


def gate_before(server: ThreadingHTTPServer, key: str | None = None) -> Gate:
    gate = Gate(key=key)
    gate.open(f"http://127.0.0.1:{server.server_port}", SECRET)
    return gate


def ask(
    gate: Gate, method: str = "POST", path: str = "/v1/chat/completions", body: str | None = "{}", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gate.server_port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_requests_of_programs_and_of_the_served_page_are_answered(host: str, upstream: ThreadingHTTPServer) -> None:
    gate = gate_before(upstream)
    here = f"{host}:{gate.server_port}"
    for own in ({}, {"Origin": f"http://{here}", "Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}):
        status, headers, body = ask(gate, Host=here, Cookie="a=b", **own)
        assert (status, body) == (200, b"data: 0\n\ndata: 1\n\n")
        assert not any(name.startswith("access-control") for name in headers)
    heard = Upstream.heard[-1]
    assert (heard["authorization"], heard["body"]) == (f"Bearer {SECRET}", b"{}")
    assert not {"origin", "cookie"} & heard.keys()


FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": "file://"},
    {"Origin": ""},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Host": "evil.example"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1:1"},
    {"Host": "127.0.0.1.evil.example:{port}"},
    {"Host": "localhost.:{port}"},
    {"Host": ""},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_web_pages_of_other_sites_are_not(headers: dict[str, str], method: str, upstream: ThreadingHTTPServer) -> None:
    gate = gate_before(upstream)
    sent = {name: value.replace("{port}", str(gate.server_port)) for name, value in headers.items()}
    preflight = {"Access_Control_Request_Method": "POST"} if method == "OPTIONS" else {}
    status, found, body = ask(gate, method, **sent, **preflight)
    assert status == 403
    assert next(iter(headers)).replace("_", "-") in json.loads(body)["error"]["message"]
    assert not any(name.startswith("access-control") for name in found)
    assert Upstream.heard == []


def test_without_a_host_there_is_nothing(upstream: ThreadingHTTPServer) -> None:
    gate = gate_before(upstream)
    for hosts in ([], [f"127.0.0.1:{gate.server_port}", "evil.example"]):
        connection = http.client.HTTPConnection("127.0.0.1", gate.server_port, timeout=20)
        connection.putrequest("GET", "/health", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "right"}, 401),
        ({"Authorization": f"Bearer {SECRET}"}, 401),
        ({"Authorization": "Bearer right"}, 200),
        ({"Authorization": "bearer right"}, 200),
        ({"X_Api_Key": "right"}, 200),
        ({"Authorization": "Bearer right", "Origin": "http://evil.example"}, 403),
    ],
)
def test_a_key_where_one_is_set(headers: dict[str, str], status: int, upstream: ThreadingHTTPServer) -> None:
    found, _, body = ask(gate_before(upstream, "right"), **headers)
    assert found == status
    assert len(Upstream.heard) == (status == 200)
    assert b"right" not in body


def test_a_stream_comes_piece_by_piece_and_others_are_served_meanwhile(upstream: ThreadingHTTPServer) -> None:
    gate = gate_before(upstream)
    connections = [http.client.HTTPConnection("127.0.0.1", gate.server_port, timeout=20) for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/stream", "{}")
    answers = [connection.getresponse() for connection in connections]
    assert [answer.read1() for answer in answers] == [b"data: 0\n\n"] * 3
    assert ask(gate)[0] == 200
    Upstream.go_on.set()
    assert [answer.read() for answer in answers] == [b"data: 1\n\n"] * 3


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Content_Length": str(MAX_BODY + 1)}, "/v1", 413),
        ({"Content_Length": "x"}, "/v1", 411),
        ({"Transfer_Encoding": "chunked"}, "/v1", 411),
        ({}, "http://evil.example/v1", 400),
    ],
)
def test_what_cannot_be_passed_on_is_refused(
    headers: dict[str, str], path: str, status: int, upstream: ThreadingHTTPServer
) -> None:
    gate = gate_before(upstream)
    assert ask(gate, path=path, body=None, Host=f"localhost:{gate.server_port}", **headers)[0] == status
    assert Upstream.heard == []


def test_a_server_that_is_gone_and_a_port_that_is_taken_are_reported(upstream: ThreadingHTTPServer) -> None:
    gate = Gate()
    gate.open("http://127.0.0.1:1", SECRET)
    assert ask(gate)[0] == 502
    with pytest.raises(RecipeError, match=f"--port: {gate.server_port} cannot be opened"):
        Gate(gate.server_port)


def test_llama_cpp_behind_it_needs_a_key_that_nobody_knows(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    folder = make_model(tmp_path / "model", num_hidden_layers=1)
    file = tmp_path / "model.gguf"
    write_gguf(ModelFolder(folder), read_vocabulary(folder, 300), "gguf-f32", file)
    gate, server = Gate(), start_server(file, 0)
    server.serve(gate)
    body = json.dumps({"prompt": "plum", "max_tokens": 3, "stream": True})
    json_body = {"Content_Type": "application/json"}
    status, headers, answer = ask(gate, path="/v1/completions", body=body, **json_body)
    assert status == 200
    assert "access-control-allow-origin" not in headers
    assert answer.decode().count("data: ") >= 2
    address = server.native.listening_address.partition("//")[2]
    around = http.client.HTTPConnection(address, timeout=20)
    around.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    assert around.getresponse().status == 401
