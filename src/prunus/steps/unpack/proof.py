"""A folder held against the GGUF file that it was made from, in a real llama.cpp.

The folder is written as a file again, in float32, by export. It has to give

- the logits of the file's own numbers in float32 under the file's own keys (`widened.py`), up to rounding: that shows
  any fault in a setting or in the place of a weight;
- the logits of transformers, as after every export: that shows a fault which both directions make alike;
- beside the file as it is, of which llama.cpp also rounds what weights are multiplied by, a small KL.
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
from prunus.models.load import load_model, load_tokenizer
from prunus.steps.unpack.tokenizer import Read
from prunus.steps.unpack.widened import write_widened

LENGTH = 256
"""Tokens of text after which logits are compared, at most."""

LONGEST_WINDOW = 1024
"""A sliding window of up to this many tokens is filled first, and some more: Gemma 3's are, Gemma 2's 4096 are not."""

MAX_KL = 0.02
"""KL in nats per token that rounding of activations to 8 bits, and of weights to 16, usually comes to. Of real files
Q4_1 of SmolLM2 135M has 0.0045, Q4_K_M of Gemma 3 270M 0.0020 (0.0084 at a text's start), and of Qwen2.5-Coder 0.5B
0.0016."""

_NEW_TOKENS = 16
_ROOM = 1.5  # of the float32 weights: what is to be free for transformers to hold them
_REPORT = "This is a fault of Prunus: please report it, with the file's name"


def prove_folder(path: Path, folder: ModelFolder, read: Read, console: Console) -> dict[str, float]:
    """Hold tokens of texts, ends of an answer and logits against those of the file, and of transformers.

    Args:
        path: The file.
        folder: The folder that was made from it.
        read: Its tokenizer.
        console: Shows what is done.

    Returns:
        How many texts have the same tokens, the largest difference of two logits and their spread, and KL.

    Raises:
        RecipeError: Export has no equal of the folder.
        ExportError: They are not the same.
    """
    check_model(folder.config, folder.shape, str(folder.path))
    tokenizer, marks = load_tokenizer(folder.path), read.pre in APPROXIMATE
    limit = checked_context(folder.config, folder.shape)
    reference = Reference(torch.nn.Identity(), tokenizer, [], False, limit, ends=read.special.ends)
    ids = _ids(tokenizer, _length(folder))
    with Running(path, len(ids)) as original:
        texts = check_tokens(original, reference, path, marks)
        other_ends = [end for end in original.ends() if end not in read.special.ends]
        wanted = original.logits(ids, min(LENGTH, len(ids)))
    if other_ends:
        console.warn(
            f"llama.cpp also ends an answer at {', '.join(repr(read.tokens[end]) for end in other_ends)}, which it "
            "knows by text though the file has it as a usual token; the folder goes on there"
        )
    with tempfile.TemporaryDirectory(dir=folder.path.parent, prefix=".proof-") as place:
        wide = _widened(path, folder, Path(place), ids, console)
        file = _again(folder, Path(place), console)
        with Running(file, len(ids)) as running:
            again = running.logits(ids, min(LENGTH, len(ids)))
        exact = None if wide is None else _agreement(ids, wide, again)
        beside = _agreement(ids, wanted, again)
        _judge(path, beside, exact, console)
        _in_transformers(file, folder, replace(reference, windows=[ids[: min(LENGTH, limit)]]), marks, console)
    apart = "" if exact is None else f"on {len(again)} tokens the logits differ by {exact.difference:.2g} in float32; "
    console.say(
        f"held against the file in llama.cpp: {texts} texts have the same tokens; {apart}KL beside the file as it is: "
        f"{beside.mean_kl:.2g} nats per token"
    )
    found = {"texts_tokenised_alike": float(texts), "kl": beside.mean_kl, "logit_spread": beside.spread}
    return found | ({} if exact is None else {"max_logit_difference": exact.difference})


def _length(folder: ModelFolder) -> int:
    """How many tokens are read: enough to leave a window behind, where it is not a long one."""
    window = folder.config.get("sliding_window") or 0
    wanted = window + LENGTH // 4 if window <= LONGEST_WINDOW else 0
    return min(max(LENGTH, wanted), file_context(folder.config, folder.shape))


def _ids(tokenizer: Any, length: int) -> np.ndarray:
    """Tokens of the texts, one after the other, and again if need be."""
    ids = tokenizer("\n\n".join(PROBES), add_special_tokens=True, verbose=False)["input_ids"]
    return np.array(list(islice(cycle(ids), length)), dtype=np.int64)


def _agreement(ids: np.ndarray, reference: np.ndarray, other: np.ndarray) -> Agreement:
    found = Agreement()
    found.add(ids[-len(reference) :], reference, other)
    return found


def _widened(path: Path, folder: ModelFolder, place: Path, ids: np.ndarray, console: Console) -> np.ndarray | None:
    """The logits of the file's numbers in float32; None for a split one."""
    source, file = read_gguf(path), place / "wide.gguf"
    if len(source.files) > 1:
        return None
    with console.progress("write the file's numbers as F32", None, "bytes") as progress:
        write_widened(source, file, folder.config["dtype"], folder.family.gain_offset, progress.update)
    with Running(file, len(ids)) as running:
        logits = running.logits(ids, min(LENGTH, len(ids)))
    file.unlink()
    return logits


def _again(folder: ModelFolder, place: Path, console: Console) -> Path:
    """The folder as a file in float32."""
    vocabulary, file = read_vocabulary(folder.path, folder.shape.vocab_size), place / "again.gguf"
    with console.progress("write the folder as F32", None, "bytes") as progress:
        write_gguf(folder, vocabulary, "gguf-f32", file, progress.update)
    return file


def _judge(path: Path, beside: Agreement, exact: Agreement | None, console: Console) -> None:
    if exact is not None and not exact.is_rounding(TOLERANCE):
        raise ExportError(
            f"{path}: in float32, the folder's logits in llama.cpp differ from the file's by {exact.difference:.3g}, "
            f"and rounding accounts for {TOLERANCE * exact.spread:.2g}. {_REPORT}"
        )
    if beside.mean_kl <= MAX_KL:
        return
    told = (
        f"{path}: KL of the folder beside the file is {beside.mean_kl:.3g} nats per token in llama.cpp, and rounding "
        f"of what weights are multiplied by usually comes to less than {MAX_KL:g}"
    )
    if exact is None:
        raise ExportError(f"{told}. {_REPORT}")
    console.warn(f"{told}; in float32 both are the same")


def _in_transformers(file: Path, folder: ModelFolder, reference: Reference, marks: bool, console: Console) -> None:
    """Hold the float32 file against transformers, where there is memory for it."""
    needed, free = 4 * folder.shape.parameters * _ROOM, psutil.virtual_memory().available
    if needed > free:
        console.warn(
            f"transformers was not held against the file: it takes about {human_bytes(needed)} of memory in float32, "
            f"and {human_bytes(free)} are free"
        )
        return
    model = load_model(folder.path, torch.device("cpu"), torch.float32)
    prove(file, replace(reference, model=model), _NEW_TOKENS, rounds_activation(folder.family), marks)
