"""Prompts as a model reads them: through the chat template, tools included, or as they are."""

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
"""A chat template for asking models that have none: who speaks, a colon, what is said, and an empty line.

Not `builtin:plain` (`data.template`), by which models are trained: its answers end with a token, this one's with
`PLAIN_STOP`, since a model that was never trained to chat ends none.
"""

PLAIN_STOP = ("\n\nUser:", "\n\nSystem:", "\n\nTool:")
"""What ends an answer there: a base model goes on with the other's turn."""


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        number: Its place among all; with the seed it decides the draws of its answer.
        ids: What the model reads.
        text: The same as text, special tokens included.
        source: Where it is from, such as `document`, its number in the corpus; or `file` and `row`, from 1.
    """

    number: int
    ids: list[int]
    text: str
    source: dict[str, Any] = field(default_factory=dict)


def rendered(
    asks: str | Turns, tokenizer: Any, where: str, tools: Tools | None = None, template: Texts | None = None
) -> tuple[str, list[int]]:
    """A prompt as text and as ids: through the chat template, or, where there is none, as it is.

    Args:
        asks: A text, or the turns up to where an answer is due.
        tokenizer: Whose chat template is taken.
        where: What errors name.
        tools: Functions that may be called, in JSON schema as `apply_chat_template` wants them.
        template: A template in place of the tokenizer's own, such as `PLAIN`.

    Raises:
        DataError: There is no template for a conversation, or it refuses this one.
    """
    if tokenizer.chat_template is None and template is None:
        if not isinstance(asks, str):
            raise DataError(no_template(f"{where}: a conversation"))
        check_characters(asks, where)
        ids = tokenizer(asks)["input_ids"]
        return tokenizer.decode(ids), ids
    turns = [{"role": "user", "content": asks}] if isinstance(asks, str) else asks
    chosen = tokenizer.chat_template if template is None else template
    text, _ = render(chosen, turns, where, tools, tokenizer.special_tokens_map, ask=True)
    return text, tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def shows_tools(tokenizer: Any, template: Texts | None = None) -> bool:
    """Whether the chat template tells the model of its tools; many leave them out without a word."""
    chosen = template if template is not None else tokenizer.chat_template
    return "tools" in (chosen if isinstance(chosen, str) else str(chosen))


def no_template(what: str) -> str:
    """The words for a conversation that a model without chat template cannot be asked."""
    return f"{what}, and the model's tokenizer has no chat template; give a column of texts"


def batches(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Prompts of like length together, the longest first, so that little is padding."""
    ordered = sorted(prompts, key=lambda prompt: -len(prompt.ids))
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]
