"""Figures of a model on held-out text, window by window, compared with its teacher.

B batch, S sequence, V vocabulary, C positions whose logits exist at a time
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from prunus.data.windows import Window
from prunus.errors import ModelError
from prunus.inference.config import LOGIT_BYTES
from prunus.models.finite import not_finite
from prunus.models.head import Head, check_head, read_head

COLUMNS = ("tokens", "bytes", "nll", "teacher_nll", "kl", "agreed", "variation")
"""Sums over a window: predicted tokens, their bytes, negative log-likelihood by the model and by its teacher (nats),
KL(teacher ‖ model) (nats), the number of tokens at which both have the same top-1 prediction, and the total variation
½ Σ_v |p_t - p_s|, the probability that speculative sampling rejects a token of the model (arXiv 2211.17192, thm. 3.5).
"""

FIGURES = len(COLUMNS) - 2
"""The number of columns that a model is run for: those from `nll` on."""


def batches(windows: list[Window], size: int) -> Iterator[list[int]]:
    """Numbers of windows in batches of similar length, longest first, to reduce padding."""
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i].ids))
    for first in range(0, len(order), size):
        yield order[first : first + size]


def padded(windows: list[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of `windows`, padded on the right, and which of them are predicted: [B, S] each.

    Causal models do not attend to padding on the right, so no attention mask is needed.
    """
    length = max(len(window.ids) for window in windows)
    ids = np.zeros((len(windows), length), dtype=np.int64)
    predicted = np.zeros((len(windows), length), dtype=bool)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        predicted[row, window.context : len(window.ids)] = True
    return torch.from_numpy(ids), torch.from_numpy(predicted)


@dataclass(frozen=True)
class Predictor:
    """A model, and its head if its logits are known to be hidden states times that head."""

    model: PreTrainedModel
    head: Head | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Predictor:
        """Compare the head's logits with the model's on a few tokens."""
        try:
            check_head(model)
        except ModelError:  # its logits are then computed as a whole
            return cls(model, None)
        return cls(model, read_head(model))

    def logits(self, ids: torch.Tensor, chosen: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits of the chosen positions [B, S], in parts [C, V] in float32."""
        if self.head is None:
            whole = self.model(input_ids=ids, use_cache=False).logits
            yield from (part.float() for part in whole[chosen].split(_rows(whole.shape[-1])))
            return
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
        for part in hidden.split(_rows(len(self.head.weight))):
            yield self.head.finish(F.linear(part, self.head.weight).float())


def _rows(vocabulary: int) -> int:
    return max(1, LOGIT_BYTES // (4 * vocabulary))


@torch.no_grad()
def measure(model: Predictor, teacher: Predictor | None, ids: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """The sums of `COLUMNS` from `nll` on for each window: [B, S] to [B, FIGURES] in float64.

    Without a teacher, the model is compared with itself: KL and variation are 0 and agreement complete.
    """
    chosen = torch.zeros_like(predicted)
    chosen[:, :-1] = predicted[:, 1:]  # the positions before the predicted tokens
    targets, rows = ids[:, 1:][chosen[:, :-1]], chosen.nonzero()[:, 0]
    sums = torch.zeros(len(ids), FIGURES, dtype=torch.float64, device=ids.device)
    done = 0
    parts = model.logits(ids, chosen)
    pairs = (
        ((part, None) for part in parts) if teacher is None else zip(parts, teacher.logits(ids, chosen), strict=True)
    )
    for ours, theirs in pairs:
        part = slice(done, done + len(ours))
        sums.index_add_(0, rows[part], _figures(ours, theirs, targets[part]).double())
        done += len(ours)
    return sums


def _figures(ours: torch.Tensor, theirs: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
    """The figures of `COLUMNS` from `nll` on for each token: logits [C, V] to [C, FIGURES]."""
    log_s = F.log_softmax(ours, dim=-1)
    log_t = log_s if theirs is None else F.log_softmax(theirs, dim=-1)
    figures = (
        -log_s.gather(-1, targets[:, None]).squeeze(-1),
        -log_t.gather(-1, targets[:, None]).squeeze(-1),
        F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(dim=-1),
        (log_t.argmax(dim=-1) == log_s.argmax(dim=-1)).float(),
        log_t.exp().sub_(log_s.exp()).abs_().sum(dim=-1) / 2,
    )
    return torch.stack(figures, dim=1)


def check_sums(
    sums: np.ndarray, numbers: list[int], ids: torch.Tensor, model: PreTrainedModel, teacher: PreTrainedModel | None
) -> None:
    """Refuse sums [B, FIGURES] that are not finite; `numbers` and `ids` [B, S] are those of the windows.

    Raises:
        NotFiniteError: Names the model, the figure, the window, and the first module with such values.
    """
    wrong = np.argwhere(~np.isfinite(sums))
    if len(wrong):
        row, column = wrong[0].tolist()
        culprit = teacher if teacher is not None and not np.isfinite(sums[row, 1]) else model
        figure = COLUMNS[2 + column]
        raise not_finite(culprit, f"the figure `{figure}` of window {numbers[row]} of the held-out text", ids[[row]])
