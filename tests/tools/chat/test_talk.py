"""Talking to models: each keeps its own conversation, what comes is shown, and both engines say the same, greedily."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.console import Console
from prunus.errors import ModelError
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.gate import Gate
from prunus.llamacpp.server import start_server
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.tools.chat.config import ChatConfig
from prunus.tools.chat.talk import talk
from prunus.tools.chat.voices import FolderVoice, GgufVoice, Message, voice_of
from tests.tiny import make_model

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


class Echo:
    """Says what it was told."""

    chats = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[list[Message]] = []

    def reply(self, messages: list[Message], on_text: Callable[[str], None]) -> str:
        self.heard.append([dict(message) for message in messages])
        on_text(f"{self.name} heard ")
        on_text(messages[-1]["content"])
        return f"{self.name} heard {messages[-1]['content']}"


def said(lines: list[str], *voices: Echo, **options) -> str:
    out = StringIO()
    talk(voices, ChatConfig(**options), lines, Console(file=out))
    return out.getvalue()


def test_one_is_shown_as_it_comes_and_two_side_by_side() -> None:
    assert "a heard plum\n" in said(["plum"], Echo("a"))
    shown = said(["plum"], Echo("a"), Echo("b"))
    (line,) = [line for line in shown.splitlines() if "heard" in line]
    assert line.index("a heard plum") < line.index("b heard plum")


def test_conversations_continue_until_they_are_reset() -> None:
    voice = Echo("a")
    said(["one", "two", "/reset", "three", "", "four"], voice, system="be short")
    roles = [[message["role"] for message in heard] for heard in voice.heard]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"], ["system", "user"]]
    assert voice.heard[1][2]["content"] == "a heard one"
    assert voice.heard[2][1]["content"] == "three"  # and an empty line ended it


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and the same as a GGUF file."""
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    folder = make_model(tmp_path_factory.mktemp("chat") / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    file = folder.parent / "model.gguf"
    write_gguf(ModelFolder(folder), read_vocabulary(folder, 300), "gguf-f32", file)
    return folder, file


def test_both_engines_give_the_same_answer(pair: tuple[Path, Path]) -> None:
    config = ChatConfig(temperature=0, max_new_tokens=6)
    answers = []
    for path in pair:
        parts: list[str] = []
        voice = voice_of(str(path), config, Runtime(device="cpu"))
        assert voice.chats
        answer = voice.reply([{"role": "user", "content": "plum tree"}], parts.append)
        assert answer == "".join(parts)
        answers.append(answer)
    assert answers[0].strip() == answers[1].strip()
    assert answers[0].strip()


def test_without_a_template_a_text_is_gone_on_from(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    folder = make_model(tmp_path / "plain")
    file = tmp_path / "plain.gguf"
    write_gguf(ModelFolder(folder), read_vocabulary(folder, 300), "gguf-f32", file)
    config = ChatConfig(temperature=0, max_new_tokens=6)
    voices = [FolderVoice(folder, config, Runtime(device="cpu")), GgufVoice(file, config)]
    assert not any(voice.chats for voice in voices)
    ours, theirs = (voice.reply([{"role": "user", "content": "plum tree"}], lambda _: None) for voice in voices)
    assert ours == theirs != ""


@pytest.mark.processes
def test_the_server_speaks_openais_interface(pair: tuple[Path, Path]) -> None:
    command = [sys.executable, "-u", "-m", "prunus", "serve", str(pair[1]), "--port", "0"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background may ignore it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heard)  # noqa: PLW1509
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "serving" in line)
        address = line.split(" at ")[1].split(" ")[0]
        assert address.startswith("http://127.0.0.1:")
        body = {"messages": [{"role": "user", "content": "plum"}], "max_tokens": 4, "temperature": 0}
        request = urllib.request.Request(
            f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            assert json.loads(response.read())["choices"][0]["message"]["role"] == "assistant"
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.communicate()


def test_a_server_can_be_dropped_right_after_its_start(pair: tuple[Path, Path]) -> None:
    for _ in range(20):
        start_server(pair[1], 0)


def test_a_port_in_use_is_refused_before_the_file_is_read(tmp_path: Path, capsys) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    taken = Gate()
    assert main(["serve", str(tmp_path / "nowhere.gguf"), "--port", str(taken.server_port)]) == 2
    assert f"--port: {taken.server_port} cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chat", "./nowhere"], "MODEL: there is no folder ./nowhere"),
        (["serve", "./nowhere.gguf"], "nowhere.gguf: file not found"),
        (["serve", "x.gguf", "--port", "70000"], "--port: 70000"),
        (["serve", "x.gguf", "--context", "-1"], "--context: -1"),
        (["serve", "."], "a folder, expected a GGUF file; `prunus export . --formats gguf-f16`"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments: list[str], message: str, capsys) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelError, match="version 0 of GGUF is not supported; allowed: versions 2 and 3"):
        start_server(tmp_path / "model.gguf", 0)
