"""Reward models: transformers' stock sequence classifiers with one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from prunus.errors import ModelError
from prunus.models.load import check_holds, dtype_that_holds, ready


def load_reward_model(folder: Path, device: torch.device, dtype: torch.dtype, new: bool = False) -> PreTrainedModel:
    """Load a reward model, or start one from a language model.

    Args:
        folder: A stock sequence classifier with one label; with `new`, a language model.
        device: The device.
        dtype: The dtype.
        new: Whether to add a new last layer, of zeros, so that all rewards are equal at first.

    Raises:
        ModelError: Transformers refuses it, or it is not a reward model.
    """
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if new:
            config.num_labels = 1
            config.pad_token_id = config.pad_token_id if config.pad_token_id is not None else 0
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises many types
        raise ModelError(f"{folder}: cannot be a reward model: {type(error).__name__}: {error}") from None
    missing = set(info["missing_keys"]) - ({"score.weight"} if new else set())
    if missing or model.config.num_labels != 1 or not isinstance(getattr(model, "score", None), nn.Linear):
        raise ModelError(
            f"{folder}: is not a reward model: expected a sequence classifier with one label and a last layer `score`; "
            f"it has {model.config.num_labels} labels{', and not ' + ', '.join(sorted(missing)) if missing else ''}"
        )
    check_holds(model, folder)
    if new:
        nn.init.zeros_(model.score.weight)
    return ready(model.to(device))


def rewards(model: PreTrainedModel, input_ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The reward at one token of each sequence: ids [B, S] and the tokens' positions [B] to [B]."""
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    scores: torch.Tensor = model.score(hidden[torch.arange(len(last), device=last.device), last])
    return scores.squeeze(-1).float()


@torch.no_grad()
def save_reward_model(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> float:
    """Save in `dtype`, reload with stock transformers, and compare the rewards.

    Returns:
        The largest difference between rewards.

    Raises:
        ModelError: The reloaded model gives other rewards.
    """
    dtype = dtype_that_holds(model, dtype)
    model.to(dtype=dtype).eval()
    model.save_pretrained(folder)
    probe = torch.arange(3, 67, device=model.device).remainder(model.config.get_text_config().vocab_size)[None]
    last = torch.tensor([63], device=model.device)
    reopened = load_reward_model(folder, model.device, dtype)
    difference = (rewards(model, probe, last) - rewards(reopened, probe, last)).abs().max().item()
    if not difference <= 1e-5:
        raise ModelError(f"{folder}: reopened, its rewards differ from the model in memory by {difference:.3g}")
    return difference
