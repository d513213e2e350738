"""The LM head: the map from last hidden states to logits.

N tokens, H hidden, V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from prunus.errors import ModelError
from prunus.models.families.table import FAMILIES

_PROBE = 8  # tokens on which a head is compared with the model's logits


@dataclass(frozen=True)
class Head:
    """logits = cap · tanh(scale · (hidden Wᵀ + b) / cap); models leave out some of these terms.

    Attributes:
        weight: W [V, H].
        bias: b [V].
        scale: A factor of the logits: Granite's 1 / logits_scaling, Cohere's logit_scale.
        cap: The bound at which logits saturate: Gemma's final_logit_softcapping.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def finish(self, product: torch.Tensor) -> torch.Tensor:
        """Convert hidden Wᵀ [N, V] to logits, in place."""
        if self.bias is not None:
            product.add_(self.bias)
        if self.scale != 1.0:
            product.mul_(self.scale)
        if self.cap is not None:
            product.div_(self.cap).tanh_().mul_(self.cap)
        return product

    def chain(self, gradient: torch.Tensor, logits: torch.Tensor | None) -> torch.Tensor:
        """Convert the gradient of the logits [N, V] to that of hidden Wᵀ, in place; `logits` is needed with a cap."""
        if self.cap is not None:
            assert logits is not None
            gradient.addcmul_(gradient * logits, logits, value=-1 / self.cap**2)  # d tanh = 1 - tanh²
        if self.scale != 1.0:
            gradient.mul_(self.scale)
        return gradient

    def rows(self, ids: torch.Tensor) -> Head:
        """The head for some tokens only."""
        return replace(self, weight=self.weight[ids], bias=None if self.bias is None else self.bias[ids])


def read_head(model: PreTrainedModel) -> Head:
    """The head of a loaded model, with the current tensors of its modules.

    Raises:
        ModelError: Transformers does not report an LM head.
    """
    config = model.config.get_text_config()
    module = model.get_output_embeddings()
    if module is None:
        raise ModelError(f"{type(model).__name__}: transformers reports no LM head")
    family = FAMILIES.get(config.model_type)
    divisor = getattr(config, family.logit_divisor) if family and family.logit_divisor else 1.0
    factor = getattr(config, family.logit_multiplier) if family and family.logit_multiplier else 1.0
    cap = getattr(config, family.logit_cap) if family and family.logit_cap else None
    return Head(module.weight, getattr(module, "bias", None), factor / divisor, cap)


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Compare the head's logits with the model's: an unknown factor would silently distort every gradient.

    Raises:
        ModelError: The model computes its logits in another way.
    """
    head, training = read_head(model), model.training
    model.eval()
    ids = torch.arange(_PROBE, device=model.device)[None] % len(head.weight)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    logits = head.finish(F.linear(hidden, head.weight).float())
    expected = model(input_ids=ids, use_cache=False).logits.float()
    model.train(training)
    error, size = (logits - expected).abs().max().item(), expected.abs().max().item()
    precision = max(torch.finfo(dtype).eps for dtype in (head.weight.dtype, torch.float32))
    if error > 16 * precision * max(size, 1.0):  # false for NaN, which training reports
        raise ModelError(
            f"{type(model).__name__}: its logits are not its hidden states times its LM head, with bias, scale and "
            f"soft cap: they differ by {error:.3g} at a size of up to {size:.3g}"
        )
