"""The loss of distillation: the divergence from the teacher, the text's cross-entropy, and a loss on hidden states.

N tokens, V vocabulary
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from prunus.kd.online import Guided
from prunus.kd.vocabulary import SharedTokens
from prunus.models.lineage import Lineage
from prunus.steps.distill.cached import CachedDistillation
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.rollouts import Rollouts, sample_continuations
from prunus.steps.distill.states import StatesLoss
from prunus.training.objectives import CrossEntropy, Objective


def make_objective(
    config: DistillConfig,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    lineage: Lineage | None,
    shared: SharedTokens | None = None,
) -> Objective:
    """Build the objective for the given options.

    Args:
        config: The options.
        student: The model to train.
        teacher: The frozen teacher; None for cross-entropy and for stored targets.
        lineage: Which parts of the teacher the student has, if `config.reads_lineage`.
        shared: The tokens that both have, if their vocabularies differ.

    Raises:
        RecipeError: A pair of `states.layers` names a layer that does not exist.
    """
    if teacher is None:
        return CachedDistillation(student, config) if config.has_teacher else CrossEntropy(student)
    if not config.compares_states:
        return Distillation(student, teacher, config, shared=shared)
    config_s, config_t = (model.config.get_text_config() for model in (student, teacher))
    kept = lineage.layers if lineage is not None else []
    basis = torch.from_numpy(lineage.basis) if lineage is not None else None
    pairs = config.states.pairs(config_t.num_hidden_layers, config_s.num_hidden_layers, kept)
    states = StatesLoss(config.states, pairs, basis, (config_t.hidden_size, config_s.hidden_size))
    return Distillation(student, teacher, config, states.to(student.device), shared)


class Distillation(Guided):
    """Distillation with the teacher in memory, from the corpus or from text that the student samples.

    Args:
        student: The model that is trained.
        teacher: The frozen teacher.
        config: The options.
        states: The loss on hidden states; None if they are not compared.
        shared: The tokens that both have, if their vocabularies differ.
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
        self.distill_config, self.states = config, states

    def forward(
        self,
        input_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """See `Objective`."""
        figures: dict[str, torch.Tensor] = {}
        if self.distill_config.samples_at(progress):
            rollouts = self._rollouts(input_ids, progress)
            input_ids, weights, figures = rollouts.ids, rollouts.weights, rollouts.figures
            position_ids = None  # a continuation is one document with its prompt
        loss, output_s, output_t = self.guided(input_ids, weights, position_ids, self.states is not None)
        self.figures |= figures
        if self.states is None:
            return loss
        error = self.states(output_s.hidden_states, output_t.hidden_states)
        self.figures["states"] = error.detach()
        return loss + self._alpha(loss, error) * self.distill_config.states.decay_factor(progress) * error

    def _rollouts(self, input_ids: torch.Tensor, progress: float) -> Rollouts:
        """Continuations of the sequences' first tokens by the student."""
        options = self.distill_config
        new = options.rollouts.new_tokens(input_ids.shape[1] - options.prompt_tokens, progress)
        return sample_continuations(self.model, input_ids, options.prompt_tokens, new, options.rollouts.cut_repetition)

    def _alpha(self, loss: torch.Tensor, error: torch.Tensor) -> torch.Tensor | float:
        """The weight of the loss on hidden states; if dynamic, α = L_logits / L_is."""
        weight = self.distill_config.states.weight
        return (loss / error.clamp_min(1e-12)).detach() if weight == "dynamic" else float(weight)
