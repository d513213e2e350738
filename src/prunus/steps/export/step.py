"""The `export` step: a model as files that run on a device, each compared with the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.console import Console, human_bytes
from prunus.data.blocks import calibration_set
from prunus.data.tokens import Tokens
from prunus.data.windows import first_windows
from prunus.errors import ArtifactError, DataError
from prunus.gguf.check import LAST, Reference
from prunus.gguf.metadata import checked_context, file_context, stretched_context
from prunus.graph.records import read_record
from prunus.models.folder import ModelFolder, copy_along
from prunus.models.load import device_of, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.export.config import IMATRIX_LENGTH, ExportConfig
from prunus.steps.export.job import Job
from prunus.steps.export.targets import FORMATS, TARGETS, by_target, check_formats

RESULTS = "export.json"


@dataclass(frozen=True)
class Inputs:
    """The inputs of the step.

    Attributes:
        model: The model's folder.
        tokens: Held-out text as tokens; without it, files are compared on random tokens.
        calibration: Text as tokens, to measure an importance matrix on; not the held-out text.
        imatrix: A file of an importance matrix.
        trained: The model after its training for one of the formats (`distill.quantise`), from which that file is made.
    """

    model: Path
    tokens: Path | None = None
    calibration: Path | None = None
    imatrix: Path | None = None
    trained: Path | None = None


def run(config: ExportConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write every format to `out`, and the comparison of each file with the model to `export.json`.

    Returns:
        The bytes of each file, and its KL and perplexity.

    Raises:
        RecipeError: A target does not support the family or tokenizer, or a package is not installed.
        ExportError: A file does not compute what the model computes.
        ArtifactError: `trained` was not trained for a format.
    """
    folder = ModelFolder(inputs.model)
    folder.check()
    check_formats(config.formats, "export.formats")
    targets = by_target(config.formats)
    for kind in targets:
        TARGETS[kind].check(folder.config, folder.shape, f"export.formats: {kind}")
    reference = _reference(config, inputs, folder, runtime)
    calibration = _calibration(config, inputs, reference.limit)
    job = Job(config, folder, reference, out, calibration, inputs.imatrix, _trained(inputs))
    copy_along(inputs.model, out)
    results: dict[str, Any] = {}
    for kind, names in targets.items():
        results |= TARGETS[kind].export(names, job, console)
    for name in config.formats:
        if part := FORMATS[name].parts.get(name):
            results[name] |= asdict(part)
    (out / RESULTS).write_text(json.dumps(results, indent=2) + "\n")
    for name in config.formats:
        console.say(_line(name, results[name]))
    return {
        f"{name}.{figure}": float(results[name][figure])
        for name in config.formats
        for figure in ("nbytes", "kl", "perplexity")
        if figure in results[name]
    }


def _calibration(config: ExportConfig, inputs: Inputs, limit: int) -> np.ndarray | None:
    """The sequences to measure an importance matrix on, [B, S]; None if there is no text for one."""
    if inputs.calibration is None:
        return None
    length = min(IMATRIX_LENGTH, limit)
    return calibration_set(Tokens.open(inputs.calibration), -(-config.imatrix_tokens // length), length, config.seed)


def _trained(inputs: Inputs) -> dict[str, ModelFolder]:
    """The folder that the file of a format is made from, for the format that the model was trained for."""
    if inputs.trained is None:
        return {}
    record, trained = read_record(inputs.trained), ModelFolder(inputs.trained)
    trained.check()
    if record is None or not record["config"].get("quantise"):
        raise ArtifactError(f"{inputs.trained}: was not trained for a quantised file; expected a result of `qat`")
    return {record["config"]["quantise"]: trained}


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
    """Random tokens, slightly more than the original training context of a longrope model; None for others."""
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
        parts.append(f"KL to the model {result['kl']:.3g} nats per token, same top-1 prediction {result['top1']:.2%}")
    if "perplexity" in result:
        parts.append(f"perplexity {result['perplexity']:.4g} (the model's {result['perplexity_of_model']:.4g})")
    return ", ".join(parts)
