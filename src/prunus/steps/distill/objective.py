"""What a student is to minimise: the teacher's distribution, the text, and on the way there the teacher's states.

N tokens, V vocabulary
"""

from __future__ import annotations

import torch
from transformers import GenerationConfig, PreTrainedModel

from prunus.kd.online import Guided
from prunus.kd.vocabulary import SharedTokens
from prunus.models.lineage import Lineage
from prunus.steps.distill.cached import CachedDistillation
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.states import StatesLoss
from prunus.training.objectives import CrossEntropy, Objective


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


class Distillation(Guided):
    """A student beside its frozen teacher, whose hidden states may be compared, and which may read what it writes.

    Args:
        student: The model that is trained.
        teacher: Frozen.
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
        super().__init__(student, teacher, config, shared)
        self.own, self.states = config, states

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """See `Objective`."""
        if self.own.data == "student":
            input_ids, weights = written(self.model, input_ids, self.own.prompt_tokens)
        loss, ours, theirs = self.guided(input_ids, weights, position_ids, self.states is not None)
        if self.states is None:
            return loss
        error = self.states(ours.hidden_states, theirs.hidden_states)
        self.figures["states"] = error.detach()
        return loss + self._alpha(loss, error) * self.own.states.share_at(progress) * error

    def _alpha(self, loss: torch.Tensor, error: torch.Tensor) -> torch.Tensor | float:
        """The weight of the states' error; dynamic, α = L_logits / L_is."""
        weight = self.own.states.weight
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
