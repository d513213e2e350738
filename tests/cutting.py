"""Students of tiny teachers on random tokens, and what they say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunus.console import Console
from prunus.data.tokens import ENDS, FACTS, IDS, SIZES
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs, run
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as run_score
from tests.tiny import load

QUIET = Console(quiet=True)
TEXT = torch.from_numpy(np.random.default_rng(0).integers(3, 300, (2, 24)))


def prune(teacher: Path, out: Path, scores: Path | None = None, **options: Any) -> Path:
    """A student of a teacher, by its scores or by chance."""
    out.mkdir(parents=True)
    importance = "random" if scores is None else "activation"
    run(
        PruneConfig(**{"importance": importance, "method": "minitron", **options}),
        Inputs(teacher, scores),
        out,
        Runtime(),
        QUIET,
    )
    return out


def score(teacher: Path, folder: Path, **options: Any) -> Path:
    """Scores of a teacher on random tokens."""
    tokens, out = folder / "tokens", folder / "scores"
    tokens.mkdir()
    out.mkdir()
    others = np.random.default_rng(1).integers(3, 300, (6, 24))  # beside TEXT, all of whose experts have scores then
    np.concatenate([TEXT, others]).astype(np.uint16).tofile(tokens / IDS)
    np.save(tokens / ENDS, np.array([8 * 24]))
    np.save(tokens / SIZES, np.array([8 * 24]))
    (tokens / FACTS).write_text(json.dumps({"dtype": "uint16"}))
    run_score(
        ScoreConfig(samples=8, sequence_length=24, **options), ScoreInputs(teacher, tokens), out, Runtime(), QUIET
    )
    return out


def logits(folder: Path) -> torch.Tensor:
    """Those of `TEXT`, in float64."""
    with torch.no_grad():
        return plain(folder)(TEXT, use_cache=False).logits


def plain(folder: Path) -> Any:
    """The model in float64, its experts one after the other: the fast kernel for them knows no float64."""
    model = load(folder)
    if getattr(model.config, "num_experts_per_tok", None):
        model.set_experts_implementation("eager")
    return model.double()
