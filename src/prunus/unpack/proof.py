"""A folder held against the GGUF file that it was made from, in a real llama.cpp.

The folder is written as a file again, in float32, by export, which is held against transformers by its own means. It
has to give the logits of the file's own numbers in float32 under the file's own keys (`widened.py`) up to rounding:
that shows any fault in a setting or in the place of a weight. Beside the file as it is, of which llama.cpp also rounds
what weights are multiplied by, KL has to be small.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from prunus.console import Console
from prunus.errors import ExportError
from prunus.export.check import PROBES, TOLERANCE, Reference, check_tokens
from prunus.export.compare import Agreement
from prunus.export.gguf import write_gguf
from prunus.export.metadata import check_model
from prunus.export.pretokenizers import APPROXIMATE
from prunus.export.vocabulary import read_vocabulary
from prunus.llamacpp.reading import read_gguf
from prunus.llamacpp.running import Running
from prunus.models.folder import ModelFolder
from prunus.models.load import load_tokenizer
from prunus.unpack.tokenizer import Read
from prunus.unpack.widened import write_widened

LENGTH = 256
"""Tokens of text that both files read, at most."""

MAX_KL = 0.02
"""KL in nats per token that rounding of activations to 8 bits, and of weights to 16, may come to. Of real files Q4_1 of
SmolLM2 135M has 0.0045, Q4_K_M of Gemma 3 270M 0.0084, and of Qwen2.5-Coder 0.5B 0.0016 (256 tokens of `PROBES`)."""


def prove_folder(path: Path, folder: ModelFolder, read: Read, console: Console) -> dict[str, float]:
    """Hold tokens of texts, ends of an answer and logits against those of the file.

    Args:
        path: The file.
        folder: The folder that was made from it.
        read: Its tokenizer.
        console: Shows what is done.

    Returns:
        How many texts have the same tokens, the largest difference of two logits and their spread, and KL.

    Raises:
        ExportError: They are not the same.
    """
    tokenizer = load_tokenizer(folder.path)
    reference = Reference(torch.nn.Identity(), tokenizer, [], is_text=False, limit=folder.context)
    ids = _ids(tokenizer, min(LENGTH, folder.context))
    with Running(path, len(ids)) as original:
        texts = check_tokens(original, reference, path, read.pre in APPROXIMATE)
        other_ends = [end for end in original.ends() if end not in read.special.ends]
        wanted = original.logits(ids)
    if other_ends:
        console.warn(
            f"llama.cpp also ends an answer at {', '.join(repr(read.tokens[end]) for end in other_ends)}, which it "
            "knows by text though the file has it as a usual token; the folder goes on there"
        )
    check_model(folder.config, folder.shape, str(folder.path))
    with tempfile.TemporaryDirectory(dir=folder.path.parent, prefix=".proof-") as place:
        wide = _widened(path, folder, Path(place), ids, console)
        again = _again(folder, Path(place), ids, console)
    beside, exact = Agreement(), Agreement()
    beside.add(ids, wanted, again)
    if wide is not None:
        exact.add(ids, wide, again)
    _judge(path, beside, exact if wide is not None else None)
    console.say(
        f"held against the file in llama.cpp: {texts} texts have the same tokens; on {len(ids)} tokens the logits "
        f"differ by {exact.difference:.2g} in float32 (they spread by {beside.spread:.3g}); KL beside the file as it "
        f"is: {beside.mean_kl:.2g} nats per token"
    )
    found = {"texts_tokenised_alike": float(texts), "kl": beside.mean_kl, "logit_spread": beside.spread}
    return found | ({"max_logit_difference": exact.difference} if wide is not None else {})


def _widened(path: Path, folder: ModelFolder, place: Path, ids: np.ndarray, console: Console) -> np.ndarray | None:
    """The logits of the file's numbers in float32; None for a split one."""
    source, file = read_gguf(path), place / "wide.gguf"
    if len(source.files) > 1:
        return None
    with console.progress("write the file's numbers as F32", None, "bytes") as progress:
        write_widened(source, file, folder.config["dtype"], folder.family.gain_offset, progress.update)
    with Running(file, len(ids)) as running:
        logits = running.logits(ids)
    file.unlink()
    return logits


def _again(folder: ModelFolder, place: Path, ids: np.ndarray, console: Console) -> np.ndarray:
    """The logits of the folder, written as a file again."""
    vocabulary, file = read_vocabulary(folder.path, folder.shape.vocab_size), place / "again.gguf"
    with console.progress("write the folder as F32", None, "bytes") as progress:
        write_gguf(folder, vocabulary, "gguf-f32", file, progress.update)
    with Running(file, len(ids)) as running:
        return running.logits(ids)


def _ids(tokenizer: object, length: int) -> np.ndarray:
    """Tokens of the texts, one after the other, up to a length."""
    ids: list[int] = tokenizer("\n\n".join(PROBES), add_special_tokens=True)["input_ids"]  # type: ignore[operator]
    return np.array(ids[:length], dtype=np.int64)


def _judge(path: Path, beside: Agreement, exact: Agreement | None) -> None:
    report = "This is a fault of Prunus: please report it, with the file's name"
    if exact is not None and not exact.is_rounding(TOLERANCE):
        raise ExportError(
            f"{path}: in float32, the folder's logits in llama.cpp differ from the file's by {exact.difference:.3g}, "
            f"and rounding accounts for {TOLERANCE * exact.spread:.2g}. {report}"
        )
    if not beside.mean_kl <= MAX_KL:
        raise ExportError(
            f"{path}: KL of the folder beside the file is {beside.mean_kl:.3g} nats per token in llama.cpp, and "
            f"rounding of what weights are multiplied by may come to {MAX_KL:g}. {report}"
        )
