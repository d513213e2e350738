"""Chat templates at work, in a process of their own with limits of time and memory.

A template is a program that came with a model. transformers runs it in a sandbox, where it cannot reach files, but can
loop for hours (`{{ 10**(10**8) }}` takes minutes in one instruction, which only the end of its process stops) and ask
for any amount of memory. One process renders all; it is started when first needed.
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
from prunus.worker import Child, answer

CPU_SECONDS = 20.0
"""What a template may take for one conversation, in processor time, so that a busy machine refuses nothing."""
MEMORY = 4 << 30
"""Bytes that the process may have, where the system can limit them."""
CHARACTERS = 1 << 24
"""Characters that one conversation may come to."""

_MODULE = "prunus.data.rendering"
_SHOWN = 300  # characters of a template's own words

Span = tuple[int, int]
Texts = str | Mapping[str, str]
"""A chat template, or several by name."""


def named(template: Texts, tools: Turns | None, where: str) -> str:
    """The template for a conversation: the only one, or of several what transformers takes.

    Args:
        template: One, or several by name.
        tools: The functions that may be called; `tool_use` is for conversations with some.
        where: For messages.

    Raises:
        DataError: There are several, and none is the default.
    """
    if isinstance(template, str):
        return template
    for name in (("tool_use",) if tools else ()) + ("default",):
        if isinstance(template.get(name), str):
            return template[name]
    raise DataError(
        f"{where}: the model has the chat templates {', '.join(sorted(template))} and none that is `default`; put the "
        "one that you want into a file, for data.template"
    )


def has_marks(template: str) -> bool:
    """Whether a template itself marks what the assistant says."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def render(
    template: Texts,
    turns: Turns,
    where: str,
    tools: Turns | None = None,
    variables: Mapping[str, Any] | None = None,
    ask: bool = False,
) -> tuple[str, list[Span]]:
    """A conversation as text, as transformers' `apply_chat_template` has it.

    Args:
        template: The chat template, or several by name.
        turns: The turns.
        where: Which they are, for messages.
        tools: Functions that may be called.
        variables: What the template knows besides, such as `eos_token`.
        ask: Whether it ends where an answer is due.

    Returns:
        The text, and the stretches of it, in characters, that stand between {% generation %} and {% endgeneration %}.

    Raises:
        DataError: The template refuses them, has an error, or takes too long or too much; or the text holds half of
            a surrogate pair.
    """
    shown = [{key: value for key, value in turn.items() if value is not None and key != LEARNT} for turn in turns]
    text = named(template, tools, where)
    with _LOCK:
        child = _child()
        try:
            found: tuple[str, list[Span]] = child.ask(
                "render", text, shown, where, tools or None, dict(variables or {}), ask
            )
        except ExportError:
            stop()
            raise DataError(
                f"{where}: the chat template was stopped: for one conversation it took more than {CPU_SECONDS:g} "
                f"seconds or {MEMORY >> 30} GiB"
            ) from None
    return found


def check_characters(text: str, where: str) -> None:
    """Refuse what JSON can say and no text can hold.

    Raises:
        DataError: There is half of a surrogate pair in it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}, character {error.start + 1} is U+{ord(text[error.start]):04X}, half of a surrogate pair, which "
            "is no character"
        ) from None


class Renderer:
    """What works in the process: transformers' own rendering, within the limits.

    Args:
        seconds: Of processor time, for a conversation.
        memory: In bytes, for the process.
        characters: Of a conversation.
    """

    def __init__(self, seconds: float, memory: int, characters: int) -> None:
        from transformers.utils.chat_template_utils import render_jinja_template

        self.transformers, self.seconds, self.characters = render_jinja_template, seconds, characters
        with contextlib.suppress(ValueError, OSError):  # not every system can
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    def render(
        self, template: str, turns: Turns, where: str, tools: Turns | None, variables: dict[str, Any], ask: bool
    ) -> tuple[str, list[Span]]:
        """As the function of that name."""
        signal.setitimer(signal.ITIMER_PROF, self.seconds)  # SIGPROF ends the process, whatever it is at
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
                raise DataError(f"{where}: the chat template makes {len(text):,} characters of it; {self.characters:,} "
                                "are allowed")  # fmt: skip
            check_characters(text, f"{where}: as the chat template shows it")
        except DataError:
            raise
        except MemoryError:
            raise DataError(f"{where}: the chat template takes more memory than there is for it") from None
        except Exception as error:  # templates are programs, and refuse in words of their own
            words = str(error)[:_SHOWN].encode(errors="backslashreplace").decode() or type(error).__name__
            raise DataError(f"{where}: the chat template refuses it: {words}") from None
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
    answer(Renderer)
