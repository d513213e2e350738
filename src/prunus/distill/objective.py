"""What a student is to minimise: the teacher's distribution, and on the way there its residual stream."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from prunus.distill.config import DistillConfig
from prunus.distill.losses import forward_kl, stream_error
from prunus.models.lineage import Lineage
from prunus.training.loop import Objective
from prunus.training.objectives import cross_entropy


def make_objective(config: DistillConfig, teacher: PreTrainedModel | None, lineage: Lineage | None) -> Objective:
    """The objective that the options ask for.

    Args:
        config: The options.
        teacher: Frozen; None for cross-entropy.
        lineage: What of the teacher the student is made of, where states are compared.
    """
    if teacher is None:
        return cross_entropy
    guide, compared = teacher, lineage if config.compares_states else None
    basis = torch.from_numpy(compared.basis).to(guide.device) if compared is not None else None

    def objective(model: PreTrainedModel, input_ids: torch.Tensor, progress: float) -> torch.Tensor:
        states = compared is not None
        with torch.no_grad():
            wanted = guide(input_ids=input_ids, use_cache=False, output_hidden_states=states)
        found = model(input_ids=input_ids, use_cache=False, output_hidden_states=states)
        loss = forward_kl(found.logits, wanted.logits, config.temperature)
        if compared is None:
            return loss
        errors = [
            stream_error(found.hidden_states[j], wanted.hidden_states[i].float() @ basis)
            for j, i in enumerate(compared.layers)
        ]
        return loss + config.states_weight_at(progress) * torch.stack(errors).mean()

    return objective
