"""Answers written by a server that speaks OpenAI's completions API, such as vLLM's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed
from typing import Any

import numpy as np

from prunus.client import BadAnswerError, Client, Server, shown_answer
from prunus.inference.answers import Answer
from prunus.inference.config import Writing
from prunus.inference.prompts import Prompt

KEY = "PRUNUS_API_KEY"


def answers(batches: Iterable[list[Prompt]], writing: Writing, tokenizer: Any) -> Iterator[tuple[int, Answer]]:
    """Answer many prompts at a time; each answer comes as it is written, with its prompt's number.

    Raises:
        HubError: The server cannot be reached, refuses a request, or gives no usable answer, several times over.
    """
    config, key = writing.server, os.environ.get(KEY)
    where = f"{writing.where}.server"
    server = Server(str(config.url), "completions", where, key, config.timeout, config.concurrency)
    added = tokenizer("")["input_ids"]
    begins = bool(added) and added[0] == tokenizer.bos_token_id
    begin = tokenizer.bos_token if begins else ""  # the token that the server's tokenizer puts before every text

    def choice(answer: Any) -> dict[str, Any]:
        return _choice(answer, len(tokenizer))

    with Client(server) as client:
        futures = {
            client.ask(_body(prompt, prompt.text.removeprefix(begin), writing), choice): prompt
            for batch in batches
            for prompt in batch
        }
        for future in as_completed(futures):
            prompt = futures.pop(future)
            yield prompt.number, _answer(prompt, future.result(), tokenizer)


def _body(prompt: Prompt, text: str, writing: Writing) -> dict[str, Any]:
    """The request, with a seed that belongs to its prompt."""
    stop = {"stop": list(writing.stop)} if writing.stop else {}
    return {
        "model": writing.server.model,
        "prompt": text,
        "max_tokens": writing.max_new_tokens,
        "temperature": writing.temperature,
        "top_p": writing.top_p,
        "seed": int(np.random.SeedSequence([writing.seed, prompt.number]).generate_state(1)[0]) >> 1,
        **stop,
    }


def _choice(answer: Any, tokens: int) -> dict[str, Any]:
    """The first choice of an answer: its text, why it ended, and by what.

    Raises:
        BadAnswerError: It has another form, or ended by a token that the tokenizer does not have.
    """
    try:
        choice = answer["choices"][0]
        found = {key: choice.get(key) for key in ("text", "finish_reason", "stop_reason")}
    except (LookupError, TypeError, AttributeError):
        found = {}
    text, finish, named = (found.get(key) for key in ("text", "finish_reason", "stop_reason"))
    known = named is None or isinstance(named, str) or type(named) is int
    if not isinstance(text, str) or not isinstance(finish, str | None) or not known:
        raise shown_answer(answer, "the completions API's {choices: [{text, finish_reason}]}")
    if isinstance(named, int) and not 0 <= named < tokens:
        raise BadAnswerError(
            f"ended an answer by the token {named} (stop_reason), and the teacher has {tokens}; another model is served"
        )
    return found


def _answer(prompt: Prompt, choice: dict[str, Any], tokenizer: Any) -> Answer:
    """The answer as tokens: as they stand behind the prompt where the two can be told apart, and the one that ended it.

    Servers name that one (`stop_reason`) if it is not the tokenizer's own end-of-sequence token.
    """
    text = choice["text"]
    ids = tokenizer(prompt.text + text, add_special_tokens=False)["input_ids"]
    told_apart = ids[: len(prompt.ids)] == prompt.ids
    ids = ids[len(prompt.ids) :] if told_apart else tokenizer(text, add_special_tokens=False)["input_ids"]
    if choice["finish_reason"] != "stop":
        return Answer(ids, text, "length")
    named = choice["stop_reason"]
    if isinstance(named, str):  # one of the texts that end an answer; it is not in the text
        return Answer(ids, text, "stop")
    end = named if isinstance(named, int) else tokenizer.eos_token_id
    return Answer(ids if end is None else [*ids, end], text, "stop")
