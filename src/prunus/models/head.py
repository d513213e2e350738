"""The LM head: what turns the last hidden states into logits.

N tokens, H hidden, V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from prunus.errors import ModelError
from prunus.models.families.table import FAMILIES

_PROBE = 8  # tokens that tell whether a head is understood


@dataclass(frozen=True)
class Head:
    """logits = cap · tanh(scale · (hidden Wᵀ + b) / cap), without what a model has not.

    Attributes:
        weight: W [V, H].
        bias: b [V].
        scale: What logits are multiplied by, Granite's 1 / logits_scaling.
        cap: Where logits saturate, Gemma's final_logit_softcapping.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def finish(self, product: torch.Tensor) -> torch.Tensor:
        """Turn hidden Wᵀ [N, V] into logits, in place."""
        if self.bias is not None:
            product.add_(self.bias)
        if self.scale != 1.0:
            product.mul_(self.scale)
        if self.cap is not None:
            product.div_(self.cap).tanh_().mul_(self.cap)
        return product

    def chain(self, gradient: torch.Tensor, logits: torch.Tensor | None) -> torch.Tensor:
        """Turn the gradient by logits [N, V] into that by hidden Wᵀ, in place; `logits` only where there is a cap."""
        if self.cap is not None:
            assert logits is not None
            gradient.addcmul_(gradient * logits, logits, value=-1 / self.cap**2)  # d tanh = 1 - tanh²
        if self.scale != 1.0:
            gradient.mul_(self.scale)
        return gradient

    def rows(self, ids: torch.Tensor) -> Head:
        """The head of some tokens alone."""
        return replace(self, weight=self.weight[ids], bias=None if self.bias is None else self.bias[ids])


def read_head(model: PreTrainedModel) -> Head:
    """The head of a model in memory, with the tensors that its modules hold now.

    Raises:
        ModelError: Transformers names none.
    """
    config = model.config.get_text_config()
    module = model.get_output_embeddings()
    if module is None:
        raise ModelError(f"{type(model).__name__}: has no LM head that transformers names")
    family = FAMILIES.get(config.model_type)
    divisor = getattr(config, family.logit_divisor) if family and family.logit_divisor else 1.0
    cap = getattr(config, family.logit_cap) if family and family.logit_cap else None
    return Head(module.weight, getattr(module, "bias", None), 1 / divisor, cap)


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Hold the head's logits against the model's own: an unknown factor would bend every gradient in silence.

    Raises:
        ModelError: The model makes its logits in a way of its own.
    """
    head, training = read_head(model), model.training
    model.eval()
    ids = torch.arange(_PROBE, device=model.device)[None] % len(head.weight)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    found = head.finish(F.linear(hidden, head.weight).float())
    wanted = model(input_ids=ids, use_cache=False).logits.float()
    model.train(training)
    error, size = (found - wanted).abs().max().item(), wanted.abs().max().item()
    precision = max(torch.finfo(dtype).eps for dtype in (head.weight.dtype, torch.float32))
    if error > 16 * precision * max(size, 1.0):  # weights that are not finite are training's to find
        raise ModelError(
            f"{type(model).__name__}: its logits are not what its LM head, a bias, a scale and a soft cap make of its "
            f"hidden states: they differ by {error:.3g}, and are up to {size:.3g}"
        )
