"""A module's weights shared out over processes (FSDP2), and gathered again.

Zhao et al. 2023, arXiv 2304.11277; torch's `fully_shard`. Each layer is a unit of its own, gathered when it is used;
what lies outside the layers (embeddings, last norm, LM head) is gathered once a step and stays, as the loss goes over
it again and again.
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
    """Share out the weights of a module, in place; every process calls it with the same weights.

    Args:
        module: Holds one transformers model, and its forward is all that is called.
        arithmetic: The type that weights are gathered in for trained modules; frozen ones keep their own.
    """
    trained = any(parameter.requires_grad for parameter in module.parameters())
    policy = MixedPrecisionPolicy()
    if trained and arithmetic != torch.float32:
        policy = MixedPrecisionPolicy(param_dtype=arithmetic, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in _layers(module):
        fully_shard(layer, mp_policy=policy)
    fully_shard(module, mp_policy=policy, reshard_after_forward=False)


def settle(module: nn.Module) -> None:
    """Give up the whole weights that a forward pass leaves where no backward pass follows.

    As long as they are there, `parameters()` names them, and not the shares that an optimizer is to move.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was called with it."""
    return isinstance(module, FSDPModule)


def gathered(tree: Any) -> Any:
    """Nested dicts and lists with every shared-out tensor whole and on the CPU; all processes call it together."""
    if isinstance(tree, DTensor):
        return tree.full_tensor().cpu()
    if isinstance(tree, dict):
        return {key: gathered(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(gathered(value) for value in tree)
    return tree


@torch.no_grad()
def load_whole(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Take up a whole state, each process its share; the state may have more than the module."""
    for name, value in module.state_dict().items():
        value.copy_(like(state[name], value))


def share_out(optimizer: torch.optim.Optimizer) -> None:
    """Give whole states of an optimizer, as a checkpoint has them, the layout of their parameters."""
    for part in getattr(optimizer, "parts", [optimizer]):
        for parameter, state in part.state.items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    state[key] = like(value, parameter)


def like(value: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """A whole tensor shared out as `example` is."""
    if not isinstance(example, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(example.device), example.device_mesh, example.placements)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    model = next(part for part in module.modules() if isinstance(part, PreTrainedModel))  # the outermost
    config = model.config.get_text_config()
    family = family_of(config.to_dict(), type(model).__name__)
    for i in range(config.num_hidden_layers):
        yield model.get_submodule(family.layer_name(i))
