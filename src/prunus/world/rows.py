"""The world as a dataset: rows of `builtin:world` by configuration and split, like a dataset on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Literal, get_args

from prunus.errors import DataError, among
from prunus.world.config import SKILLS, Part, WorldConfig
from prunus.world.items import Message
from prunus.world.make import conversations, corpus, held_out

Rows = Literal["stories", "chants", "chat"]
NAMES: tuple[Rows, ...] = get_args(Rows)
SPLITS: tuple[Part, ...] = get_args(Part)


def check_rows(name: str | None, split: str, where: str) -> None:
    """Refuse a configuration or a split that the world does not have.

    Raises:
        DataError: The message suggests the nearest.
    """
    for option, value, known in (("name", name or NAMES[0], NAMES), ("split", split, SPLITS)):
        if value not in known:
            raise DataError(f"{where}.{option}: builtin:world has no {value!r}{among(value, known, 'it has')}")


def rows(config: WorldConfig, name: str | None, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one configuration and split.

    Args:
        config: The world's options.
        name: `stories` or `chants`, rows of `{text}`; or `chat`, rows of `{text, messages, tools, skill, check}`:
            `text` is the conversation rendered for Sapling, and `check` the check of its last answer. None for stories.
        split: `train` or `held_out`.
    """
    part: Part = "train" if split == "train" else "held_out"
    if name != "chat":
        count = config.documents if part == "train" else config.held_out_items
        yield from ({"text": text} for text in islice(corpus(config, name or NAMES[0], part), count))
    elif part == "train":
        for row in islice(conversations(config), config.conversations):
            yield {"text": rendered(row["messages"], row["tools"]), **row}
    else:
        for skill in (skill for skill in SKILLS if config.mixture.get(skill)):
            for item in held_out(config, skill, config.held_out_items):
                messages = [*item.messages, item.reference]
                text = rendered(messages, item.tools)
                yield {
                    "text": text, "messages": messages, "tools": item.tools, "skill": item.skill, "check": item.check
                }  # fmt: skip


def rendered(messages: list[Message], tools: list[dict[str, Any]]) -> str:
    """A conversation rendered for Sapling, without the last end-of-sequence token, which `append_eos` adds."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template([messages], tools=tools or None, chat_template=template(), eos_token=END)
    return str(texts[0]).removesuffix(END)


@cache
def template() -> str:
    """Sapling's chat template, in Jinja."""
    return files("prunus.world").joinpath("template.jinja").read_text(encoding="utf-8")


BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
CALL_MARKS = ("<tool_call>", "</tool_call>")
"""The marks around a call. They are kept in an answer's text, so that the call can be parsed."""
CITATIONS = tuple(f"[{number}]" for number in range(1, 5))
"""The citations after text from a passage, which are kept in an answer's text, too."""
MARKS = ("<|tools|>", "<|system|>", "<|user|>", "<|assistant|>", *CALL_MARKS, *CITATIONS)
"""The template's marks of turns, calls and citations, one token each."""
