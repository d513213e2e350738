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
    guide = teacher
    basis = torch.from_numpy(lineage.basis).to(guide.device) if lineage is not None else None

    def objective(model: PreTrainedModel, input_ids: torch.Tensor, progress: float) -> torch.Tensor:
        states = basis is not None and config.states is not None
        with torch.no_grad():
            wanted = guide(input_ids=input_ids, use_cache=False, output_hidden_states=states)
        found = model(input_ids=input_ids, use_cache=False, output_hidden_states=states)
        loss = forward_kl(found.logits, wanted.logits, config.temperature)
        if basis is None or lineage is None or config.states is None:
            return loss
        errors = [
            stream_error(found.hidden_states[j], wanted.hidden_states[i].float() @ basis)
            for j, i in enumerate(lineage.layers)
        ]
        return loss + config.states.weight_at(progress) * torch.stack(errors).mean()

    return objective
