"""Objectives of preference methods: losses of answers' log-probabilities, which the fused LM head computes.

B items of a micro-batch, S sequence
"""

from __future__ import annotations

from inspect import signature

import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.models.head import read_head
from prunus.models.rewarding import rewards as judged
from prunus.steps.align import losses
from prunus.steps.align.config import AlignConfig
from prunus.training.log_probabilities import token_log_probs
from prunus.training.objectives import Objective, next_tokens


class Preference(Objective):
    """A model and its preference loss.

    Args:
        model: The model that is trained.
        config: The options.
    """

    def __init__(self, model: PreTrainedModel, config: AlignConfig) -> None:
        super().__init__(model)
        self.options = config  # named `config`, it would be taken for a model's
        self.kept: torch.Tensor  # for kto, saved in checkpoints: see `_baseline`
        self.register_buffer("kept", torch.zeros(4, dtype=torch.float64) if config.spec.learns == "labels" else None)

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        counts: torch.Tensor,
        rewards: torch.Tensor | None = None,
        reference: torch.Tensor | None = None,
        progress: float = 0.0,
    ) -> torch.Tensor:
        """The loss of a micro-batch; or, without `rewards`, the log-probability of each sequence's answer.

        Args:
            input_ids: The first sequences of all items, then the second ones, [2 B, S].
            counts: Whether the next token, which each predicts, belongs to the answer, [2 B, S].
            rewards: The rewards of the answers, [2 B].
            reference: Log-probabilities under the reference, [2 B].
            progress: Progress of training, 0 to 1.

        Returns:
            A scalar, the mean over items; or log-probabilities [2 B] in nats.
        """
        if rewards is None:
            return self.log_probs(input_ids, counts)
        if self.options.spec.learns == "labels":
            assert reference is not None
            return self._kto(input_ids, counts, rewards, reference, progress)
        log_probs, lengths = self.log_probs(input_ids, counts), counts.sum(dim=1)
        loss = self._pairs(log_probs, lengths, rewards, reference)
        return loss.mean()

    def log_probs(self, input_ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Log π of each sequence's answer in nats, [B]."""
        hidden = self.model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        places = counts.flatten().nonzero().squeeze(-1)
        labels = next_tokens(input_ids).flatten()[places]
        of_tokens = token_log_probs(hidden.flatten(0, 1)[places], read_head(self.model), labels)
        sums = torch.zeros(len(input_ids), dtype=of_tokens.dtype, device=of_tokens.device)
        return sums.index_add(0, places // input_ids.shape[1], of_tokens)

    def _pairs(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, rewards: torch.Tensor, reference: torch.Tensor | None
    ) -> torch.Tensor:
        """The loss of each pair, [B]."""
        options = self.options
        (chosen, rejected), (long, short) = log_probs.chunk(2), lengths.chunk(2)
        if reference is None:
            loss = pair_loss(options, chosen=chosen, rejected=rejected, chosen_lengths=long, rejected_lengths=short)
            margin, text = chosen / long - rejected / short, losses.sft(chosen, long)
        else:
            if options.per_token:
                log_probs, reference = log_probs / lengths, reference / lengths
                chosen, rejected = log_probs.chunk(2)
            gap = losses.gap(chosen, rejected, *reference.chunk(2))
            loss = pair_loss(options, gap=gap, reward_gap=rewards.chunk(2)[0] - rewards.chunk(2)[1])
            margin, text = options.beta * gap, -chosen
        terms = {options.method: loss, **({"sft": text} if options.sft_weight else {})}
        if options.method == "orpo":  # record the two terms of its loss
            terms = {"sft": text, "odds_ratio": losses.odds_ratio(-text, rejected / short)}
        self._note(margin, **terms)
        return loss + options.sft_weight * text if options.sft_weight else loss

    def _note(self, margin: torch.Tensor, **terms: torch.Tensor) -> None:
        """Store figures: the mean of each term of the loss [B], the mean margin, and the share of positive margins."""
        self.figures = {name: values.detach().mean() for name, values in terms.items()}
        self.figures |= {"margin": margin.detach().mean(), "accuracy": (margin.detach() > 0).float().mean()}

    def _kto(
        self,
        input_ids: torch.Tensor,
        counts: torch.Tensor,
        rewards: torch.Tensor,
        reference: torch.Tensor,
        progress: float,
    ) -> torch.Tensor:
        """KTO; its baseline uses the log-ratios of mismatched answers, the second half of a micro-batch."""
        half = len(input_ids) // 2
        matched = self.log_probs(input_ids[:half], counts[:half])
        with torch.no_grad():
            mismatched = self.log_probs(input_ids[half:], counts[half:])
        ratios = torch.cat([matched, mismatched]) - reference
        if self.options.per_token:
            ratios = ratios / counts.sum(dim=1).clamp_min(1)
        own, other = ratios[:half], ratios[half:].detach()
        desirable = rewards[:half] > 0
        options, baseline = self.options, self._baseline(other, progress)
        weights = (options.desirable_weight, options.undesirable_weight)
        loss = losses.kto(own, desirable, baseline.to(own.dtype), options.beta, *weights)
        self.figures = {
            "kto": loss.detach().mean(),
            "margin": torch.where(desirable, own, -own).detach().mean(),
            "baseline": baseline.float(),
        }
        return loss.mean()

    def _baseline(self, ratios: torch.Tensor, progress: float) -> torch.Tensor:
        """KTO's z: the mean over all items of the previous step, on all processes; 0 in the first, where π = π_ref.

        Deviation: the paper takes the mean of the same micro-batch, so that the result would depend on the micro-batch
        size. `kept` is [z, sum and count of log-ratios in this step, progress of this step].
        """
        if progress != self.kept[3].item():
            distributed.all_reduce([sums := self.kept[1:3].clone()])
            self.kept[0] = losses.kto_baseline(sums[:1] / sums[1]) if sums[1] else 0.0
            self.kept[1:] = torch.tensor([0.0, 0.0, progress], dtype=torch.float64)
        self.kept[1] += ratios.double().sum()
        self.kept[2] += len(ratios)
        return self.kept[0]


class Reward(Objective):
    """A reward model and its loss on pairs; an answer's reward is the model's output at its last token."""

    has_head = False

    def forward(  # type: ignore[override]
        self, input_ids: torch.Tensor, counts: torch.Tensor, rewards: torch.Tensor, progress: float = 0.0
    ) -> torch.Tensor:
        """The loss of a micro-batch; see `Preference.forward`."""
        places = torch.arange(counts.shape[1], device=counts.device)
        last = (counts * places).amax(dim=1) + 1  # the last token of the answer
        chosen, rejected = judged(self.model, input_ids, last).chunk(2)
        ahead = (chosen - rejected).detach()
        loss = losses.bradley_terry(chosen, rejected).mean()
        self.figures = {
            "bradley_terry": loss.detach(),
            "margin": ahead.mean(),
            "accuracy": (ahead > 0).float().mean(),
        }
        return loss


def pair_loss(config: AlignConfig, **tensors: torch.Tensor) -> torch.Tensor:
    """The loss of each pair [B]: the method's function in `losses`, called with the tensors and options it names."""
    formula = getattr(losses, config.method)
    given = {**dict(config), **tensors}
    return formula(**{name: given[name] for name in signature(formula).parameters})
