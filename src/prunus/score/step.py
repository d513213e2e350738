"""The `score` step: forward passes over a calibration set, and from them the importance of all that can be cut."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.runtime import Runtime
from prunus.score.config import ScoreConfig
from prunus.score.importance import batch_l2, block_influence
from prunus.score.statistics import Statistics


@dataclass(frozen=True)
class Inputs:
    """The model to score, and the stream to draw the calibration set from."""

    model: Path
    tokens: Path


def run(config: ScoreConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Score `inputs.model`.

    Writes `scores.safetensors` (`neurons` [L, mlp], `heads` [L, heads], `channels` [norms, hidden], `cosines`
    [L + 1, L + 1], `energy.<norm>`, and `experts` [L, E] where there are any; see `Statistics`), and `scores.json`, the
    same as a person reads it.

    Returns:
        Sequences and tokens of the calibration set.

    Raises:
        DataError: The stream does not fill one sequence.
    """
    blocks = Tokens.open(inputs.tokens).blocks(config.sequence_length)
    if config.samples > len(blocks):
        console.warn(f"score.samples: {config.samples} wanted, and the corpus fills {len(blocks)}: all are used")
    drawn = np.random.default_rng(config.seed).permutation(len(blocks))[: config.samples]
    device = device_of(runtime)
    model = load_model(inputs.model, device, inference_dtype(runtime, device))
    statistics = Statistics(ModelFolder(inputs.model).shape, device)
    total = len(drawn) * config.sequence_length
    with statistics.watching(model), torch.no_grad(), console.progress("score", total, "tokens") as progress:
        for start in range(0, len(drawn), runtime.device_batch_size):
            batch = blocks[drawn[start : start + runtime.device_batch_size]].astype(np.int64)
            model.base_model(input_ids=torch.from_numpy(batch).to(device), use_cache=False)
            statistics.end_batch()
            progress.update(statistics.tokens)
    _write(statistics, out)
    return {"samples": len(drawn), "tokens": statistics.tokens}


def _write(statistics: Statistics, out: Path) -> None:
    sums = {name: getattr(statistics, name) for name in ("neurons", "heads", "channels", "experts")}
    scores = {name: batch_l2(value).cpu() for name, value in sums.items() if value is not None}
    cosines = (statistics.cosines / statistics.tokens).cpu()
    energies = {f"energy.{name}": value.cpu() / statistics.tokens for name, value in statistics.energies.items()}
    save_file({**scores, **energies, "cosines": cosines}, out / "scores.safetensors")
    layers = statistics.shape.num_hidden_layers
    summary = {
        "layers": {"block_influence": [block_influence(cosines, i, 1) for i in range(layers)]},
        "channels": sorted(scores["channels"].sum(dim=0).tolist(), reverse=True),
        "neurons": [sorted(row, reverse=True) for row in scores["neurons"].flatten(1).tolist()],
        "heads": scores["heads"].tolist(),
    }
    (out / "scores.json").write_text(json.dumps(summary) + "\n")
