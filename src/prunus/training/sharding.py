"""Sharding a module's weights across processes (FSDP2), and gathering them.

Zhao et al. 2023, arXiv 2304.11277; torch's `fully_shard`. Each layer is a separate unit, gathered for its forward and
backward pass. The weights outside the layers (embeddings, last norm, LM head) are gathered once per step and kept,
since the loss uses them repeatedly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from prunus.models.families.table import family_of


def shard(module: nn.Module, arithmetic: torch.dtype) -> None:
    """Shard the weights of a module in place; every process must call it with the same weights.

    Args:
        module: Holds one transformers model; only its `forward` may be called.
        arithmetic: The dtype of gathered weights in trained modules; frozen ones keep theirs.
    """
    trained = any(parameter.requires_grad for parameter in module.parameters())
    policy = MixedPrecisionPolicy()
    if trained and arithmetic != torch.float32:
        policy = MixedPrecisionPolicy(param_dtype=arithmetic, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in _layers(module):
        fully_shard(layer, mp_policy=policy)
    fully_shard(module, mp_policy=policy, reshard_after_forward=False)


def reshard(module: nn.Module) -> None:
    """Free the gathered weights that a forward pass without a backward pass leaves.

    While they exist, `parameters()` returns them, instead of the shards that an optimizer must update.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was applied to the module."""
    return isinstance(module, FSDPModule)


def gathered(tree: Any) -> Any:
    """Nested dicts and lists with every sharded tensor gathered on the CPU. Collective: all processes must call it."""
    if isinstance(tree, DTensor):
        return tree.full_tensor().cpu()
    if isinstance(tree, dict):
        return {key: gathered(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gathered(value) for value in tree)
    return tree


def trained_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a module without its frozen parameters."""
    frozen = {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


@torch.no_grad()
def load_full(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load a full `trained_state`, of which each process takes its shard; it may have more entries than the module."""
    for name, value in trained_state(module).items():
        value.copy_(like(state[name], value))


def shard_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Shard the full states of an optimizer, as loaded from a checkpoint, like their parameters."""
    for part in getattr(optimizer, "parts", [optimizer]):
        for parameter, state in part.state.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    state[key] = like(value, parameter)


def like(value: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """A full tensor, sharded like `example`."""
    if not isinstance(example, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(example.device), example.device_mesh, example.placements)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    model = next(part for part in module.modules() if isinstance(part, PreTrainedModel))  # the outermost
    config = model.config.get_text_config()
    family = family_of(config.to_dict(), type(model).__name__)
    for i in range(config.num_hidden_layers):
        yield model.get_submodule(family.layer_name(i))
