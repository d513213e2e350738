"""Models with random weights, initialised by transformers' rules for the family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunus.models.compatible import make_compatible
from prunus.models.folder import write_config


def draw_model(config: dict[str, Any], out: Path, seed: int, redraw: Callable[[Any], None] | None = None) -> None:
    """Write a freshly initialised model to `out`.

    Args:
        config: Its config.json.
        out: The folder, which exists.
        seed: Seed of torch's generator.
        redraw: Changes the initialised model in place; None for no change.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from prunus.models.load import config_dtype

    write_config(out, config)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out), dtype=torch.float32)
    if redraw:
        redraw(model)
    model.to(config_dtype(config)).save_pretrained(out)
    make_compatible(out)
