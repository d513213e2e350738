"""What a student is to minimise: the teacher's distribution, the text, and on the way there the teacher's states.

N tokens, V vocabulary
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from prunus.distill import losses
from prunus.distill.cached import CachedDistillation
from prunus.distill.config import DistillConfig
from prunus.distill.guided import GuidedTokens, mean_loss
from prunus.distill.rows import Divergence, by_autograd, forward_kl_rows, top_k_rows
from prunus.distill.states import StatesLoss
from prunus.models.head import Head, check_head, read_head
from prunus.models.lineage import Lineage
from prunus.training.head import buffer, compute_dtype, products
from prunus.training.objectives import CrossEntropy, Objective, counted, next_tokens


def make_objective(
    config: DistillConfig, student: PreTrainedModel, teacher: PreTrainedModel | None, lineage: Lineage | None
) -> Objective:
    """The objective that the options ask for.

    Args:
        config: The options.
        student: The model to train.
        teacher: Frozen; None for cross-entropy and for targets that are kept.
        lineage: What of the teacher the student is made of, where `config.reads_lineage`.

    Raises:
        RecipeError: States of a layer are to be compared that is not there.
    """
    if teacher is None:
        return CachedDistillation(student, config) if config.has_teacher else CrossEntropy(student)
    if not config.compares_states:
        return Distillation(student, teacher, config)
    ours, theirs = (model.config.get_text_config() for model in (student, teacher))
    kept = lineage.layers if lineage is not None else []
    basis = torch.from_numpy(lineage.basis) if lineage is not None else None
    pairs = config.states.pairs(theirs.num_hidden_layers, ours.num_hidden_layers, kept)
    states = StatesLoss(config.states, pairs, basis, (theirs.hidden_size, ours.hidden_size))
    return Distillation(student, teacher, config, states.to(student.device))


class Distillation(Objective):
    """A student beside its frozen teacher.

    Args:
        student: The model that is trained.
        teacher: Frozen; no part of the module's parameters, and so of no checkpoint.
        config: The options.
        states: What compares hidden states, if they are.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        config: DistillConfig,
        states: StatesLoss | None = None,
    ) -> None:
        super().__init__(student)
        check_head(teacher)
        self.options, self.states = config, states  # `config` would be taken for a model's
        self._guides = (Guide(teacher),)  # a tuple, which nn.Module neither trains nor saves

    @property
    def guide(self) -> Guide:
        """The teacher."""
        return self._guides[0]

    @property
    def companions(self) -> list[nn.Module]:
        """The teacher."""
        return [self.guide]

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """See `Objective`."""
        asked = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
        asked["output_hidden_states"] = self.states is not None
        theirs = self.guide(**asked)
        ours = self.model.base_model(**asked)
        chosen, (hidden, known, labels) = counted(
            weights,
            ours.last_hidden_state.flatten(0, 1),
            theirs.last_hidden_state.flatten(0, 1),
            next_tokens(input_ids).flatten(),
        )
        tokens = TeacherTokens(self.options, known, read_head(self.guide.model), labels, chosen)
        loss, self.figures = mean_loss(hidden, read_head(self.model), tokens, input_ids.numel())
        if self.states is None:
            return loss
        error = self.states(ours.hidden_states, theirs.hidden_states)
        self.figures["states"] = error.detach()
        return loss + self._alpha(loss, error) * self.options.states.share_at(progress) * error

    def _alpha(self, loss: torch.Tensor, error: torch.Tensor) -> torch.Tensor | float:
        """The weight of the states' error; dynamic, α = L_logits / L_is."""
        weight = self.options.states.weight
        return (loss / error.clamp_min(1e-12)).detach() if weight == "dynamic" else float(weight)


class Guide(nn.Module):
    """A teacher without its head, whose forward is all that is called of it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, **inputs: Any) -> BaseModelOutput:
        """What the base model gives."""
        return self.model.base_model(**inputs)


class TeacherTokens(GuidedTokens):
    """A divergence from the teacher as a `TokenLoss`; the teacher's logits exist for one chunk at a time as well.

    Args:
        config: Loss, temperature, mixture, weights.
        hidden: The teacher's last hidden states [N, D].
        head: The teacher's.
        labels: The text's next tokens [N]; -100 where there is none.
        weights: [N], or None for all alike.
    """

    def __init__(
        self,
        config: DistillConfig,
        hidden: torch.Tensor,
        head: Head,
        labels: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> None:
        super().__init__(config, hidden, labels, weights)
        dtype = compute_dtype(hidden)
        self.hidden = hidden.to(dtype)
        self.head = Head(head.weight.to(dtype), head.bias, head.scale, head.cap)
        self.logits = buffer(self.hidden, len(head.weight))
        self.start = 0
        self.compare = divergence_of(config)

    def begin(self, tokens: slice) -> None:
        """The teacher's logits of the chunk."""
        self.start = tokens.start
        products(self.hidden[tokens], self.head, self.logits[: tokens.stop - tokens.start])

    def divergence(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `GuidedTokens`."""
        return self.compare(logits, self._teacher(tokens))

    def weights_of(self, tokens: slice) -> torch.Tensor:
        """As given, times the teacher's entropy where that is asked for."""
        given = super().weights_of(tokens)
        if self.config.token_weights == "uniform":
            return given
        log_t = torch.log_softmax(self._teacher(tokens), dim=-1)
        return given * -torch.linalg.vecdot(log_t.exp(), log_t)

    def _teacher(self, tokens: slice) -> torch.Tensor:
        """The teacher's logits of a block [R, V]."""
        return self.logits[tokens.start - self.start : tokens.stop - self.start]


def divergence_of(config: DistillConfig) -> Divergence:
    """The rows of the loss that the options name."""
    temperature = config.temperature
    if config.loss == "forward_kl":
        if config.top_k is not None:
            return partial(top_k_rows, temperature=temperature, count=config.top_k)
        return partial(forward_kl_rows, temperature=temperature)
    if config.loss == "jensen_shannon":
        return by_autograd(partial(losses.jensen_shannon, temperature=temperature, beta=config.beta))
    if config.loss in ("mse", "cosine"):
        return by_autograd(losses.mean_squared_error if config.loss == "mse" else losses.cosine_distance)
    between = {"reverse_kl": losses.reverse_kl, "total_variation": losses.total_variation}
    return by_autograd(partial(between[config.loss], temperature=temperature))
