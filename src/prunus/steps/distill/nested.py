"""Distillation of a nest: a step trains the largest size and some of those inside it, and asks the teacher once.

Every size's loss is that of an ordinary student of its shape. The backward pass of a smaller size runs right after its
forward pass, so that the activations of one size at a time are in memory; its gradients wait for those of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.console import Console
from prunus.kd.online import Guide, Guided
from prunus.kd.vocabulary import SharedTokens
from prunus.models.lineage import Lineage
from prunus.models.nest import Nest, Nested, own_norms, write_nest
from prunus.models.size_view import SizeView
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from prunus.training.objectives import Objective


class NestObjective(Objective):
    """The losses of the sizes of a nest, as their weighted mean.

    Args:
        largest: The loss of the largest size.
        smaller: The other sizes with their losses, in descending order.
        name: The name of the largest size.
        config: The options.
    """

    has_head = False  # `largest` has compared it

    def __init__(
        self, largest: Objective, smaller: Sequence[tuple[SizeView, Objective]], name: str, config: DistillConfig
    ) -> None:
        super().__init__(largest.model)
        self._largest, self._smaller = (largest,), tuple(smaller)  # tuples, which nn.Module neither trains nor saves
        self._name, self._distill = name, config
        # the Trainer decays no weight with such a name
        self.own_norm = nn.ParameterList([gain for view, _ in smaller for gain in view.norms.values()])

    @property
    def companions(self) -> list[nn.Module]:
        """The teacher."""
        return self._largest[0].companions

    def compile_loss(self, tokens: int, runtime: Runtime, console: Console) -> None:
        """See `Objective`; the sizes share what is compiled for the largest."""
        self._largest[0].compile_loss(tokens, runtime, console)
        for _, objective in self._smaller:
            if isinstance(objective, Guided) and isinstance(self._largest[0], Guided):
                objective.compare = self._largest[0].compare

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
        **targets: torch.Tensor,
    ) -> torch.Tensor:
        """See `Objective`; `targets` are stored predictions of the teacher."""
        inputs = {"input_ids": input_ids, "weights": weights, "position_ids": position_ids, "progress": progress}
        inputs |= targets
        nest, largest = self._distill.nest, self._largest[0]
        drawn = nest.drawn(self._smaller, round(progress * self._distill.steps))
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        whole = nest.weight(self._name) + sum(nest.weight(view.name) for view, _ in drawn)
        gradients: list[torch.Tensor | None] = [None] * len(parameters)
        loss, figures = torch.zeros((), device=input_ids.device), dict[str, torch.Tensor]()
        for view, objective in drawn:
            share = nest.weight(view.name) / whole
            one, theirs = view.run(partial(_gradients, objective, inputs, parameters))
            figures[f"{view.name}_loss"] = one
            loss = loss + share * one
            gradients = [_sum(total, part, share) for total, part in zip(gradients, theirs, strict=True)]
        own = largest(**inputs)
        self.figures = {**largest.figures, **figures}
        ours = len(self.own_norm)  # they are last; several processes must reduce the same gradients in every step
        gradients[-ours:] = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters[-ours:], gradients[-ours:], strict=True)
        ]
        return nest.weight(self._name) / whole * own + _WithGradients.apply(loss, gradients, *parameters)  # type: ignore[no-untyped-call]

    def norms(self) -> dict[str, Any]:
        """The gains and biases of the smaller sizes' norms, by SIZE/NAME."""
        return {
            f"{view.name}/{name}": gain.detach().float().cpu().numpy()
            for view, _ in self._smaller
            for name, gain in view.norms.items()
        }


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, gradients: list[torch.Tensor | None], *_: torch.Tensor) -> torch.Tensor:
        """The loss; the parameters that the gradients belong to follow."""
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *scales: torch.Tensor) -> Any:
        """The gradients, times that of the loss."""
        gradients, ctx.gradients = ctx.gradients, None  # they are scaled in place, and used once
        return None, None, *(None if part is None else part.mul_(scales[0]) for part in gradients)


class _Remembered(Guide):
    """A teacher that answers a question that is asked again from memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._asked: torch.Tensor | None = None
        self._answer: Any = None

    def forward(self, **inputs: Any) -> Any:
        """See `Guide`; `input_ids` are compared by identity."""
        if inputs["input_ids"] is not self._asked:
            self._asked, self._answer = inputs["input_ids"], super().forward(**inputs)
        return self._answer


def make_nested(
    largest: Objective,
    nest: Nest,
    config: DistillConfig,
    teacher: PreTrainedModel | None,
    lineage: Lineage | None,
    shared: SharedTokens | None,
) -> NestObjective:
    """Build the objective of a nest around that of its largest size.

    Args:
        largest: The objective of the largest size.
        nest: The nest.
        config: The options.
        teacher: The frozen teacher; None for cross-entropy and for stored targets.
        lineage: The lineage of the largest size, if `config.reads_lineage`.
        shared: The tokens that nest and teacher have, if their vocabularies differ.
    """
    smaller = []
    for size in nest.smaller:
        view = SizeView(largest.model, nest.largest.shape, nest.folder.config, size, own_norms(nest, size))
        own = None if lineage is None else _lineage(lineage, size)
        made = partial(make_objective, config, teacher=teacher, lineage=own, shared=shared)
        smaller.append((view, view.run(made)))
    if isinstance(largest, Guided):
        guide = _Remembered(largest.guide.model)
        for objective in (largest, *(one for _, one in smaller)):
            assert isinstance(objective, Guided)
            objective.ask(guide)
    return NestObjective(largest, smaller, nest.largest.name, config)


def write_trained(objective: NestObjective, nest: Nest, out: Path) -> None:
    """Make the trained checkpoint in `out` a nest again."""
    write_nest(out, nest.sizes, objective.norms())


def _lineage(largest: Lineage, size: Nested) -> Lineage:
    layers = [largest.layers[layer] for layer in size.layers]
    return Lineage(layers, largest.basis[:, : size.shape.hidden_size])


def _gradients(
    objective: Objective, inputs: dict[str, Any], parameters: Sequence[torch.Tensor], _: PreTrainedModel
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """The loss of a size, and its gradient by every parameter; None for those that it does not have."""
    loss = objective(**inputs)
    if not torch.is_grad_enabled():
        return loss.detach(), [None] * len(parameters)
    return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))


def _sum(total: torch.Tensor | None, part: torch.Tensor | None, share: float) -> torch.Tensor | None:
    """The sum of two gradients, the second times `share`; each may be missing. The first is changed in place."""
    if part is None:
        return total
    return part * share if total is None else total.add_(part, alpha=share)
