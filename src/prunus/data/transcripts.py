"""Conversations stored as one text."""

from __future__ import annotations

import re

from prunus.data.turns import Turns
from prunus.errors import DataError

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}

_WORDS = r"(?:#+ *|\*\*)?(?:{})(?:\*\*)? *:"
_ASKS = re.compile(r"\s*" + _WORDS.format("human|user|instruction|question"), re.IGNORECASE)
_ANSWERS = re.compile(r"\s" + _WORDS.format("assistant|response|answer|bot|ai|gpt|chatgpt|model"), re.IGNORECASE)
_MARKERS = re.compile(
    r"\s*(?:<s>\s*)?(?:\[INST\]|<\|im_start\|>|<\|start_header_id\|>|<\|(?:user|system|human)\|>|<start_of_turn>|<\|begin_of_text\|>)"
)


def transcript(text: str, where: str) -> Turns | None:
    r"""The turns of a text in the form of Anthropic's hh-rlhf: "\n\nHuman: ...\n\nAssistant: ...".

    Args:
        text: The text.
        where: Its name in messages.

    Returns:
        Its turns, the last of them empty if the text ends in "Assistant:"; None if it does not have this form.
    """
    text = text.lstrip()
    if not _SPEAKER.match(text):
        return None
    pieces = _SPEAKER.split(text)[1:]
    turns = [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    for number, turn in enumerate(turns, start=1):
        if turn["role"] == "user" and not turn["content"]:
            raise DataError(f"{where}, turn {number}: the user's turn is empty")
    return turns


def refuse_other_forms(text: str, where: str) -> None:
    """Refuse an answer that is a transcript in another form: training on it would teach to speak for the user.

    Raises:
        DataError: It begins like one.
    """
    match = _MARKERS.match(text) or (_ANSWERS.search(text) and _ASKS.match(text))
    if match:
        raise DataError(
            f"{where} begins with a turn of its own ({match.group().strip()!r}); allowed: only the answer, a list of "
            'messages, or a transcript of the form "\\n\\nHuman: ...\\n\\nAssistant: ..."'
        )
