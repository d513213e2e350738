"""ONNX for onnxruntime-genai, written by its model builder, and compared with the model in onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunus.console import Console
from prunus.errors import ExportError
from prunus.gguf.check import Reference
from prunus.gguf.compare import Agreement
from prunus.steps.export.job import Job

PRECISIONS = {"onnx-fp32": ("fp32", ()), "onnx-int4": ("int4", ("int4_algo_config=k_quant_mixed",))}
"""The builder's precision and options of each format; of its 4-bit kinds, the mixed one loses least."""

EXACT = 1e-4
"""For a float32 file: the usual limit of the difference between two logits, in units of their standard deviation."""


def export(formats: Sequence[str], job: Job, console: Console) -> dict[str, Any]:
    """Write each format into its own folder, and measure it. Returns the record of each.

    Raises:
        ExportError: The builder fails, or a float32 file does not compute what the model computes.
    """
    return {name: _export(name, job.folder.path, job.out, job.reference, console) for name in formats}


def _export(name: str, folder: Path, out: Path, reference: Reference, console: Console) -> dict[str, Any]:
    """One format.

    Returns:
        The file's folder, its size, and the same figures as for a GGUF file.

    Raises:
        ExportError: The builder fails, or a float32 file does not compute what the model computes.
    """
    target = out / name
    target.mkdir()
    precision, options = PRECISIONS[name]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", str(target)]
    command += ["-p", precision, "-e", "cpu", "-c", str(target / "cache")]
    command += ["--extra_options", *options] if options else []
    console.say(f"write {name}: onnxruntime-genai's builder")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    built = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    if built.returncode:
        last = built.stderr.strip().splitlines()
        raise ExportError(f"{name}: onnxruntime-genai's builder failed: {last[-1] if last else 'no reason given'}")
    found = _agreement(target, reference)
    if name == "onnx-fp32" and not found.is_rounding(EXACT):
        raise ExportError(
            f"{name}: in float32, onnxruntime's logits differ from transformers' by {found.difference:.3g}, but "
            f"rounding explains only {EXACT * found.spread:.2g}"
        )
    nbytes = sum(file.stat().st_size for file in target.glob("*.onnx*"))
    return {"file": name, "nbytes": nbytes, **found.figures(reference.is_text)}


def _agreement(target: Path, reference: Reference) -> Agreement:
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(target))
    found = Agreement()
    for window in reference.windows:
        options = onnxruntime_genai.GeneratorParams(model)
        options.set_search_options(max_length=len(window), do_sample=False)
        generator = onnxruntime_genai.Generator(model, options)
        generator.append_tokens(np.asarray([window], dtype=np.int32))
        logits = np.array(generator.get_output("logits"))[0]
        found.add(np.asarray(window, dtype=np.int64), reference.logits(window), logits)
    return found
