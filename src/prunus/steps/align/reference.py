"""Log-probabilities of all answers under the reference: computed once and stored, so that it can be freed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from prunus import distributed
from prunus.checkpoints import FOLDER as CHECKPOINTS
from prunus.console import Console
from prunus.files import sync
from prunus.models.load import device_of, inference_dtype
from prunus.runtime import Runtime
from prunus.steps.align.answers import Answers, sequences
from prunus.steps.align.objective import Preference
from prunus.training.sharding import reshard

FILE = "reference.npy"


def reference_of(objective: Preference, items: Answers, out: Path, runtime: Runtime, console: Console) -> np.ndarray:
    """Log-probabilities of all sequences of `items` under the current model of `objective`, by number.

    The processes share the work. The file of an interrupted run is reused.

    Args:
        objective: The reference, on its device.
        items: The training data.
        out: Folder for `reference.npy`.
        runtime: Device, micro-batch size, arithmetic.
        console: Where progress is printed.
    """
    if (out / FILE).is_file():
        return np.load(out / FILE)
    device = device_of(runtime)
    lengths = items.lengths
    order = np.argsort(-lengths, kind="stable")
    order = order[np.isin(order, items.rows)]
    size = 2 * runtime.device_batch_size
    log_probs = torch.zeros(len(lengths), dtype=torch.float64)
    objective.model.eval()
    with console.progress("reference", len(order), "answers") as progress:
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        batches += [order[:1]] * (
            -len(batches) % distributed.count()
        )  # with sharded weights, all processes must call the model equally often
        for done, batch in enumerate(batches):
            if done % distributed.count() == distributed.rank():
                inputs = sequences(*zip(*map(items.sequence, batch.tolist()), strict=True))
                low = inference_dtype(runtime, device) is torch.bfloat16
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=low):
                    result = objective(**{name: values.to(device) for name, values in inputs.items()})
                if done * size < len(order):
                    log_probs[batch] = result.cpu().double()
            progress.update(min((done + 1) * size, len(order)))
    reshard(objective)
    distributed.all_reduce([log_probs])
    if distributed.rank() == 0:
        _save(log_probs.numpy(), out)
    distributed.wait()
    return log_probs.numpy()


def _save(log_probs: np.ndarray, out: Path) -> None:
    """Write the file atomically, and mark it as a checkpoint to resume from."""
    partial = out / f"{FILE}.partial"
    with partial.open("wb") as file:
        np.save(file, log_probs)
    sync(partial)
    os.replace(partial, out / FILE)
    mark = out / CHECKPOINTS / "reference"
    mark.mkdir(parents=True, exist_ok=True)
    (mark / "complete").touch()
