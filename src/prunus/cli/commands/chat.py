"""The command `chat`: talk to a model in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat
from prunus.cli.checks import check_recorded, warn_about_files
from prunus.console import Console
from prunus.runtime import Runtime
from prunus.tools.chat.config import ChatConfig


@dataclass(kw_only=True)
class Chat:
    """Chat with a model in the terminal, or with two side by side that get the same messages."""

    model: Annotated[Positional[str], arg(metavar="FOLDER_OR_GGUF")]
    """Model folder (run by transformers) or GGUF file (run by llama.cpp)."""
    second: Annotated[Positional[str | None], arg(metavar="SECOND")] = None
    """A second model, such as the teacher."""
    config: Annotated[ChatConfig, Flat]
    runtime: Runtime = field(default_factory=Runtime)

    def __call__(self, console: Console) -> None:
        """Chat until an empty line."""
        from prunus.tools.chat.talk import HELP, talk
        from prunus.tools.chat.voices import voice_of

        paths = [self.model, *([self.second] if self.second else [])]
        check_recorded(paths, console)
        warn_about_files(paths, console)
        voices = [voice_of(path, self.config, self.runtime) for path in paths]
        console.say(HELP)
        talk(voices, self.config, _typed(), console)


def _typed() -> Iterator[str]:
    """Lines from standard input, until its end."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
