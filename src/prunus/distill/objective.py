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

from prunus.distill import losses
from prunus.distill.config import DistillConfig
from prunus.distill.rows import Divergence, by_autograd, forward_kl_rows, top_k_rows
from prunus.distill.states import StatesLoss
from prunus.distill.vocabulary import SharedTokens
from prunus.models.head import Head, check_head, read_head
from prunus.models.lineage import Lineage
from prunus.training.head import buffer, compute_dtype, head_loss, products
from prunus.training.objectives import CrossEntropy, Objective, counted, cross_entropy_rows, next_tokens, weighted

_NOTHING = 1e-12  # what weights sum to at least: a portion in which nothing counts has a loss of 0


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
        teacher: Frozen; None for cross-entropy.
        lineage: What of the teacher the student is made of, where `config.reads_lineage`.
        shared: The tokens that both have, where their vocabularies differ.

    Raises:
        RecipeError: States of a layer are to be compared that is not there.
    """
    if teacher is None:
        return CrossEntropy(student)
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
        total = head_loss(hidden, head, tokens)
        share = 1.0 if chosen is None else chosen.sum() / input_ids.numel()
        whole = tokens.counted.clamp_min(_NOTHING)
        loss = total / whole * share
        self.figures = {name: value / whole for name, value in tokens.sums.items()}
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


class TeacherTokens:
    """A divergence from the teacher as a `TokenLoss`; the teacher's logits exist for one chunk at a time as well.

    Args:
        config: Loss, temperature, mixture, weights.
        hidden: The teacher's last hidden states [N, D].
        head: The teacher's.
        labels: The text's next tokens [N]; -100 where there is none.
        weights: [N], or None for all alike.

    Attributes:
        counted: What the weights of all tokens sum to, known when all are through.
        sums: Weighted sums by name: the divergence and, at temperature 1, the cross-entropy.
    """

    def __init__(
        self,
        config: DistillConfig,
        hidden: torch.Tensor,
        head: Head,
        labels: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> None:
        dtype = compute_dtype(hidden)
        self.config, self.hidden, self.labels, self.weights = config, hidden.to(dtype), labels, weights
        self.head = Head(head.weight.to(dtype), head.bias, head.scale, head.cap)
        self.logits = buffer(self.hidden, len(head.weight))
        self.start = 0
        self.divergence = divergence_of(config)
        self.counted = torch.zeros((), dtype=self.logits.dtype, device=hidden.device)
        self.sums = {config.loss: torch.zeros_like(self.counted)}

    def begin(self, tokens: slice) -> None:
        """The teacher's logits of the chunk."""
        self.start = tokens.start
        products(self.hidden[tokens], self.head, self.logits[: tokens.stop - tokens.start])

    def rows(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `TokenLoss`."""
        teacher = self.logits[tokens.start - self.start : tokens.stop - self.start]
        weights = self._weights(tokens, teacher)
        mixed = self.config.cross_entropy_weight
        text = logits.clone() if mixed else logits[:0]
        losses = self.divergence(logits, teacher)
        self.sums[self.config.loss] += losses.sum() if weights is None else losses @ weights
        if mixed:
            losses = losses + mixed * cross_entropy_rows(text, self.labels[tokens])
            logits.add_(text, alpha=mixed)
        self.counted += len(logits) if weights is None else weights.sum()
        return weighted(losses, logits, weights)

    def _weights(self, tokens: slice, teacher: torch.Tensor) -> torch.Tensor | None:
        """What each token counts [R]: as given, times the teacher's entropy where that is asked; None if all alike."""
        given = None if self.weights is None else self.weights[tokens].to(teacher.dtype)
        if self.config.token_weights == "uniform":
            return given
        log_t = torch.log_softmax(teacher, dim=-1)
        entropy = -torch.linalg.vecdot(log_t.exp(), log_t)
        return entropy if given is None else given * entropy


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
