"""A look at a GGUF file from anywhere before it is used: what can be known of it without the model it was made from.

A file or a kernel that computes something else still writes something. Two things can be seen in a second: a model
that has learnt anything guesses plain English better than chance does, and the same text gives the same logits whether
it is read at once or token by token, which other kernels of llama.cpp do.
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
"""Tokens of it that are read, at most: each once more by itself."""

APART = 0.05
"""KL in nats per token between both ways of reading that goes without a word. Half precision alone makes 0.0003 of it
in SmolLM2 135M, and 0 in its quantised files."""


def look_at(file: Path) -> list[str]:
    """Run a file on a few tokens.

    Returns:
        What the user should know, a line each.

    Raises:
        ModelError: It is no GGUF file of a language model, or its logits are not finite.
        ExportError: llama.cpp ended on it.
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
            f"{file.name}: it guesses plain English no better than chance ({nll:.2f} nats per token, chance "
            f"{chance:.2f}). The file or llama.cpp on this machine is broken, or the model has not learnt English"
        )
    apart = float((np.exp(ours) * (ours - theirs)).sum(-1).mean())
    if not apart < APART:
        lines.append(
            f"{file.name}: read at once and token by token, the same text gives other probabilities (KL {apart:.2g} "
            "nats per token); one of llama.cpp's kernels computes something wrong on this machine"
        )
    return lines


def _of_record(file: Path) -> list[str]:
    """What `export` has measured, where the file lies beside its record."""
    record = file.parent / "export.json"
    if not record.is_file():
        return []
    entries = [entry for entry in read_object(record, ModelError).values() if isinstance(entry, dict)]
    found = next((entry for entry in entries if entry.get("file") == file.name), None)
    if found is None or not isinstance(found.get("kl"), float) or not isinstance(found.get("top1"), float):
        return []
    if found.get("nbytes") != file.stat().st_size:
        return [f"{file.name}: export.json beside it is of another file: {found.get('nbytes')} bytes"]
    return [
        f"{file.name}: when it was exported, its KL to the model was {found['kl']:.2g} nats per token, and "
        f"{found['top1']:.1%} of its first choices were the model's"
    ]


def _of_bits(file: Path, header: Header) -> list[str]:
    if not header.quantised:
        return []
    return [
        f"{file.name}: its weights are {header.quantised}, and on a CPU llama.cpp rounds what they are multiplied by "
        "to 8 bits. Where two next tokens are almost as likely as each other, it may choose another than the folder, "
        "also at temperature 0"
    ]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
