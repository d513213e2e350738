"""Detection of NaN and infinity in what models compute, and their origin: a module, or weights by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.errors import NotFiniteError

_NAMED = 3  # the most weights in a message


@contextmanager
def finite_logits(model: PreTrainedModel, what: str) -> Iterator[None]:
    """Check the logits of every forward pass of `model` while the context is open.

    A logit of -inf is allowed, since it excludes a token; NaN, +inf and a position with only -inf are not.

    Args:
        model: The model.
        what: What it reads, for the message.

    Raises:
        NotFiniteError: Logits are not finite; the message names the module and the weights where it begins.
    """

    def check(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
        if not torch.isfinite(output.logits.amax(dim=-1)).all():
            raise not_finite(model, f"its logits on {what}", given.get("input_ids", args[0] if args else None))

    handle = model.register_forward_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def not_finite(model: PreTrainedModel, what: str, ids: torch.Tensor | None = None) -> NotFiniteError:
    """The error for a model that computes NaN or infinity, with their origin as far as it can be determined.

    Args:
        model: The model.
        what: What is not finite.
        ids: Token ids [B, S] that cause it; None if they are not available.
    """
    names = [
        name
        for name, values in (*model.named_parameters(), *model.named_buffers())
        if values.is_floating_point() and not torch.isfinite(values).all()
    ]
    parts = [f"{model.name_or_path}: {what}: NaN or infinity"]
    if names:
        more = f" (and {len(names) - _NAMED} more)" if len(names) > _NAMED else ""
        kind = str(model.dtype).removeprefix("torch.")
        parts.append(f"weights that hold NaN or infinity in {kind}: {', '.join(names[:_NAMED])}{more}")
    else:
        first = None if ids is None else first_module(model, ids)
        place = "" if first is None else f"; they first appear in the output of `{first}`"
        parts.append(f"its weights are finite{place}, so values overflow during the computation")
    return NotFiniteError(". ".join(parts))


@torch.no_grad()
def first_module(model: PreTrainedModel, ids: torch.Tensor) -> str | None:
    """The first module whose output is not finite in a forward pass over `ids` [B, S]; None if there is none."""
    names: list[str] = []

    def watch(name: str) -> Any:
        def see(_: nn.Module, __: Any, output: Any) -> None:
            values = output[0] if isinstance(output, tuple) and output else output
            if not names and isinstance(values, torch.Tensor) and not torch.isfinite(values).all():
                names.append(name)

        return see

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        model.base_model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return names[0] if names else None
