"""Answers written by a server that speaks OpenAI's completions API, such as vLLM's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from prunus.errors import DataError, HubError
from prunus.generate.answers import Answer
from prunus.generate.config import GenerateConfig
from prunus.generate.prompts import Prompt
from prunus.runtime import Runtime

KEY = "PRUNUS_API_KEY"
_TRIES = 6
_PAUSE = 1.0  # seconds before the second try; each later one waits twice as long
_PATIENCE = 600.0  # seconds for one answer
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def answers(
    batches: Iterable[list[Prompt]], config: GenerateConfig, folder: Path, tokenizer: Any, runtime: Runtime
) -> Iterator[tuple[int, Answer]]:
    """Answer many prompts at a time; each answer comes as it is written, with its prompt's number.

    Raises:
        DataError: The server refuses a request, or answers in no known form.
        HubError: It cannot be reached, or is not able to answer, several times over.
    """
    pool = ThreadPoolExecutor(config.server.concurrency)
    try:
        futures = {pool.submit(_complete, prompt, config, tokenizer): prompt for batch in batches for prompt in batch}
        for future in as_completed(futures):
            prompt, choice = futures[future], future.result()
            yield prompt.number, _answer(prompt, choice, tokenizer)
    finally:
        pool.shutdown(cancel_futures=True)


def _complete(prompt: Prompt, config: GenerateConfig, tokenizer: Any) -> dict[str, Any]:
    """Ask for one completion, again and again while the server is busy."""
    body = {
        "model": config.server.model,
        "prompt": _as_sent(prompt, tokenizer),
        "max_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": int(np.random.SeedSequence([config.seed, prompt.number]).generate_state(1)[0]) >> 1,
    }
    request = _request(str(config.server.url), json.dumps(body).encode())
    for attempt in range(_TRIES):
        try:
            with urlopen(request, timeout=_PATIENCE) as response:
                return _choice(response.read(), request.full_url)
        except HTTPError as error:
            reason = f"{error.code} {error.reason}: {error.read()[:300].decode(errors='replace')}"
            if error.code not in _BUSY:
                raise DataError(f"generate.server: {request.full_url} refuses the request: {reason}") from None
        except (OSError, HTTPException) as error:
            reason = str(error)
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE * 2**attempt)
    raise HubError(f"generate.server.url: {request.full_url} does not answer after {_TRIES} tries: {reason}")


def _request(url: str, body: bytes) -> Request:
    base = url.rstrip("/")
    headers = {"Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    return Request(f"{base if base.endswith('/v1') else f'{base}/v1'}/completions", body, headers)


def _choice(body: bytes, url: str) -> dict[str, Any]:
    try:
        choice: dict[str, Any] = json.loads(body)["choices"][0]
        if isinstance(choice["text"], str):
            return choice
    except (ValueError, LookupError, TypeError):
        pass
    raise DataError(
        f"generate.server.url: {url} answers {body[:200].decode(errors='replace')!r}; the completions API's "
        "{choices: [{text, finish_reason}]} is wanted"
    )


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
    end = named if isinstance(named, int) else tokenizer.eos_token_id
    return Answer(ids if end is None else [*ids, end], text, "stop")
