"""The `export` step: a model as files that run on a device, each held against it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.console import Console, human_bytes
from prunus.data.tokens import Tokens
from prunus.data.windows import first_windows
from prunus.errors import DataError
from prunus.models.folder import ModelFolder, copy_along
from prunus.models.load import device_of, load_model, load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.export.check import LAST, Reference, judge, prove
from prunus.steps.export.config import ExportConfig
from prunus.steps.export.gguf import format_label, write_gguf
from prunus.steps.export.installed import check_formats, check_onnx
from prunus.steps.export.metadata import (
    check_model,
    checked_context,
    file_context,
    rounds_activation,
    stretched_context,
    windowed_context,
)
from prunus.steps.export.onnx import export_onnx
from prunus.steps.export.pretokenizers import APPROXIMATE
from prunus.steps.export.vocabulary import read_vocabulary

PROOF = "gguf-f32"
RESULTS = "export.json"


@dataclass(frozen=True)
class Inputs:
    """The model's folder, and held-out text as its tokens; without it, files are judged on made-up tokens."""

    model: Path
    tokens: Path | None = None


def run(config: ExportConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write every format to `out`, and what each says beside the model to `export.json`.

    Returns:
        The bytes of each file, and for quantised ones KL and perplexity.

    Raises:
        RecipeError: A target has no such family or tokenizer, or what it needs is not installed.
        ExportError: A file does not say what the model says.
    """
    folder = ModelFolder(inputs.model)
    folder.check()
    reference = _reference(config, inputs, folder, runtime)
    copy_along(inputs.model, out)
    results: dict[str, Any] = {}
    check_formats(config.formats, "export.formats")
    if any(name.startswith("onnx-") for name in config.formats):
        check_onnx(folder.shape, "export.formats: onnx")
    ggufs: list[str] = [name for name in config.formats if name.startswith("gguf-")]
    if ggufs:
        results |= _ggufs(ggufs, config, folder, reference, out, console)
    for name in config.formats:
        if name.startswith("onnx-"):
            results[name] = export_onnx(name, inputs.model, out, reference, console)
        if name.startswith("torchao-"):
            from prunus.steps.export.torchao import export_torchao

            results[name] = export_torchao(inputs.model, out, reference, console)
    (out / RESULTS).write_text(json.dumps(results, indent=2) + "\n")
    for name in config.formats:
        console.say(_line(name, results[name]))
    return {
        f"{name}.{figure}": float(results[name][figure])
        for name in config.formats
        for figure in ("nbytes", "kl", "perplexity")
        if figure in results[name]
    }


def _ggufs(
    formats: list[str], config: ExportConfig, folder: ModelFolder, reference: Reference, out: Path, console: Console
) -> dict[str, Any]:
    """Prove the layout in float32, in a file that goes again unless it was asked for; then write the others."""
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
    reference = replace(reference, ends=vocabulary.special.ends)
    approximate = vocabulary.pre in APPROXIMATE
    if approximate:
        console.warn(
            f"export: llama.cpp's {vocabulary.pre} cuts words with combining marks (Hindi, Thai) otherwise than "
            "transformers; other texts are checked to be cut alike"
        )
    results: dict[str, Any] = {}
    for name in [PROOF, *(name for name in formats if name != PROOF)]:
        file = out / f"model-{format_label(name)}.gguf"
        with console.progress(f"write {file.name}", None, "bytes") as progress:
            written = write_gguf(folder, vocabulary, name, file, progress.update)
        if name == PROOF:
            figures = prove(file, reference, config.new_tokens, rounds_activation(folder.family), approximate)
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


def _reference(config: ExportConfig, inputs: Inputs, folder: ModelFolder, runtime: Runtime) -> Reference:
    to_gguf = any(name.startswith("gguf-") for name in config.formats)
    limit = checked_context(folder.config, folder.shape) if to_gguf else folder.context
    length = min(config.check_length, limit)
    if inputs.tokens is not None:
        windows = _windows(Tokens.open(inputs.tokens), length, config.check_tokens)
    else:
        draw = np.random.default_rng(config.seed)
        count = max(1, config.check_tokens // length)
        windows = list(draw.integers(0, folder.shape.vocab_size, (count, length)))
    model = load_model(inputs.model, device_of(runtime), torch.float32)
    beyond = text_beyond(folder, config.seed) if to_gguf else None
    return Reference(model, load_tokenizer(inputs.model), windows, inputs.tokens is not None, limit, beyond)


def text_beyond(folder: ModelFolder, seed: int) -> np.ndarray | None:
    """Made-up tokens, some more than the context that a longrope model was trained on first."""
    trained = stretched_context(folder.config, folder.shape)
    if trained is None:
        return None
    length = min(trained + LAST // 2, file_context(folder.config, folder.shape))
    return np.random.default_rng(seed).integers(0, folder.shape.vocab_size, length)


def _windows(tokens: Tokens, length: int, limit: int) -> list[np.ndarray]:
    chosen = [window.ids.astype(np.int64) for window in first_windows(tokens, length, limit)]
    if not chosen:
        raise DataError("export: the held-out text has no document of two tokens")
    return chosen


def _line(name: str, result: dict[str, Any]) -> str:
    parts = [f"{name}: {human_bytes(result['nbytes'])}"]
    if "kl" in result:
        parts.append(f"KL to the model {result['kl']:.3g} nats per token, first choices alike {result['top1']:.2%}")
    if "perplexity" in result:
        parts.append(f"perplexity {result['perplexity']:.4g} (the model's {result['perplexity_of_model']:.4g})")
    return ", ".join(parts)
