"""Distillation with the teacher's forward pass in each training step (`online`).

N tokens, V vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from prunus.console import Console
from prunus.kd.config import GuideConfig
from prunus.kd.divergences import divergence_of, may_compile
from prunus.kd.guided import GuidedTokens, mean_loss
from prunus.kd.kernels import Divergence
from prunus.kd.vocabulary import SharedTokens
from prunus.models.head import Head, check_head, read_head
from prunus.runtime import Runtime
from prunus.training.compiled import compiled
from prunus.training.head import buffer, compute_dtype, head_logits
from prunus.training.objectives import Objective, next_tokens, with_weight


class Guided(Objective):
    """A student trained to match its frozen teacher's predictions at every token with a weight.

    Args:
        student: The trained model.
        teacher: The frozen teacher; not among the module's parameters, and thus in no checkpoint.
        config: The options.
        shared: The common tokens, if the vocabularies differ.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        config: GuideConfig,
        shared: SharedTokens | None = None,
    ) -> None:
        super().__init__(student)
        check_head(teacher)
        self.options, self.shared = config, shared  # the Trainer would read `config` as a model's
        self.outside: torch.Tensor | None = None  # the teacher's mass on tokens that the student does not have
        self.compare = divergence_of(config)
        self._guides = (Guide(teacher),)  # a tuple, which nn.Module neither trains nor saves

    @property
    def guide(self) -> Guide:
        """The teacher."""
        return self._guides[0]

    def ask(self, guide: Guide) -> None:
        """Ask this teacher from now on."""
        self._guides = (guide,)

    @property
    def companions(self) -> list[nn.Module]:
        """The teacher."""
        return [self.guide]

    def compile_loss(self, tokens: int, runtime: Runtime, console: Console) -> None:
        """See `Objective`."""
        if may_compile(self.options):
            table = read_head(self.model).weight
            vocabulary = len(table) if self.shared is None else len(self.shared.ours)
            logits = tokens * vocabulary
            self.compare = compiled(self.compare, vocabulary, logits, runtime, table.device, console)

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """See `Objective`."""
        return self.guided(input_ids, weights, position_ids)[0]

    def guided(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        with_states: bool = False,
    ) -> tuple[torch.Tensor, BaseModelOutput, BaseModelOutput]:
        """The loss of a micro-batch, and the outputs of student and teacher, with all hidden states on request."""
        options = {"position_ids": position_ids, "use_cache": False, "output_hidden_states": with_states}
        shared, labels = self.shared, next_tokens(input_ids).flatten()
        theirs = self.guide(input_ids=input_ids if shared is None else shared.to_teacher(input_ids), **options)
        ours = self.model.base_model(input_ids=input_ids, **options)
        chosen, (hidden, known, labels) = with_weight(
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
        tokens = TeacherTokens(self.options, self.compare, known, teacher_head, labels, chosen, shared)
        loss, self.figures = mean_loss(hidden, head, tokens, input_ids.numel())
        if self.outside is not None:
            self.figures["outside_vocabulary"] = self.outside
        return loss, ours, theirs


class Guide(nn.Module):
    """A teacher's base model as a module whose only entry is `forward`, which sharding requires."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, **inputs: Any) -> BaseModelOutput:
        """The base model's output."""
        return self.model.base_model(**inputs)


class TeacherTokens(GuidedTokens):
    """The divergence from the teacher as a `TokenLoss`; the teacher's logits, too, exist for one chunk at a time.

    Args:
        config: Temperature, mixture, weights.
        compare: The divergence.
        hidden: The teacher's last hidden states [N, D].
        head: The teacher's head.
        labels: The next tokens of the text [N]; -100 where there is none.
        weights: Token weights [N]; None for equal weights.
        shared: The common tokens, if the vocabularies differ.
    """

    def __init__(
        self,
        config: GuideConfig,
        compare: Divergence,
        hidden: torch.Tensor,
        head: Head,
        labels: torch.Tensor,
        weights: torch.Tensor | None,
        shared: SharedTokens | None = None,
    ) -> None:
        super().__init__(config, hidden, labels, weights)
        dtype = compute_dtype(hidden)
        self.hidden = hidden.to(dtype)
        self.head = Head(head.weight.to(dtype), head.bias, head.scale, head.cap)
        self.logits = buffer(self.hidden, len(head.weight))
        self.known = self.logits  # of the common tokens
        self.shared = shared
        self.start = 0
        self.compare = compare

    def begin(self, tokens: slice) -> None:
        """The teacher's logits of the chunk."""
        self.start = tokens.start
        logits = head_logits(self.hidden[tokens], self.head, self.logits[: tokens.stop - tokens.start])
        self.known = logits if self.shared is None else self.shared.common(logits)

    def divergence(self, tokens: slice, logits: torch.Tensor) -> torch.Tensor:
        """See `GuidedTokens`."""
        return self.compare(logits, self._teacher(tokens))

    def weights_of(self, tokens: slice) -> torch.Tensor | None:
        """The given weights, multiplied by the teacher's entropy for `teacher_entropy`."""
        given = super().weights_of(tokens)
        if self.config.token_weights == "uniform":
            return given
        log_t = torch.log_softmax(self._teacher(tokens), dim=-1)
        entropy = -torch.linalg.vecdot(log_t.exp(), log_t)
        return entropy if given is None else given * entropy

    def _teacher(self, tokens: slice) -> torch.Tensor:
        """The teacher's logits of a block [R, V]."""
        return self.known[tokens.start - self.start : tokens.stop - self.start]
