"""Int8 weights by torchao, in a folder that transformers loads if torchao is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prunus.console import Console
from prunus.errors import ExportError
from prunus.gguf.compare import Agreement
from prunus.models.compatible import make_compatible
from prunus.models.folder import copy_along
from prunus.steps.export.job import Job

LIMIT = 0.1
"""Largest KL of int8 weights, in nats per token: far more than in a correct file."""


def export(formats: Sequence[str], job: Job, console: Console) -> dict[str, Any]:
    """Write the model with int8 weights (one scale a row) into `torchao-int8`, reopen it, and measure it.

    Returns:
        The record of the format: its folder, its size, and the same figures as for a GGUF file.

    Raises:
        ExportError: The reopened model gives other logits, or its KL to the model is too large.
    """
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    folder, target = job.folder.path, job.out / "torchao-int8"
    target.mkdir()
    console.say("write torchao-int8")
    settings = TorchAoConfig(Int8WeightOnlyConfig())
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=settings, device_map="cpu", local_files_only=True
    ).eval()
    model.save_pretrained(target)
    copy_along(folder, target)
    make_compatible(target)
    reopened = AutoModelForCausalLM.from_pretrained(target, device_map="cpu", local_files_only=True).eval()
    found = Agreement()
    for window in job.reference.windows:
        ids = torch.from_numpy(np.asarray(window, dtype=np.int64))[None]
        with torch.no_grad():
            before, after = (one(ids, use_cache=False).logits[0].float() for one in (model, reopened))
        if not torch.equal(before, after):
            difference = (before - after).abs().max().item()
            raise ExportError(f"torchao-int8: logits of the reopened model differ by {difference:.3g}")
        found.add(np.asarray(window, dtype=np.int64), job.reference.logits(window), after.numpy())
    if not found.mean_kl <= LIMIT:
        raise ExportError(f"torchao-int8: KL to the model is {found.mean_kl:.3g} nats per token; allowed: {LIMIT:g}")
    nbytes = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    return {"torchao-int8": {"file": target.name, "nbytes": nbytes, **found.figures(job.reference.is_text)}}
