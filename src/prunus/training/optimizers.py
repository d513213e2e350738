"""The optimizers that transformers does not make: Muon with AdamW as one, and AdamW with its moments in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from prunus.models.precision import product_dtype
from prunus.training.config import OptimizerConfig
from prunus.training.muon import Muon


def optimizer_of(model: nn.Module, config: OptimizerConfig) -> Optimizer | None:
    """The optimizer for a model's trained parameters; None for AdamW, which the Trainer makes."""
    make = {"muon": MuonWithAdamW, "adamw_8bit": eight_bit_adamw}.get(config.optimizer)
    return None if make is None else make(model, config)


def eight_bit_adamw(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """AdamW as torchao has it, whose moments are in 8 bits with a scale for each 256 of them (arXiv 2110.02861).

    Moments of fewer than 4,096 parameters, or of a number that 256 does not divide, are in float32.
    """
    from torchao.optim import AdamW8bit

    class Eager(AdamW8bit):
        def step(self, closure: Callable[[], float] | None = None) -> float | None:
            with torch.compiler.set_stance("force_eager"):
                loss: float | None = super().step(closure)
            return loss

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices, vectors = ([p for p in trained if (p.ndim > 1) is many] for many in (True, False))
    on_cpu = trained[0].device.type == "cpu"  # there, to compile a step takes seconds for each shape of a parameter
    optimizer: Optimizer = (Eager if on_cpu else AdamW8bit)(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
    )
    return optimizer


class MuonWithAdamW(Optimizer):
    """Two optimisers that step together and are saved together.

    Muon trains matrices that map one hidden space to another; AdamW trains embeddings, LM head, gains and biases. Both
    use the same learning rate.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        heads = [part.get_output_embeddings() for part in model.modules() if isinstance(part, PreTrainedModel)]
        outside = {id(weight) for weight in [*tables, *(head.weight for head in heads if head is not None)]}
        trained: list[torch.Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in outside]
        tables = [p for p in trained if p.ndim > 1 and not any(p is matrix for matrix in matrices)]
        vectors = [p for p in trained if p.ndim < 2]
        rate, decay = config.learning_rate, config.weight_decay
        products = product_dtype(trained[0].device)
        self.muon = Muon(matrices, products, lr=rate, weight_decay=decay, momentum=config.muon_momentum)
        self.adamw = AdamW(
            [{"params": tables, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=rate,
            betas=(config.adam_beta1, config.adam_beta2),
        )
        self.parts = (self.muon, self.adamw)
        super().__init__(matrices + tables + vectors, {"lr": rate})
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]  # the scheduler writes into these

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step both optimisers."""
        loss = closure() if closure is not None else None
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of both."""
        self.muon.load_state_dict(dict(state_dict["muon"]))
        self.adamw.load_state_dict(dict(state_dict["adamw"]))
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]
