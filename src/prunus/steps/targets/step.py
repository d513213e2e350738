"""The `targets` step: the teacher reads its students' training data once, and its predictions are stored compactly.

B batch, S sequence, V vocabulary, K stored tokens
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.blocks import Blocks
from prunus.data.targets import TargetWriter
from prunus.data.tokens import Tokens, schedule
from prunus.models.finite import not_finite
from prunus.models.folder import ModelFolder
from prunus.models.head import check_head, read_head
from prunus.models.load import device_of, inference_dtype
from prunus.models.quantized import load_frozen
from prunus.runtime import Runtime
from prunus.steps.targets.choose import Choice, chances, drawn, top_k
from prunus.steps.targets.config import TargetsConfig
from prunus.steps.targets.served import check_server, predictions, question_of
from prunus.training.head import buffer, head_logits

PARALLEL = True
_ROWS = 128  # positions whose probabilities are in memory at a time


@dataclass(frozen=True)
class Inputs:
    """The teacher, and the stream of tokens."""

    model: Path
    tokens: Path


Predicted = tuple[slice, list[np.ndarray], np.ndarray]
"""Rows, and what `TargetWriter.write` takes of them."""


@dataclass(frozen=True)
class _Source:
    """Where predictions come from.

    Attributes:
        predict: The predictions of slices of rows, in any order.
        size: Rows of a slice.
        vocabulary: V.
        figures: For the metrics.
    """

    predict: Callable[[list[slice]], Iterator[Predicted]]
    size: int
    vocabulary: int
    figures: dict[str, float]


def run(config: TargetsConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Store the model's predictions on all blocks that training will read. Several processes share the work.

    Writes `numbers.npy`, `ids.npy` and, with `top_k`, `log_probabilities.npy`; see `data.targets.Targets`.

    Returns:
        Sequences, their tokens, stored bytes per token, and the mean probability of the stored tokens per position;
        `server_kl` if a server's predictions were compared with the model's.

    Raises:
        DataError: The stream does not fill one sequence.
        HubError: The server cannot be reached, or gives no usable answer.
        ModelError: The model cannot be loaded, its logits are not a plain LM head's, it gives NaN or infinity, or the
            server serves another.
    """
    blocks = Blocks(Tokens.open(inputs.tokens), config.sequence_length)
    numbers = np.unique(schedule(len(blocks), config.sequences, config.seed))
    if config.server.url:
        source = _served(config, inputs.model, blocks, numbers, runtime, console)
    else:
        source = _local(config, inputs.model, blocks, numbers, runtime)
    writing = _begin(config, out, numbers, source.vocabulary)
    size = source.size  # batches do not depend on what is done already, nor on the number of processes
    slices = [slice(start, min(start + size, len(numbers))) for start in range(0, len(numbers), size)]
    todo = [rows for rows in slices[distributed.rank() :: distributed.count()] if not writing.done(rows)]
    done = 0
    with console.progress("targets", sum(rows.stop - rows.start for rows in todo), "sequences") as progress:
        for rows, arrays, mass in source.predict(todo):
            writing.write(rows, arrays, mass)
            progress.update(done := done + rows.stop - rows.start)
    distributed.wait()
    count = len(numbers) * config.sequence_length
    metrics = {
        "sequences": len(numbers),
        "tokens": count,
        "bytes_per_token": writing.nbytes / count,
        "kept_mass": float(writing.mass.mean(dtype=np.float64)),
        **source.figures,
    }
    distributed.wait()  # until all processes have read the metrics' inputs
    if distributed.rank() == 0:
        remove_checkpoints(out)
    return metrics


def _local(config: TargetsConfig, folder: Path, blocks: Blocks, numbers: np.ndarray, runtime: Runtime) -> _Source:
    """The teacher in memory."""
    device = device_of(runtime)
    model = load_frozen(folder, device, inference_dtype(runtime, device), config.teacher_bits)
    check_head(model)

    def predict(todo: list[slice]) -> Iterator[Predicted]:
        return ((rows, *_predictions(model, blocks, config, numbers[rows])) for rows in todo)

    return _Source(predict, runtime.device_batch_size, len(read_head(model).weight), {})


