"""Runs a layer again without computing again what has not changed: attention, or the MLP, up to its last linear layer.

A block is a module whose output is that of a linear layer within it, such as `self_attn` with `self_attn.o_proj`. Where
the input of that linear layer is stored, the block computes nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

Form = Callable[[torch.Tensor], Any]
"""Makes the output of a block out of that of its last linear layer."""


class Replay:
    """How the blocks of a model's layers return the output of their last linear layer, learned from the first runs."""

    def __init__(self) -> None:
        self._forms: dict[str, Form | None] = {}  # by that linear layer's name; None if its block cannot be skipped

    @contextlib.contextmanager
    def replayed(self, layer: nn.Module, inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Within this context, a run of the layer skips the blocks that end with the modules in `inputs`.

        Args:
            layer: The layer.
            inputs: The inputs of linear layers, by name in the layer.
        """
        with contextlib.ExitStack() as stack:
            for name, x in inputs.items():
                block = name.rpartition(".")[0]
                if name not in self._forms:
                    stack.enter_context(self._learning(layer, name))
                elif form := self._forms[name]:
                    last, skipped = layer.get_submodule(name), layer.get_submodule(block)
                    stack.enter_context(replaced_forward(skipped, _only_last(last, x, form)))
            yield

    @contextlib.contextmanager
    def _learning(self, layer: nn.Module, name: str) -> Iterator[None]:
        """Within this context, a run of the layer shows what the block makes of the output of its last linear layer."""
        block, outputs = name.rpartition(".")[0], list[Any]()

        def learn(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._forms[name] = _form(output, outputs[-1])

        handles = [
            layer.get_submodule(name).register_forward_hook(lambda *call: outputs.append(call[-1])),
            layer.get_submodule(block).register_forward_hook(learn),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _form(output: Any, of_last: torch.Tensor) -> Form | None:
    """The form of a block's output: that of its last linear layer, or a tuple of it and None; None for any other."""
    if output is of_last:
        return lambda y: y
    if isinstance(output, tuple) and output[0] is of_last and all(part is None for part in output[1:]):
        return lambda y: (y, *output[1:])
    return None


def _only_last(last: nn.Module, x: torch.Tensor, form: Form) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        given = next(each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor))
        return form(last(x.flatten(0, 1) if given.ndim == 2 else x))  # 2: batch and positions are one dimension

    return forward


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within this context, `module` computes `forward`; its hooks are called as before."""
    module.forward = forward  # an attribute of the instance, which hides the method of the class
    try:
        yield
    finally:
        del module.forward
