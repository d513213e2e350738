"""GGUF files, each compared with its model: the float32 file is proved first, before any quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from prunus.console import Console, human_bytes
from prunus.gguf.check import measure, prove
from prunus.gguf.imatrix import check_imatrix, matrix_of, read_imatrix, write_imatrix
from prunus.gguf.metadata import check_model, rounds_activation, stretched_context, windowed_context
from prunus.gguf.mixtures import IGNORE_MATRIX
from prunus.gguf.pretokenizers import APPROXIMATE
from prunus.gguf.tensors import plan_tensors
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import Matrix, format_label, write_gguf
from prunus.models.folder import ModelFolder
from prunus.steps.export.config import PROOF_TOKENS
from prunus.steps.export.importance import measure_importance
from prunus.steps.export.job import Job

PROOF = "gguf-f32"
IMATRIX = "imatrix.gguf"


def export(formats: Sequence[str], job: Job, console: Console) -> dict[str, Any]:
    """Prove a float32 file, which is removed unless it is one of `formats`; then write and measure the others.

    Returns:
        The record of each format; and of the `proof`, if its file was removed.

    Raises:
        RecipeError: llama.cpp does not support the model or its tokenizer.
        ExportError: A file does not compute what the model computes.
    """
    folder = job.folder
    check_model(folder.config, folder.shape, f"export.formats: {formats[0]}")
    _warn_of_positions(folder, console)
    vocabulary = read_vocabulary(folder.path, folder.shape.vocab_size)
    if vocabulary.doubled:
        console.warn("export: llama.cpp adds a space to texts that begin with one; transformers does not")
    reference = replace(job.reference, ends=vocabulary.special.ends)
    approximate = vocabulary.pre in APPROXIMATE
    if approximate:
        console.warn(
            f"export: llama.cpp's {vocabulary.pre} tokenises words with combining marks (Hindi, Thai) differently "
            "from transformers; on other texts the tokens are verified to be equal"
        )
    matrix = _matrix(job, console)
    names = [PROOF, *(name for name in formats if name != PROOF)]
    files = {name: job.out / f"model-{format_label(name)}.gguf" for name in names}
    results: dict[str, Any] = {}
    for name, file in files.items():
        with console.progress(f"write {file.name}", None, "bytes") as progress:
            written = write_gguf(job.trained.get(name, folder), vocabulary, name, file, progress.update, matrix)
        if name == PROOF:
            rounds = rounds_activation(folder.family)
            proof = prove(file, reference.start(PROOF_TOKENS), job.config.new_tokens, rounds, approximate)
            if proof["other_ends"]:
                console.warn(
                    f"export: llama.cpp also ends an answer at {', '.join(map(repr, proof['other_ends']))}, which it "
                    "recognises by their text; transformers continues"
                )
        results[name] = {"file": file.name, **asdict(written)}
        if name in job.trained:
            results[name]["trained"] = True
        if matrix is not None and name not in IGNORE_MATRIX:
            results[name]["imatrix"] = True
        if name in formats:
            _warn_fallbacks(name, results[name], console)
    if PROOF not in formats:
        files.pop(PROOF).unlink()
    with console.progress("compare the files with the model", len(reference.windows), "windows") as progress:
        figures = measure(files, reference, progress.update)
    if PROOF in formats:
        results[PROOF] |= proof
    found = {name: results[name] | figures[name] for name in files}
    return found if PROOF in formats else {**found, "proof": proof}


def _matrix(job: Job, console: Console) -> Matrix | None:
    """The importance matrix, read or measured; a measured one is written next to the files."""
    if job.imatrix is not None:
        sums = read_imatrix(job.imatrix)
        check_imatrix(sums, plan_tensors(job.folder), f"export.imatrix_file: {job.imatrix}")
    elif job.calibration is not None:
        count, length = job.calibration.shape
        with console.progress("measure the importance matrix", count, "sequences") as progress:
            sums = measure_importance(job.reference.model, job.folder, job.calibration, progress.update)
        write_imatrix(sums, count, length, job.out / IMATRIX)
    else:
        return None
    idle = sum(int((one.counts == 0).sum()) for one in sums.values())
    if idle:
        console.warn(
            f"export: no calibration token was routed to the experts of {idle} matrices; their columns count equally. "
            "More imatrix_tokens may reach them"
        )
    return matrix_of(sums)


def _warn_of_positions(folder: ModelFolder, console: Console) -> None:
    """Warn of windows and of rotary factors that llama.cpp treats in another way."""
    window = windowed_context(folder.config, folder.family)
    if window is not None and window < folder.context:
        console.warn(
            f"export: layers have a sliding window of {window} tokens, which llama.cpp does not support in "
            f"{folder.shape.family.name}; the file's context is {window} tokens instead of {folder.context}"
        )
    trained = stretched_context(folder.config, folder.shape)
    if trained is not None:
        console.warn(
            f"export: longrope; if started with a context of more than {trained} tokens, llama.cpp uses long_factor "
            f"for every text, but transformers uses short_factor for shorter texts. For those, start it with "
            f"`-c {trained}`"
        )


def _warn_fallbacks(name: str, result: dict[str, Any], console: Console) -> None:
    fallen = result["fallen_back"]
    if fallen:
        share = result["extra_bytes"] / result["nbytes"]
        console.warn(
            f"{format_label(name)}: rows of {len(fallen)} of {result['tensors']} tensors are no multiples of its "
            f"block, so these get more bits: {human_bytes(result['extra_bytes'])}, {share:.0%} of the file. Widths in "
            "multiples of 256 (of 32 for Q8_0) avoid that"
        )
