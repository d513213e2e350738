"""A folder held against the GGUF file that it was made from, in a real llama.cpp.

The folder is written as a file again, in float32, by export, which is held against transformers by its own means. Both
files then have to give the same logits. Of a file in F32, F16 or BF16 they are the same numbers, and rounding accounts
for what is left. Of a quantised one llama.cpp also rounds what its weights are multiplied by to 8 bits, and the folder's
numbers are rounded to 16 bits: that is judged by KL.
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
from prunus.llamacpp.header import largest_type
from prunus.llamacpp.reading import read_gguf
from prunus.llamacpp.running import Running
from prunus.models.folder import ModelFolder
from prunus.models.load import load_tokenizer
from prunus.unpack.tokenizer import Read

LENGTH = 256
"""Tokens of text that both files read, at most."""

MAX_KL = 0.02
"""KL in nats per token that 8-bit activations and 16-bit weights may come to beside a quantised file. Q4_1, Q4_K_M and
Q8_0 files of 135M to 630M parameters have up to TODO."""

_EXACT = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


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
    reference = Reference(torch.nn.Identity(), tokenizer, [], is_text=False, limit=folder.context)  # type: ignore[arg-type]
    ids = _ids(tokenizer, min(LENGTH, folder.context))
    with Running(path, len(ids)) as original:
        texts = check_tokens(original, reference, path, read.pre in APPROXIMATE)
        other_ends = [end for end in original.ends() if end not in read.special.ends]
        wanted = original.logits(ids)
    if other_ends:
        console.warn(
            f"llama.cpp also ends an answer at {', '.join(repr(read.tokens[end]) for end in other_ends)}, which it knows "
            "by text though the file has it as a usual token; the folder goes on there"
        )
    check_model(folder.config, folder.shape, str(folder.path))
    with tempfile.TemporaryDirectory(dir=folder.path.parent, prefix=".proof-") as place:
        file = Path(place) / "again.gguf"
        with console.progress("write it again as F32", None, "bytes") as progress:
            write_gguf(folder, read_vocabulary(folder.path, folder.shape.vocab_size), "gguf-f32", file, progress.update)
        with Running(file, len(ids)) as again:
            found = Agreement()
            found.add(ids, wanted, again.logits(ids))
    _judge(path, folder, found)
    console.say(
        f"held against the file in llama.cpp: {texts} texts have the same tokens; on {len(ids)} tokens the logits differ "
        f"by {found.difference:.3g} (they spread by {found.spread:.3g}), KL {found.mean_kl:.3g} nats per token"
    )
    return {
        "texts_tokenised_alike": texts,
        "max_logit_difference": found.difference,
        "logit_spread": found.spread,
        "kl": found.mean_kl,
    }


def _ids(tokenizer: object, length: int) -> np.ndarray:
    """Tokens of the texts, one after the other, up to a length."""
    ids: list[int] = tokenizer("\n\n".join(PROBES), add_special_tokens=True)["input_ids"]  # type: ignore[operator]
    return np.array(ids[:length], dtype=np.int64)


def _judge(path: Path, folder: ModelFolder, found: Agreement) -> None:
    exact = _EXACT.get(largest_type(read_gguf(path)) or "") == folder.config["dtype"]
    if exact and found.is_rounding(TOLERANCE):
        return
    if found.mean_kl <= MAX_KL:
        return
    raise ExportError(
        f"{path}: in llama.cpp the folder's logits differ from the file's by {found.difference:.3g} (they spread by "
        f"{found.spread:.3g}), KL {found.mean_kl:.3g} nats per token, where {MAX_KL:g} is what rounding may come to. This "
        "is a fault of Prunus: please report it, with the file's name"
    )
