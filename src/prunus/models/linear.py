"""The linear modules of a model's layers."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunus.errors import ModelError
from prunus.models.families.table import family_of


def linear_modules(model: PreTrainedModel, option: str) -> list[str]:
    """The names of the linear modules of all layers.

    Args:
        model: The model; its embeddings and LM head are not among them.
        option: What they are needed for, for the message.

    Raises:
        ModelError: The model is a mixture of experts, whose weights are not in linear modules.
    """
    config = model.config.get_text_config()
    family = family_of(config.to_dict(), type(model).__name__)
    if family.experts is not None:
        raise ModelError(f"{option}: {config.model_type} is a mixture of experts, whose experts are no linear modules; "
                         "allowed: to leave it out")  # fmt: skip
    names = []
    for i in range(config.num_hidden_layers):
        layer = family.layer_name(i)
        for name, module in model.get_submodule(layer).named_modules(prefix=layer):
            if isinstance(module, (nn.Linear, Conv1D)):
                names.append(name)
    return names
