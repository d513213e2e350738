"""The likeliest next tokens at every position of a prompt, with their log-probabilities, from a server.

Prompts are token ids, so the server's tokenizer has no part in the answers. S positions, K tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.client import BadAnswerError, Client, shown_answer

ENTRY_BYTES = 160
"""Bytes of one token in an answer, at most: vLLM writes its id, log-probability, rank and text."""

_EXCESS = 1e-2  # by which probabilities from 16-bit logits may exceed 1
_FORCED = 1e6  # a bias that leaves only one token to generate; reported log-probabilities are without it


@dataclass(frozen=True)
class Question:
    """What is asked of each prompt.

    Attributes:
        model: The model's name at the server.
        count: K.
        vocabulary: The number of the model's tokens.
        letter: The token of a plain letter. It ends prompts whose last position would have no answer otherwise.
    """

    model: str
    count: int
    vocabulary: int
    letter: int


@dataclass(frozen=True)
class Likeliest:
    """The K likeliest tokens at S positions: `ids` and `log_probabilities`, [S, K], the likeliest first."""

    ids: np.ndarray
    log_probabilities: np.ndarray


def joined(parts: Sequence[Likeliest]) -> Likeliest:
    """Consecutive positions as one."""
    return Likeliest(
        np.concatenate([part.ids for part in parts]), np.concatenate([part.log_probabilities for part in parts])
    )


Row = list[tuple[int, float]]
"""The tokens that an answer has for one position, with their log-probabilities."""


@dataclass(frozen=True)
class Api:
    """How a kind of server is asked.

    Attributes:
        path: The endpoint.
        body: The request for a prompt.
        rows: Of an answer, what is known of each position. It may raise any error of an unexpected form.
        form: The expected form, for messages.
        tokenize: The field of `/tokenize` that has the text, and the one that says whether special tokens are added.
        stepwise: Whether an answer holds the last position only, so that each position is a request. Servers keep the
            prompt that they have read, so that each request costs one token.
    """

    path: str
    body: Callable[[list[int], Question], dict[str, Any]]
    rows: Callable[[Any], list[Row]]
    form: str
    tokenize: tuple[str, str] = ("prompt", "add_special_tokens")
    stepwise: bool = False


def _vllm_body(ids: list[int], question: Question) -> dict[str, Any]:
    return {
        "model": question.model,
        "prompt": [*ids, question.letter],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": question.count,
    }


def _vllm_rows(answer: Any) -> list[Row]:
    """The first token of a prompt has no prediction; a row has the prompt's own token, too, likely or not."""
    predicted = answer["choices"][0]["prompt_logprobs"][1:]
    return [[(int(token), entry["logprob"]) for token, entry in row.items()] for row in predicted]


def _sglang_body(ids: list[int], question: Question) -> dict[str, Any]:
    return {
        "input_ids": [*ids, question.letter],
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": question.count,
        "return_text_in_logprobs": False,
    }


def _sglang_rows(answer: Any) -> list[Row]:
    """Entries are (log-probability, token, text); the first token of a prompt has none."""
    predicted = answer["meta_info"]["input_top_logprobs"][1:]
    return [[(entry[1], entry[0]) for entry in row or ()] for row in predicted]


def _llamacpp_body(ids: list[int], question: Question) -> dict[str, Any]:
    """A token that ends inside of a character gets no log-probabilities, so the generated one is forced."""
    return {
        "model": question.model,
        "prompt": ids,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": question.count,
        "logit_bias": [[question.letter, _FORCED]],
        "cache_prompt": True,
    }


def _llamacpp_rows(answer: Any) -> list[Row]:
    content = answer["choices"][0]["logprobs"]["content"]
    return [[(entry["id"], entry["logprob"]) for entry in one["top_logprobs"]] for one in content]


APIS = {
    "vllm": Api("completions", _vllm_body, _vllm_rows, "{choices: [{prompt_logprobs: [null, {ID: {logprob}}, ...]}]}"),
    "sglang": Api(
        "/generate", _sglang_body, _sglang_rows, "{meta_info: {input_top_logprobs: [null, [[LOGPROB, ID, null], ...]]}}"
    ),
    "llama.cpp": Api(
        "completions", _llamacpp_body, _llamacpp_rows,
        "{choices: [{logprobs: {content: [{top_logprobs: [{id, logprob}, ...]}]}}]}",
        tokenize=("content", "add_special"), stepwise=True,
    ),
}  # fmt: skip
"""The servers, by the names of `targets.server.api`."""


def likeliest(client: Client, api: Api, ids: Sequence[int], question: Question) -> Likeliest:
    """Ask for the likeliest next tokens after each token of a prompt; waits for the answer.

    Raises:
        HubError: The server refuses the prompt, cannot be reached, or gives no usable answer after all retries.
    """
    whole = list(ids)
    prompts = [whole[:end] for end in range(1, len(whole) + 1)] if api.stepwise else [whole]
    positions = 1 if api.stepwise else len(whole)

    def read(answer: Any) -> Likeliest:
        return _read(answer, api, positions, question)

    found = [client.post(api.body(prompt, question), read).result() for prompt in prompts]
    return joined(found)


def tokens_of(client: Client, api: Api, text: str, model: str) -> list[int]:
    """A text's tokens by the server's tokenizer, without special ones. `client` is that of its `/tokenize`.

    Raises:
        HubError: The server does not tokenize.
    """
    field, special = api.tokenize

    def read(answer: Any) -> list[int]:
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list) or any(type(token) is not int for token in tokens):
            raise shown_answer(answer, "{tokens: [ID, ...]}")
        return tokens

    return client.post({"model": model, field: text, special: False}, read).result()


def _read(answer: Any, api: Api, positions: int, question: Question) -> Likeliest:
    """Check an answer and sort it.

    Raises:
        BadAnswerError: It has another form, fewer positions than the prompt has tokens, fewer tokens than asked for,
            tokens that the model does not have, or values that are no log-probabilities.
    """
    try:
        rows = api.rows(answer)
        kept = [sorted(row, key=lambda entry: -entry[1])[: question.count] for row in rows]
        ids = [[token for token, _ in row] for row in kept]
        values = [[float(value) for _, value in row] for row in kept]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise shown_answer(answer, api.form) from None
    if len(rows) != positions:
        raise BadAnswerError(f"gives log-probabilities at {len(rows)} of {positions} positions")
    for position, row in enumerate(kept):
        if len(row) < question.count:
            raise BadAnswerError(
                f"gives {len(row)} of {question.count} log-probabilities at position {position} of {positions}; start "
                "it with a higher limit, or ask for fewer (targets.count)"
            )
    found = Likeliest(np.array(ids), np.array(values, dtype=np.float64))
    _check_values(found, question)
    return found


def _check_values(found: Likeliest, question: Question) -> None:
    """Refuse what cannot be the likeliest tokens of the model, naming the first position."""
    ids, mass = found.ids, np.exp(found.log_probabilities).sum(axis=1)
    if ids.dtype.kind != "i":
        raise BadAnswerError("gives tokens that are no ids")
    for position, (row, total) in enumerate(zip(ids, mass, strict=True)):
        if row.min() < 0 or row.max() >= question.vocabulary:
            raise BadAnswerError(
                f"gives token {row.max()} at position {position}, but the teacher has {question.vocabulary} tokens; "
                "it serves another model"
            )
        if len(set(row.tolist())) < len(row):
            raise BadAnswerError(f"gives a token twice at position {position}")
        if not total <= 1 + _EXCESS:
            raise BadAnswerError(
                f"gives probabilities that sum to {total:.4g} at position {position}; expected at most 1"
            )