def _served(
    config: TargetsConfig, folder: Path, blocks: Blocks, numbers: np.ndarray, runtime: Runtime, console: Console
) -> _Source:
    """The teacher at a server, which the first process checks."""
    vocabulary = ModelFolder(folder).shape.vocab_size
    question = question_of(config, folder, vocabulary)
    figures = {}
    if distributed.rank() == 0:
        figures = check_server(config.server, folder, blocks.ids(int(numbers[0])), question, runtime, console)
    distributed.wait()

    def predict(todo: list[slice]) -> Iterator[Predicted]:
        return predictions(config, blocks, numbers, todo, question)

    return _Source(predict, 1, vocabulary, figures)


def _begin(config: TargetsConfig, out: Path, numbers: np.ndarray, vocabulary: int) -> TargetWriter:
    """Files for all rows, created by the first process and mapped by all."""
    writing = TargetWriter(out, numbers)
    weighed = config.keep == "top_k"
    if distributed.rank() == 0:
        count = min(config.count, vocabulary) if weighed else config.count
        writing.begin(config.sequence_length, count, vocabulary, weighed)
    distributed.wait()
    writing.open()
    return writing


@torch.no_grad()
def _predictions(
    model: PreTrainedModel, blocks: Blocks, config: TargetsConfig, numbers: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """The stored values of some blocks, by their numbers [B], and the mean stored mass of each block [B]."""
    length = config.sequence_length
    ids = torch.from_numpy(blocks.batch(numbers)).to(model.device)
    positions = None
    if not config.attend_across_documents:
        apart = np.stack([blocks.positions(int(number)) for number in numbers])
        positions = torch.from_numpy(apart).to(model.device)
    hidden = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state.flatten(0, 1)
    head = read_head(model)
    logits = buffer(hidden, len(head.weight))
    chosen: list[Choice] = []
    draws = _draws(config, numbers)
    for start in range(0, len(hidden), len(logits)):
        chunk = hidden[start : start + len(logits)]
        head_logits(chunk, head, logits[: len(chunk)])
        for first in range(0, len(chunk), _ROWS):
            rows = slice(first, min(first + _ROWS, len(chunk)))
            chosen.append(_choose(logits[rows], draws[start + rows.start : start + rows.stop], config))
    kept = [torch.cat([choice.ids for choice in chosen])]
    if config.keep == "top_k":
        kept.append(torch.cat([choice.log_probabilities for choice in chosen if choice.log_probabilities is not None]))
    mass = torch.cat([choice.mass for choice in chosen]).view(len(numbers), -1).mean(dim=1)
    for number, row, whole in zip(numbers.tolist(), ids, torch.isfinite(mass).tolist(), strict=True):
        if not whole:
            raise not_finite(model, f"its distribution on sequence {number} of the text", row[None])
    return [values.view(len(numbers), length, -1).cpu().numpy() for values in kept], mass.float().cpu().numpy()


def _draws(config: TargetsConfig, numbers: np.ndarray) -> np.ndarray:
    """Random numbers for sampling, [B * S, K]; of width 0 with `top_k`."""
    count = config.count if config.keep == "samples" else 0
    return np.concatenate([chances(config.seed, int(n), config.sequence_length, count) for n in numbers])


def _choose(logits: torch.Tensor, draws: np.ndarray, config: TargetsConfig) -> Choice:
    """The tokens to store from logits [R, V]."""
    if config.keep == "top_k":
        return top_k(logits, config.count, config.temperature)
    wide = np.float32 if logits.device.type == "mps" else np.float64
    return drawn(logits, torch.from_numpy(draws.astype(wide)).to(logits.device), config.temperature)
