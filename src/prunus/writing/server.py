"""Answers written by a server that speaks OpenAI's completions API, such as vLLM's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from prunus.errors import DataError, HubError
from prunus.writing.answers import Answer
from prunus.writing.config import Writing
from prunus.writing.prompts import Prompt

KEY = "PRUNUS_API_KEY"
_TRIES = 6
_PAUSE = 1.0  # seconds before the second try; each later one waits twice as long
PATIENCE = 600.0  # seconds for one answer
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def answers(batches: Iterable[list[Prompt]], writing: Writing, tokenizer: Any) -> Iterator[tuple[int, Answer]]:
    """Answer many prompts at a time; each answer comes as it is written, with its prompt's number.

    Raises:
        DataError: The server refuses a request, or answers in no known form.
        HubError: It cannot be reached, or is not able to answer, several times over.
    """
    pool = ThreadPoolExecutor(writing.server.concurrency)
    try:
        futures = {pool.submit(_complete, prompt, writing, tokenizer): prompt for batch in batches for prompt in batch}
        for future in as_completed(futures):
            prompt, choice = futures[future], future.result()
            yield prompt.number, _answer(prompt, choice, tokenizer)
    finally:
        pool.shutdown(cancel_futures=True)


def _complete(prompt: Prompt, writing: Writing, tokenizer: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": writing.server.model,
        "prompt": _as_sent(prompt, tokenizer),
        "max_tokens": writing.max_new_tokens,
        "temperature": writing.temperature,
        "top_p": writing.top_p,
        "seed": int(np.random.SeedSequence([writing.seed, prompt.number]).generate_state(1)[0]) >> 1,
    }
    if writing.stop:
        body["stop"] = list(writing.stop)
    where = f"{writing.where}.server"
    answer = post(str(writing.server.url), "completions", body, where, os.environ.get(KEY))
    try:
        choice: dict[str, Any] = answer["choices"][0]
        if isinstance(choice["text"], str):
            return choice
    except (LookupError, TypeError):
        pass
    raise DataError(
        f"{where}.url: {endpoint(str(writing.server.url), 'completions')} answers {json.dumps(answer)[:200]!r}; the "
        "completions API's {choices: [{text, finish_reason}]} is wanted"
    )


def post(url: str, path: str, body: dict[str, Any], where: str, key: str | None, patience: float = PATIENCE) -> Any:
    """Ask an OpenAI-compatible server, again and again while it is busy, and return the JSON that it answers.

    Args:
        url: Its address, with or without `/v1`.
        path: What is asked for, such as `chat/completions`.
        body: The request.
        where: The option's path that errors name.
        key: Sent as the bearer token, if there is one.
        patience: Seconds for one answer.

    Raises:
        DataError: The server refuses the request, or answers something that is no JSON.
        HubError: It cannot be reached, or is not able to answer, several times over.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = Request(endpoint(url, path), json.dumps(body).encode(), headers)
    for attempt in range(_TRIES):
        try:
            with urlopen(request, timeout=patience) as response:
                return _as_json(response.read(), request.full_url, where)
        except HTTPError as error:
            reason = f"{error.code} {error.reason}: {error.read()[:300].decode(errors='replace')}"
            if error.code not in _BUSY:
                raise DataError(f"{where}: {request.full_url} refuses the request: {reason}") from None
        except (OSError, HTTPException) as error:
            reason = str(error)
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE * 2**attempt)
    raise HubError(f"{where}.url: {request.full_url} does not answer after {_TRIES} tries: {reason}")


def endpoint(url: str, path: str) -> str:
    """The full address of what is asked for."""
    base = url.rstrip("/")
    return f"{base if base.endswith('/v1') else f'{base}/v1'}/{path}"


def _as_json(body: bytes, url: str, where: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise DataError(f"{where}.url: {url} answers {body[:200].decode(errors='replace')!r}; JSON is wanted") from None


def _as_sent(prompt: Prompt, tokenizer: Any) -> str:
    """The prompt's text, without the token that the server's tokenizer puts before every text."""
    added = tokenizer("")["input_ids"]
    begins = bool(added) and added[0] == tokenizer.bos_token_id
    return prompt.text.removeprefix(tokenizer.bos_token) if begins else prompt.text


def _answer(prompt: Prompt, choice: dict[str, Any], tokenizer: Any) -> Answer:
    """The answer as tokens: as they stand behind the prompt where the two can be told apart, and the one that ended it.

    Servers name that one (`stop_reason`) if it is not the tokenizer's own end-of-sequence token.
    """
    text = choice["text"]
    ids = tokenizer(prompt.text + text, add_special_tokens=False)["input_ids"]
    told_apart = ids[: len(prompt.ids)] == prompt.ids
    ids = ids[len(prompt.ids) :] if told_apart else tokenizer(text, add_special_tokens=False)["input_ids"]
    if choice.get("finish_reason") != "stop":
        return Answer(ids, text, "length")
    named = choice.get("stop_reason")
    if isinstance(named, str):  # one of the texts that end an answer; it is not in the text
        return Answer(ids, text, "stop")
    end = named if isinstance(named, int) else tokenizer.eos_token_id
    return Answer(ids if end is None else [*ids, end], text, "stop")
