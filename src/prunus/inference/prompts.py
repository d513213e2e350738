"""Prompts as a model reads them: rendered by the chat template, tools included, or as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.data.rendering import Texts, check_characters, render
from prunus.errors import DataError

Turns = list[dict[str, Any]]
Tools = list[dict[str, Any]]

PLAIN = (
    "{% if tools %}{{ 'System: You can call these functions: ' + (tools | tojson) + '\\n\\n' }}{% endif %}"
    "{% for m in messages %}{{ (m.role | capitalize) + ': ' + (m.content or '') }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""A chat template for prompting models that have none: the role, a colon, the text, and an empty line.

It is not `builtin:plain` (`data.template`), which is for training: there an answer ends with a token, here with one of
`PLAIN_STOP`, since a model that was never trained to chat does not end its answers.
"""

PLAIN_STOP = ("\n\nUser:", "\n\nSystem:", "\n\nTool:")
"""The stop strings of `PLAIN`: a base model continues with the next turn."""


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        number: Its index among all prompts; together with the seed it determines the sampling of its answer.
        ids: Its tokens.
        text: Its text, special tokens included.
        source: Its origin: `document`, the number in the corpus; or `file` and `row`, from 1.
    """

    number: int
    ids: list[int]
    text: str
    source: dict[str, Any] = field(default_factory=dict)


def rendered(
    content: str | Turns, tokenizer: Any, where: str, tools: Tools | None = None, template: Texts | None = None
) -> tuple[str, list[int]]:
    """A prompt as text and as ids: rendered by the chat template; without one, plain text.

    Args:
        content: A text, or the turns before the answer.
        tokenizer: The tokenizer, whose chat template is used.
        where: The prompt's name in errors.
        tools: Functions that may be called, as JSON schemas in the form of `apply_chat_template`.
        template: A template that replaces the tokenizer's, such as `PLAIN`.

    Raises:
        DataError: There is no template for a conversation, or it refuses this one.
    """
    if tokenizer.chat_template is None and template is None:
        if not isinstance(content, str):
            raise DataError(no_template(f"{where}: a conversation"))
        check_characters(content, where)
        ids = tokenizer(content)["input_ids"]
        return tokenizer.decode(ids), ids
    turns = [{"role": "user", "content": content}] if isinstance(content, str) else content
    chosen = tokenizer.chat_template if template is None else template
    text, _ = render(chosen, turns, where, tools, tokenizer.special_tokens_map, ask=True)
    return text, tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def shows_tools(tokenizer: Any, template: Texts | None = None) -> bool:
    """Whether the chat template renders tools; many ignore them silently."""
    chosen = template if template is not None else tokenizer.chat_template
    return "tools" in (chosen if isinstance(chosen, str) else str(chosen))


def no_template(what: str) -> str:
    """The error message for a conversation and a model without chat template."""
    return f"{what}, and the model's tokenizer has no chat template; use a column of plain text"


def batches(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Batches of prompts of similar length, the longest first, so that there is little padding."""
    ordered = sorted(prompts, key=lambda prompt: -len(prompt.ids))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]
