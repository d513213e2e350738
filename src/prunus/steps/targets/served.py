"""Targets from a server that runs the teacher: it is checked first, then asked for one sequence after another.

S sequence, K stored tokens
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.client import Client, Server
from prunus.console import Console
from prunus.data.blocks import Blocks
from prunus.errors import HubError, ModelError
from prunus.inference.prompt_logprobs import APIS, ENTRY_BYTES, Likeliest, Question, joined, likeliest, tokens_of
from prunus.inference.server import KEY
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.targets.config import TargetsConfig, TeacherServerConfig

MAX_KL = 0.1
"""Largest KL between the server's predictions and the teacher's, in nats per token: above that of 8-bit weights and
most of 4 bits, below that of another model."""

_WHERE = "targets.server"
_COMPARED = 64  # tokens of the text that server and teacher are compared on


def question_of(config: TargetsConfig, folder: Path, vocabulary: int) -> Question:
    """What the server is asked of each sequence."""
    letter = load_tokenizer(folder)("a", add_special_tokens=False)["input_ids"] or [0]
    return Question(str(config.server.model), min(config.count, vocabulary), vocabulary, letter[-1])


def check_server(
    config: TeacherServerConfig, folder: Path, ids: np.ndarray, question: Question, runtime: Runtime, console: Console
) -> dict[str, float]:
    """Refuse a server of another model than the teacher.

    Args:
        config: The server.
        folder: The teacher.
        ids: The first sequence of the text, [S].
        question: What the server is asked.
        runtime: Where the teacher runs for the comparison.
        console: Reports what is not compared.

    Returns:
        `server_kl`, the KL between both predictions of the first tokens, if they are compared.

    Raises:
        HubError: The server cannot be reached, or gives no usable answer.
        ModelError: Its tokenizer or its predictions are not the teacher's.
    """
    ids = ids[:_COMPARED]
    _check_tokenizer(config, folder, ids, console)
    with Client(_server(config, question, len(ids))) as client:
        found = likeliest(client, APIS[config.api], ids.tolist(), question)
    if not config.compare:
        console.say(f"{_WHERE}.compare: false; the server's predictions are not compared with the teacher's")
        return {}
    kl = _difference(found, ids, folder, runtime)
    if not kl <= MAX_KL:
        raise ModelError(
            f"{_WHERE}: {question.model!r} predicts otherwise than the teacher, {folder}: KL {kl:.3g} nats per token "
            f"on the text's first {len(ids)} tokens; allowed: at most {MAX_KL:g}. Serve the teacher, after its "
            "correction if there is one"
        )
    return {"server_kl": kl}


def predictions(
    config: TargetsConfig, blocks: Blocks, numbers: np.ndarray, todo: Iterable[slice], question: Question
) -> Iterator[tuple[slice, list[np.ndarray], np.ndarray]]:
    """Ask for sequences concurrently, and yield each as it arrives.

    Args:
        config: The options.
        blocks: The text's sequences.
        numbers: The sequence of each row.
        todo: The rows to ask for, one at a time.
        question: What is asked.

    Yields:
        The rows, their ids [1, S, K] and log-probabilities [1, S, K + 1], and the mean stored mass [1].

    Raises:
        HubError: The server refuses a request, cannot be reached, or gives no usable answer after all retries.
    """
    server = _server(config.server, question, config.sequence_length)
    workers = ThreadPoolExecutor(config.server.concurrency, thread_name_prefix="prunus-targets")
    with workers, Client(server) as client:
        try:
            futures = {
                workers.submit(partial(_sequence, client, config, blocks, int(numbers[rows.start]), question)): rows
                for rows in todo
            }
            for future in as_completed(futures):
                yield futures.pop(future), *_stored(future.result(), question)
        finally:
            workers.shutdown(wait=False, cancel_futures=True)


def _server(config: TeacherServerConfig, question: Question, length: int) -> Server:
    size = (length + 1) * (question.count + 1) * ENTRY_BYTES
    path, key = APIS[config.api].path, os.environ.get(KEY)
    return Server(str(config.url), path, _WHERE, key, config.timeout, config.concurrency, size)


def _sequence(client: Client, config: TargetsConfig, blocks: Blocks, number: int, question: Question) -> Likeliest:
    """The predictions of one sequence; of each document alone if they do not attend to others."""
    ids = blocks.ids(number).tolist()
    starts = [0] if config.attend_across_documents else np.flatnonzero(blocks.positions(number) == 0).tolist()
    ends = [*starts[1:], len(ids)]
    api = APIS[config.server.api]
    return joined([likeliest(client, api, ids[start:end], question) for start, end in zip(starts, ends, strict=True)])


def _stored(found: Likeliest, question: Question) -> tuple[list[np.ndarray], np.ndarray]:
    """The arrays of one row, and its mean mass."""
    mass = np.exp(found.log_probabilities).sum(axis=1).clip(max=1)
    with np.errstate(divide="ignore"):  # nothing is left of a mass of 1
        rest = np.log1p(-mass) if question.count < question.vocabulary else np.full(len(mass), -np.inf)
    return [found.ids[None], np.column_stack([found.log_probabilities, rest])[None]], mass.mean(keepdims=True)


def _check_tokenizer(config: TeacherServerConfig, folder: Path, ids: np.ndarray, console: Console) -> None:
    """Compare the tokens of a text, if the server tokenizes.

    Raises:
        ModelError: The message has the first difference.
    """
    tokenizer: Any = load_tokenizer(folder)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    ours = tokenizer(text, add_special_tokens=False)["input_ids"]
    server = replace(_server(config, Question("", 0, 0, 0), 0), path="/tokenize", answer_bytes=0)
    try:
        with Client(server) as client:
            theirs = tokens_of(client, APIS[config.api], text, str(config.model))
    except HubError as error:
        console.say(f"tokenizers are not compared: {error}")
        return
    if ours != theirs:
        first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        place = f"{len(theirs)} tokens instead of {len(ours)}" if first is None else (
            f"token {first} is {theirs[first]} there and {ours[first]} here"
        )  # fmt: skip
        raise ModelError(
            f"{_WHERE}: the server's tokenizer is not that of the teacher, {folder}: of the text's beginning, {place}"
        )


@torch.no_grad()
def _difference(found: Likeliest, ids: np.ndarray, folder: Path, runtime: Runtime) -> float:
    """KL of the teacher's predictions from the server's, by the stored tokens and the rest, in nats per token."""
    device = device_of(runtime)
    model = load_model(folder, device, inference_dtype(runtime, device))
    logits = model(torch.from_numpy(ids.astype(np.int64))[None].to(device), use_cache=False).logits[0]
    known = torch.log_softmax(logits.double().cpu(), dim=-1)
    ours = known.gather(-1, torch.from_numpy(found.ids)).numpy()
    theirs = found.log_probabilities
    kl = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
    left = [(1 - np.exp(kept).sum(axis=1)).clip(1e-12, 1) for kept in (theirs, ours)]
    return float((kl + left[0] * np.log(left[0] / left[1])).mean())
