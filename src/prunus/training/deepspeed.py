"""Training under DeepSpeed, with a configuration file of the user's.

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) partitions optimizer states (stage 1) and gradients (stage 2). Stage 3,
which partitions the weights as well, is refused: the LM head and the loss are computed together and need the full
weights at that moment; `runtime.shard` does it. The file must not repeat what the recipe sets: batch sizes, optimizer,
schedule, clipping and precision are filled in.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from prunus import distributed
from prunus.errors import ArtifactError, RecipeError

_FILLED = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
_OURS = (*_FILLED, "optimizer", "scheduler", "bf16", "fp16")
_SHARES = "*zero_pp_rank_*_optim_states.pt"


def read_settings(file: str, optimizer: str) -> dict[str, Any]:
    """Read a DeepSpeed configuration.

    Args:
        file: A JSON file.
        optimizer: The recipe's optimizer.

    Raises:
        RecipeError: It cannot be used, or DeepSpeed is not installed.
    """
    where = f"runtime.deepspeed: {file}"
    if importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(f"{where}: DeepSpeed is not installed: pip install deepspeed")
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
        stage = settings.get("zero_optimization", {}).get("stage", 0)
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"{where}: not a DeepSpeed configuration in JSON: {error}") from None
    if stage not in (0, 1, 2):
        raise RecipeError(
            f"{where}: zero_optimization.stage: {stage}; allowed: 0, 1 or 2; or runtime.shard for weights"
        )
    ours = [name for name in _OURS if settings.get(name, "auto") != "auto"]
    if ours:
        raise RecipeError(f"{where}: {', '.join(ours)}: set by the recipe; remove it, or set it to auto")
    if stage and optimizer == "muon":
        raise RecipeError(
            f"{where}: zero_optimization.stage: {stage} partitions the flattened weights, and muon "
            "needs whole matrices; allowed: optimizer: adamw, stage 0, or runtime.shard instead of DeepSpeed"
        )
    return settings


def completed(settings: dict[str, Any], bfloat16: bool) -> dict[str, Any]:
    """Add the recipe's options to the settings; the Trainer replaces `auto`."""
    own: dict[str, Any] = dict.fromkeys(_FILLED, "auto")
    own |= {"bf16": {"enabled": bfloat16}, "zero_allow_untested_optimizer": True}
    return {**{name: value for name, value in settings.items() if name not in _OURS}, **own}


def check_shares(checkpoint: str | None) -> None:
    """Refuse a checkpoint whose optimizer was partitioned for another number of processes.

    Raises:
        ArtifactError: The message says how many processes it needs.
    """
    shares = len(list(Path(checkpoint).glob(f"global_step*/{_SHARES}"))) if checkpoint else 0
    if shares not in (0, distributed.count()):
        raise ArtifactError(
            f"{checkpoint}: was written by {shares} processes under DeepSpeed, and only as many can resume it; there "
            f"are {distributed.count()}"
        )
