"""What a student is to minimise: the teacher's distribution, the text, and on the way there the teacher's states.

N tokens, V vocabulary
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from prunus.distill import rows
from prunus.distill.cached import CachedDistillation
from prunus.distill.config import DistillConfig
from prunus.distill.guided import GuidedTokens, mean_loss
from prunus.distill.rows import Divergence
from prunus.distill.states import StatesLoss
from prunus.distill.vocabulary import SharedTokens
from prunus.models.head import Head, check_head, read_head
from prunus.models.lineage import Lineage
from prunus.training.head import buffer, compute_dtype, products
from prunus.training.objectives import CrossEntropy, Objective, counted, next_tokens


def make_objective(
    config: DistillConfig,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    lineage: Lineage | None,
    shared: SharedTokens | None = None,
) -> Objective:
    """The objective that the options ask for.

    Args:
        config: The options.
        student: The model to train.
        teacher: Frozen; None for cross-entropy and for targets that are kept.
        lineage: What of the teacher the student is made of, where `config.reads_lineage`.
        shared: The tokens that both have, where their vocabularies differ.

    Raises:
        RecipeError: States of a layer are to be compared that is not there.
    """
    if teacher is None:
        return CachedDistillation(student, config) if config.has_teacher else CrossEntropy(student)
    if not config.compares_states:
        return Distillation(student, teacher, config, shared=shared)
    ours, theirs = (model.config.get_text_config() for model in (student, teacher))
    kept = lineage.layers if lineage is not None else []
    basis = torch.from_numpy(lineage.basis) if lineage is not None else None
    pairs = config.states.pairs(theirs.num_hidden_layers, ours.num_hidden_layers, kept)
    states = StatesLoss(config.states, pairs, basis, (theirs.hidden_size, ours.hidden_size))
    return Distillation(student, teacher, config, states.to(student.device), shared)


class Distillation(Objective):
    """A student beside its frozen teacher.

    Args:
        student: The model that is trained.
        teacher: Frozen; no part of the module's parameters, and so of no checkpoint.
        config: The options.
        states: What compares hidden states, if they are.
        shared: The tokens that both have, where their vocabularies differ.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        config: DistillConfig,
        states: StatesLoss | None = None,
        shared: SharedTokens | None = None,
    ) -> None:
        super().__init__(student)
        check_head(teacher)
        self.options, self.states = config, states  # `config` would be taken for a model's
        self.shared = shared
        self.outside: torch.Tensor | None = None  # the teacher's mass on what the student has no token for
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
        if self.options.data == "student":
            input_ids, weights = written(self.model, input_ids, self.options.prompt_tokens)
        asked = {"position_ids": position_ids, "use_cache": False, "output_hidden_states": self.states is not None}
        shared, labels = self.shared, next_tokens(input_ids).flatten()
        theirs = self.guide(input_ids=input_ids if shared is None else shared.to_teacher(input_ids), **asked)
        ours = self.model.base_model(input_ids=input_ids, **asked)
        chosen, (hidden, known, labels) = counted(
            weights,
            ours.last_hidden_state.flatten(0, 1),
            theirs.last_hidden_state.flatten(0, 1),
            labels if shared is None else shared.labels(labels),
        )
        head, teacher_head = read_head(self.model), read_head(self.guide.model)
        if shared is not None:
            if self.outside is None:
                self.outside = shared.outside(known, teacher_head)
            head, teacher_head = shared.heads(head, teacher_head)
        tokens = TeacherTokens(self.options, known, teacher_head, labels, chosen)
        loss, self.figures = mean_loss(hidden, head, tokens, input_ids.numel())
        if self.outside is not None:
            self.figures["outside_vocabulary"] = self.outside
        if self.states is None:
            return loss
        error = self.states(ours.hidden_states, theirs.hidden_states)
        self.figures["states"] = error.detach()
        return loss + self._alpha(loss, error) * self.options.states.share_at(progress) * error

    def _alpha(self, loss: torch.Tensor, error: torch.Tensor) -> torch.Tensor | float:
        """The weight of the states' error; dynamic, α = L_logits / L_is."""
        weight = self.options.states.weight
        return (loss / error.clamp_min(1e-12)).detach() if weight == "dynamic" else float(weight)


@torch.no_grad()
def written(model: PreTrainedModel, input_ids: torch.Tensor, prompt: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a student writes after the first tokens of sequences, at temperature 1, to their full length.

    Generalised knowledge distillation with a student's share of 1 (Agarwal et al. 2024, arXiv 2306.13649, algorithm 1);
    no gradient flows through the writing.

    Args:
        model: The student.
        input_ids: [B, S].
        prompt: How many tokens of each it goes on from.

    Returns:
        The sequences [B, S], and their weights [B, S], of mean 1: those that predict what was written count.
    """
    new, training = input_ids.shape[1] - prompt, model.training
    options = GenerationConfig(
        do_sample=True, top_k=0, top_p=1.0, max_new_tokens=new, min_new_tokens=new, eos_token_id=None, pad_token_id=0
    )
    prompts = input_ids[:, :prompt]
    model.eval()
    sequences = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=options)
    model.train(training)
    weights = torch.zeros(input_ids.shape, device=input_ids.device)
    weights[:, prompt - 1 : -1] = input_ids.shape[1] / new
    return sequences, weights


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

    def weights_of(self, tokens: slice) -> torch.Tensor | None:
        """As given, times the teacher's entropy where that is asked for."""
        given = super().weights_of(tokens)
        if self.config.token_weights == "uniform":
            return given
        log_t = torch.log_softmax(self._teacher(tokens), dim=-1)
        entropy = -torch.linalg.vecdot(log_t.exp(), log_t)
        return entropy if given is None else given * entropy

    def _teacher(self, tokens: slice) -> torch.Tensor:
        """The teacher's logits of a block [R, V]."""
        return self.logits[tokens.start - self.start : tokens.stop - self.start]


def divergence_of(config: DistillConfig) -> Divergence:
    """The rows of the loss that the options name."""
    if config.loss in ("mse", "cosine"):
        return rows.mean_squared_error_rows if config.loss == "mse" else rows.cosine_rows
    if config.top_k is not None:
        return partial(rows.top_k_rows, temperature=config.temperature, count=config.top_k)
    if config.loss == "jensen_shannon":
        return partial(rows.jensen_shannon_rows, temperature=config.temperature, beta=config.beta)
    between = {
        "forward_kl": rows.forward_kl_rows,
        "reverse_kl": rows.reverse_kl_rows,
        "total_variation": rows.total_variation_rows,
    }
    return partial(between[config.loss], temperature=config.temperature)
