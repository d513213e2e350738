"""A quick check of any GGUF file before it is used, without the model that it was made from.

A wrong file or kernel still produces text. Two things can be checked in a second: a trained model predicts plain
English better than chance, and a text gives the same logits at once and token by token, for which llama.cpp uses
different kernels.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from prunus.errors import ModelError
from prunus.files import read_object
from prunus.llamacpp.header import Header, read_header
from prunus.llamacpp.running import Running

TEXT = "The sun was warm, and the children went down to the river with their mother. They saw a boat on the water."
MOST = 24
"""Maximum number of tokens of TEXT to read, all at once and again one by one."""

APART = 0.05
"""Largest KL between both ways of reading, in nats per token, without a warning. In SmolLM2 135M, half precision alone
gives 0.0003, quantised files 0."""


def file_warnings(file: Path) -> list[str]:
    """Run a file on a few tokens.

    Returns:
        Warnings for the user.

    Raises:
        ModelError: It is not a GGUF file of a language model, or its logits are not finite.
        ExportError: llama.cpp crashed on it.
    """
    header = read_header(file)
    with Running(file, max(1, min(MOST, header.context)), exact=False) as running:
        ids = running.tokenize(TEXT, special=True)[: min(MOST, header.context)]
        together = running.logits(ids)
        singly = np.concatenate([running.logits([token], start=i) for i, token in enumerate(ids)])
    if not np.isfinite(together).all():
        raise ModelError(f"{file}: its logits are not finite; the file, or llama.cpp on this machine, is broken")
    return [*_of_logits(file, ids, together, singly), *_of_record(file), *_of_bits(file, header)]


def _of_logits(file: Path, ids: list[int], together: np.ndarray, singly: np.ndarray) -> list[str]:
    lines = []
    ours, theirs = _log_softmax(together), _log_softmax(singly)
    nll, chance = -float(ours[np.arange(len(ids) - 1), ids[1:]].mean()), math.log(together.shape[-1])
    if not nll < chance:
        lines.append(
            f"{file.name}: it predicts plain English no better than chance ({nll:.2f} nats per token, chance "
            f"{chance:.2f}). The file or llama.cpp on this machine is broken, or the model has not learnt English"
        )
    apart = float((np.exp(ours) * (ours - theirs)).sum(-1).mean())
    if not apart < APART:
        lines.append(
            f"{file.name}: a text gives different probabilities at once and token by token (KL {apart:.2g} nats per "
            "token); one of llama.cpp's kernels is wrong on this machine"
        )
    return lines


def _of_record(file: Path) -> list[str]:
    """What `export` measured, if the file is in the same folder as its record."""
    record = file.parent / "export.json"
    if not record.is_file():
        return []
    entries = [entry for entry in read_object(record, ModelError).values() if isinstance(entry, dict)]
    entry = next((entry for entry in entries if entry.get("file") == file.name), None)
    if entry is None or not isinstance(entry.get("kl"), float) or not isinstance(entry.get("top1"), float):
        return []
    if entry.get("nbytes") != file.stat().st_size:
        return [f"{file.name}: export.json in its folder describes another file, of {entry.get('nbytes')} bytes"]
    return [
        f"{file.name}: at export, its KL to the model was {entry['kl']:.2g} nats per token, and "
        f"{entry['top1']:.1%} of its top-1 predictions were the model's"
    ]


def _of_bits(file: Path, header: Header) -> list[str]:
    if not header.quantised:
        return []
    return [
        f"{file.name}: its weights are {header.quantised}, and on a CPU llama.cpp rounds activations to 8 bits. If "
        "two next tokens are almost equally likely, it may choose another one than the folder, even at temperature 0"
    ]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
