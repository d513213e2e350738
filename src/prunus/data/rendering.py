"""Rendering by chat templates, in a child process with limits of time and memory.

A template is a program that came with a model. The sandbox of transformers keeps it from files, but it can loop for
hours (`{{ 10**(10**8) }}` takes minutes in one instruction, which only killing the process stops) and allocate any
amount of memory. One process renders everything; it is started on first use.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import resource
import signal
import threading
from collections.abc import Mapping
from typing import Any

from prunus.data.turns import LEARNT, Turns
from prunus.errors import DataError, ExportError
from prunus.worker import Child, serve

CPU_SECONDS = 20.0
"""Limit of processor time for one conversation; unlike wall time, a busy machine does not exhaust it."""
MEMORY = 4 << 30
"""Limit of the process's memory in bytes, if the system supports one."""
CHARACTERS = 1 << 24
"""The most characters of one rendered conversation."""

_MODULE = "prunus.data.rendering"
_SHOWN = 300  # the most characters of a template's error message

Span = tuple[int, int]
Texts = str | Mapping[str, str]
"""A chat template, or several by name."""


def named(template: Texts, tools: Turns | None, where: str) -> str:
    """The template for a conversation; of several, the one that transformers selects.

    Args:
        template: One, or several by name.
        tools: The functions that may be called; if there are any, `tool_use` is preferred.
        where: The conversation's name in messages.

    Raises:
        DataError: There are several, and none is the default.
    """
    if isinstance(template, str):
        return template
    for name in (("tool_use",) if tools else ()) + ("default",):
        if isinstance(template.get(name), str):
            return template[name]
    raise DataError(
        f"{where}: the model has the chat templates {', '.join(sorted(template))} and none that is `default`; put one "
        "into a file and set data.template to it"
    )


def has_marks(template: str) -> bool:
    """Whether a template marks the assistant's text with {% generation %}."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def render(
    template: Texts,
    turns: Turns,
    where: str,
    tools: Turns | None = None,
    variables: Mapping[str, Any] | None = None,
    ask: bool = False,
) -> tuple[str, list[Span]]:
    """Render a conversation as transformers' `apply_chat_template` does.

    Args:
        template: The chat template, or several by name.
        turns: The turns.
        where: The conversation's name in messages.
        tools: Functions that may be called.
        variables: Further variables of the template, such as `eos_token`.
        ask: Add the generation prompt.

    Returns:
        The text, and the spans of it, in characters, between {% generation %} and {% endgeneration %}.

    Raises:
        DataError: The template refuses the turns, has an error, or exceeds a limit; or the text holds a lone
            surrogate.
    """
    shown = [{key: value for key, value in turn.items() if value is not None and key != LEARNT} for turn in turns]
    text = named(template, tools, where)
    with _LOCK:
        child = _child()
        try:
            result: tuple[str, list[Span]] = child.call(
                "render", text, shown, where, tools or None, dict(variables or {}), ask
            )
        except ExportError:
            stop()
            raise DataError(
                f"{where}: the chat template was stopped: for one conversation it took more than {CPU_SECONDS:g} "
                f"seconds or {MEMORY >> 30} GiB"
            ) from None
    return result


def check_characters(text: str, where: str) -> None:
    """Refuse lone surrogates, which JSON can represent but UTF-8 cannot.

    Raises:
        DataError: The text holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}, character {error.start + 1} is U+{ord(text[error.start]):04X}, half of a surrogate pair, which "
            "is not a character"
        ) from None


class Renderer:
    """The object in the child process: renders with transformers, within the limits.

    Args:
        seconds: Limit of processor time for a conversation.
        memory: Limit of the process's memory in bytes.
        characters: Limit of a conversation's characters.
    """

    def __init__(self, seconds: float, memory: int, characters: int) -> None:
        from transformers.utils.chat_template_utils import render_jinja_template

        self.transformers, self.seconds, self.characters = render_jinja_template, seconds, characters
        with contextlib.suppress(ValueError, OSError):  # not every system can
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    def render(
        self, template: str, turns: Turns, where: str, tools: Turns | None, variables: dict[str, Any], ask: bool
    ) -> tuple[str, list[Span]]:
        """See the function `render`."""
        signal.setitimer(signal.ITIMER_PROF, self.seconds)  # SIGPROF kills the process, even inside an instruction
        try:
            (text,), spans = self.transformers(
                conversations=[turns],
                tools=tools,
                chat_template=template,
                add_generation_prompt=ask,
                return_assistant_tokens_mask=has_marks(template),
                **variables,
            )
            if len(text) > self.characters:
                raise DataError(f"{where}: the chat template makes {len(text):,} characters of it; allowed: "
                                f"{self.characters:,}")  # fmt: skip
            check_characters(text, f"{where}: rendered by the chat template")
        except DataError:
            raise
        except MemoryError:
            raise DataError(f"{where}: the chat template takes more memory than allowed") from None
        except Exception as error:  # templates raise errors with their own messages
            message = str(error)[:_SHOWN].encode(errors="backslashreplace").decode() or type(error).__name__
            raise DataError(f"{where}: the chat template refuses it: {message}") from None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return text, [(start, end) for start, end in spans[0]] if spans else []


_LOCK = threading.RLock()
_RUNNING: list[Child] = []


def _child() -> Child:
    """The process, started if there is none."""
    if not _RUNNING:
        _RUNNING.append(Child(_MODULE, "the chat template", CPU_SECONDS, MEMORY, CHARACTERS))
    return _RUNNING[0]


@atexit.register
def stop() -> None:
    """End the process; the next conversation starts another."""
    with _LOCK:
        while _RUNNING:
            _RUNNING.pop().close()


if __name__ == "__main__":
    serve(Renderer)
