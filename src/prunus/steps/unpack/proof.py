"""Compares a folder with the GGUF file that it was made from, in llama.cpp.

The folder is exported again as a float32 file. In llama.cpp, this file must give

- the logits of the original's values in float32 with the original's keys (`widened.py`), up to rounding: this finds
  every wrong setting or misplaced weight;
- the logits of transformers, as after every export: this finds errors that both directions have in common;
- a small KL to the unchanged original, for which llama.cpp also rounds activations.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from prunus.console import Console, human_bytes
from prunus.errors import ExportError
from prunus.gguf.check import PROBES, TOLERANCE, Reference, check_tokens, prove
from prunus.gguf.compare import Agreement
from prunus.gguf.metadata import check_model, checked_context, file_context, rounds_activation
from prunus.gguf.pretokenizers import APPROXIMATE
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.reading import read_gguf
from prunus.llamacpp.running import Running
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.pretrained import load_tokenizer
from prunus.steps.unpack.tokenizer import Read
from prunus.steps.unpack.widened import write_widened

LENGTH = 256
"""Maximum number of tokens at which logits are compared."""

LONGEST_WINDOW = 1024
"""Up to this length, the compared text is longer than the sliding window: Gemma 3's is, Gemma 2's of 4096 is not."""

MAX_KL = 0.02
"""Usual limit of the KL, in nats per token, from rounding activations to 8 bits and weights to 16. Among real files,
Q4_1 of SmolLM2 135M has 0.0045, Q4_K_M of Gemma 3 270M 0.0020 (0.0084 at a text's start), and of Qwen2.5-Coder 0.5B
0.0016."""

_NEW_TOKENS = 16
_ROOM = 1.5  # free memory that transformers needs, as a multiple of the float32 weights
_REPORT = "This is a bug in Prunus; please report it with the file's name"


def prove_folder(path: Path, folder: ModelFolder, read: Read, console: Console) -> dict[str, float]:
    """Compare tokens of texts, end tokens and logits with those of the file, and of transformers.

    Args:
        path: The file.
        folder: The folder that was made from it.
        read: Its tokenizer.
        console: Where progress is printed.

    Returns:
        The number of texts with the same tokens, the largest difference of two logits and their spread, and KL.

    Raises:
        RecipeError: The folder cannot be exported.
        ExportError: They differ.
    """
    check_model(folder.config, folder.shape, str(folder.path))
    tokenizer, marks = load_tokenizer(folder.path), read.pre in APPROXIMATE
    limit = checked_context(folder.config, folder.shape)
    reference = Reference(torch.nn.Identity(), tokenizer, [], False, limit, ends=read.special.ends)
    ids = _ids(tokenizer, _length(folder))
    with Running(path, len(ids)) as original:
        texts = check_tokens(original, reference, path, marks)
        other_ends = [end for end in original.ends() if end not in read.special.ends]
        expected = original.logits(ids, min(LENGTH, len(ids)))
    if other_ends:
        console.warn(
            f"llama.cpp also ends an answer at {', '.join(repr(read.tokens[end]) for end in other_ends)}, which it "
            "recognises by text though it is a normal token in the file; with the folder, transformers continues"
        )
    with tempfile.TemporaryDirectory(dir=folder.path.parent, prefix=".proof-") as place:
        wide = _widened(path, folder, Path(place), ids, console)
        file = _exported(folder, Path(place), console)
        with Running(file, len(ids)) as running:
            actual = running.logits(ids, min(LENGTH, len(ids)))
        exact = None if wide is None else _agreement(ids, wide, actual)
        unchanged = _agreement(ids, expected, actual)
        _check(path, unchanged, exact, console)
        _in_transformers(file, folder, replace(reference, windows=[ids[: min(LENGTH, limit)]]), marks, console)
    difference = "" if exact is None else f"in float32, logits differ by {exact.difference:.2g}; "
    console.say(
        f"compared with the file in llama.cpp: {texts} texts have the same tokens; on {len(actual)} tokens, "
        f"{difference}KL to the unchanged file: {unchanged.mean_kl:.2g} nats per token"
    )
    figures = {"texts_tokenised_alike": float(texts), "kl": unchanged.mean_kl, "logit_spread": unchanged.spread}
    return figures | ({} if exact is None else {"max_logit_difference": exact.difference})


def _length(folder: ModelFolder) -> int:
    """Number of tokens to read: more than a sliding window, unless it is too long."""
    window = folder.config.get("sliding_window") or 0
    length = window + LENGTH // 4 if window <= LONGEST_WINDOW else 0
    return min(max(LENGTH, length), file_context(folder.config, folder.shape))


def _ids(tokenizer: Any, length: int) -> np.ndarray:
    """Tokens of the concatenated texts, repeated if necessary."""
    ids = tokenizer("\n\n".join(PROBES), add_special_tokens=True, verbose=False)["input_ids"]
    return np.array(list(islice(cycle(ids), length)), dtype=np.int64)


def _agreement(ids: np.ndarray, reference: np.ndarray, other: np.ndarray) -> Agreement:
    found = Agreement()
    found.add(ids[-len(reference) :], reference, other)
    return found


def _widened(path: Path, folder: ModelFolder, place: Path, ids: np.ndarray, console: Console) -> np.ndarray | None:
    """The logits of the file's values in float32; None for a split file."""
    source, file = read_gguf(path), place / "wide.gguf"
    if len(source.files) > 1:
        return None
    with console.progress("write the file's values as F32", None, "bytes") as progress:
        write_widened(source, file, folder.config["dtype"], folder.family.gain_offset, progress.update)
    with Running(file, len(ids)) as running:
        logits = running.logits(ids, min(LENGTH, len(ids)))
    file.unlink()
    return logits


def _exported(folder: ModelFolder, place: Path, console: Console) -> Path:
    """The folder, exported to a float32 file."""
    vocabulary, file = read_vocabulary(folder.path, folder.shape.vocab_size), place / "again.gguf"
    with console.progress("write the folder as F32", None, "bytes") as progress:
        write_gguf(folder, vocabulary, "gguf-f32", file, progress.update)
    return file


def _check(path: Path, unchanged: Agreement, exact: Agreement | None, console: Console) -> None:
    if exact is not None and not exact.is_rounding(TOLERANCE):
        raise ExportError(
            f"{path}: in float32, the folder's logits in llama.cpp differ from the file's by {exact.difference:.3g}, "
            f"but rounding explains only {TOLERANCE * exact.spread:.2g}. {_REPORT}"
        )
    if unchanged.mean_kl <= MAX_KL:
        return
    message = (
        f"{path}: KL of the folder to the file is {unchanged.mean_kl:.3g} nats per token in llama.cpp; rounding of "
        f"activations usually gives less than {MAX_KL:g}"
    )
    if exact is None:
        raise ExportError(f"{message}. {_REPORT}")
    console.warn(f"{message}; in float32 both agree")


def _in_transformers(file: Path, folder: ModelFolder, reference: Reference, marks: bool, console: Console) -> None:
    """Compare the float32 file with transformers, if there is enough memory."""
    needed, free = 4 * folder.shape.parameters * _ROOM, psutil.virtual_memory().available
    if needed > free:
        console.warn(
            f"transformers was not compared with the file: it needs about {human_bytes(needed)} of memory in float32, "
            f"but {human_bytes(free)} are free"
        )
        return
    model = load_model(folder.path, torch.device("cpu"), torch.float32)
    prove(file, replace(reference, model=model), _NEW_TOKENS, rounds_activation(folder.family), marks)
