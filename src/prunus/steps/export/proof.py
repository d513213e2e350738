"""GGUF files, each held against its model: the layout is proved in float32 before anything is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from prunus.console import Console, human_bytes
from prunus.gguf.check import judge, prove
from prunus.gguf.metadata import check_model, rounds_activation, stretched_context, windowed_context
from prunus.gguf.pretokenizers import APPROXIMATE
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import format_label, write_gguf
from prunus.steps.export.job import Job

PROOF = "gguf-f32"


def export(formats: Sequence[str], job: Job, console: Console) -> dict[str, Any]:
    """Prove the layout in float32, in a file that goes again unless it was asked for; then write the others.

    Returns:
        The record of each format, and of the proof where its file is gone.

    Raises:
        RecipeError: llama.cpp has no such model or tokenizer.
        ExportError: A file does not say what the model says.
    """
    folder = job.folder
    check_model(folder.config, folder.shape, f"export.formats: {formats[0]}")
    window = windowed_context(folder.config, folder.family)
    if window is not None and window < folder.context:
        console.warn(
            f"export: layers attend in a window of {window} tokens, which llama.cpp does not know of in "
            f"{folder.shape.family.name}; the file's context is {window} tokens in place of {folder.context}"
        )
    trained = stretched_context(folder.config, folder.shape)
    if trained is not None:
        console.warn(
            f"export: longrope; llama.cpp takes long_factor for every text once it is started with a context of more "
            f"than {trained} tokens, where transformers takes short_factor for texts up to that. For those, start it "
            f"with `-c {trained}`"
        )
    vocabulary = read_vocabulary(folder.path, folder.shape.vocab_size)
    if vocabulary.doubled:
        console.warn("export: a text that begins with a space has one more of them in llama.cpp than in transformers")
    reference = replace(job.reference, ends=vocabulary.special.ends)
    approximate = vocabulary.pre in APPROXIMATE
    if approximate:
        console.warn(
            f"export: llama.cpp's {vocabulary.pre} cuts words with combining marks (Hindi, Thai) otherwise than "
            "transformers; other texts are checked to be cut alike"
        )
    results: dict[str, Any] = {}
    for name in [PROOF, *(name for name in formats if name != PROOF)]:
        file = job.out / f"model-{format_label(name)}.gguf"
        with console.progress(f"write {file.name}", None, "bytes") as progress:
            written = write_gguf(folder, vocabulary, name, file, progress.update)
        if name == PROOF:
            figures = prove(file, reference, job.config.new_tokens, rounds_activation(folder.family), approximate)
            if figures["other_ends"]:
                console.warn(
                    f"export: llama.cpp also ends an answer at {', '.join(map(repr, figures['other_ends']))}, which it "
                    "knows by their text; transformers goes on there"
                )
        else:
            figures = judge(file, name, reference)
        if name in formats:
            results[name] = {"file": file.name, **asdict(written), **figures}
            _tell_fallbacks(name, results[name], console)
        else:
            file.unlink()
            results["proof"] = figures
    return results


def _tell_fallbacks(name: str, result: dict[str, Any], console: Console) -> None:
    fallen = result["fallen_back"]
    if fallen:
        share = result["extra_bytes"] / result["nbytes"]
        console.warn(
            f"{format_label(name)}: the rows of {len(fallen)} of {result['tensors']} tensors fit no block of it, and "
            f"they are kept in more bits: {human_bytes(result['extra_bytes'])}, {share:.0%} of the file. Widths in "
            "multiples of 256 (of 32 for Q8_0) avoid that"
        )
