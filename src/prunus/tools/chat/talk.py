"""Chat in the terminal, with one model or with two that get the same messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from prunus.console import Console
from prunus.tools.chat.config import ChatConfig
from prunus.tools.chat.voices import Message, Voice

HELP = "an empty line or Ctrl-D ends it; /reset forgets the conversation"


def talk(voices: Sequence[Voice], config: ChatConfig, lines: Iterable[str], console: Console) -> None:
    """Read lines and show the models' answers: streamed for one model, side by side for two.

    Args:
        voices: The models; each has a separate conversation.
        config: The options.
        lines: The user's messages, up to an empty one.
        console: Shows the answers.
    """
    for voice in voices:
        if not voice.chats:
            console.say(f"{voice.name} has no chat template: it continues your text")
    conversations: list[list[Message]] = [_opening(config) for _ in voices]
    for line in lines:
        if not line.strip():
            return
        if line.strip() == "/reset":
            conversations = [_opening(config) for _ in voices]
            continue
        answers = []
        for voice, messages in zip(voices, conversations, strict=True):
            messages.append({"role": "user", "content": line})
            answer = voice.reply(messages, _streamed(console) if len(voices) == 1 else lambda _: None)
            messages.append({"role": "assistant", "content": answer})
            answers.append(answer)
        if len(voices) == 1:
            console.say("")
        else:
            _side_by_side([voice.name for voice in voices], answers, console)


def _opening(config: ChatConfig) -> list[Message]:
    return [{"role": "system", "content": config.system}] if config.system else []


def _streamed(console: Console) -> Callable[[str], None]:
    return lambda text: console.rich.print(Text(text), end="")


def _side_by_side(names: Sequence[str], answers: Sequence[str], console: Console) -> None:
    table = Table(box=None, expand=True, padding=(0, 1))
    for name in names:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(Text(answer.strip()) for answer in answers))
    console.rich.print(table, soft_wrap=False)
