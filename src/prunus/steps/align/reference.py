"""What the reference says of every answer: asked once, kept on disk, and the reference is free to go."""

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
    """Log-probabilities of all sequences of `items` under the model of `objective`, as it is now, by number.

    Several processes share them out. What an earlier run found is taken as it is.

    Args:
        objective: Holds the reference, where it works.
        items: What is trained on.
        out: Gets `reference.npy`.
        runtime: Device, portions, arithmetic.
        console: Shows the progress.
    """
    if (out / FILE).is_file():
        return np.load(out / FILE)
    device = device_of(runtime)
    lengths = items.lengths
    order = np.argsort(-lengths, kind="stable")
    order = order[np.isin(order, items.rows)]
    size = 2 * runtime.device_batch_size
    found = torch.zeros(len(lengths), dtype=torch.float64)
    objective.model.eval()
    with console.progress("reference", len(order), "answers") as progress:
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        batches += [order[:1]] * (-len(batches) % distributed.count())  # all call the model equally often
        for done, batch in enumerate(batches):
            if done % distributed.count() == distributed.rank():
                asked = sequences(*zip(*map(items.sequence, batch.tolist()), strict=True))
                low = inference_dtype(runtime, device) is torch.bfloat16
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=low):
                    said = objective(**{name: values.to(device) for name, values in asked.items()})
                if done * size < len(order):
                    found[batch] = said.double().cpu()
            progress.update(min((done + 1) * size, len(order)))
    reshard(objective)
    distributed.all_reduce([found])
    if distributed.rank() == 0:
        _keep(found.numpy(), out)
    distributed.wait()
    return found.numpy()


def _keep(found: np.ndarray, out: Path) -> None:
    """Write it whole or not at all, and mark it as worth going on from."""
    partial = out / f"{FILE}.partial"
    with partial.open("wb") as file:
        np.save(file, found)
    sync(partial)
    os.replace(partial, out / FILE)
    mark = out / CHECKPOINTS / "reference"
    mark.mkdir(parents=True, exist_ok=True)
    (mark / "complete").touch()
