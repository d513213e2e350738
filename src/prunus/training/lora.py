"""LoRA: low-rank updates of frozen linear modules, merged into the weights at the end, by peft.

W' = W + (alpha / r) B A with A [r, in] and B [out, r] (Hu et al. 2021, arXiv 2106.09685, section 4.1). B starts at 0,
so training starts from the model itself.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunus.errors import ModelError
from prunus.models.axes import parse_weight
from prunus.models.families.family import Family
from prunus.models.families.table import family_of
from prunus.models.linear import linear_modules
from prunus.training.config import LoraConfig

ADAPTER = "adapter"
"""The folder of the updates, within a result."""
_OWNER = "_peft_model"  # the attribute of the model that holds peft's model around it


def add_adapters(model: PreTrainedModel, config: LoraConfig) -> None:
    """Freeze a model, and add trainable updates in float32 to every linear module of its layers.

    Args:
        model: The model; its embeddings, norms and LM head stay frozen. Its class and the names of its other parts do
            not change.
        config: Rank and scale.

    Raises:
        ModelError: A linear module is narrower than the rank, or the model is a mixture of experts.
    """
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    family = family_of(model.config.get_text_config().to_dict(), type(model).__name__)
    names = [name for name in linear_modules(model, "lora") if not _is_bypassed(name, family)]
    for name in names:
        module = model.get_submodule(name)
        narrowest = min(module.weight.shape)
        if config.r > narrowest:
            raise ModelError(f"lora.r: {config.r} is more than the width of {name}, {narrowest}; allowed: up to that")
    options = PeftConfig(
        r=config.r,
        lora_alpha=config.alpha or config.r,  # type: ignore[arg-type]  # peft declares an integer and takes any number
        lora_dropout=config.dropout,
        target_modules=names,
        fan_in_fan_out=isinstance(model.get_submodule(names[0]), Conv1D),
    )
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # an attribute that transformers renames
        owner = get_peft_model(model, options)
    object.__setattr__(model, _OWNER, owner)  # not a submodule of the model, which it contains


def _is_bypassed(name: str, family: Family) -> bool:
    """Whether it is the output projection of a state-space layer (Mamba-2).

    Its kernel multiplies by the weight without calling the module, so updates of it would be ignored; peft refuses it.
    """
    outputs = [key for key, line in family.layered.items() if parse_weight(line).runs_over("ssm_heads", 1)]
    return any(f"{name}.weight".endswith(f".{key}") for key in outputs)


def merge_adapters(model: PreTrainedModel, out: Path, keep: bool) -> PreTrainedModel:
    """Merge the updates of `add_adapters` into the weights, in float32; a model without them is returned unchanged.

    Args:
        model: The trained model.
        out: The folder of the result.
        keep: Whether to write the updates to `out/adapter` as well.
    """
    owner = vars(model).pop(_OWNER, None)
    if owner is None:
        return model
    if keep:
        owner.save_pretrained(out / ADAPTER)
        (out / ADAPTER / "README.md").unlink()  # a card of peft's, with nothing filled in
    merged: PreTrainedModel = owner.float().merge_and_unload()
    return merged.requires_grad_(True)
