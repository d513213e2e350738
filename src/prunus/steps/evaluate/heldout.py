"""Figures of a model on held-out text, window by window, compared with its teacher.

B batch, S sequence, V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from prunus.data.windows import Window
from prunus.models.finite import not_finite

COLUMNS = ("tokens", "bytes", "nll", "teacher_nll", "kl", "agreed")
"""Sums over a window: predicted tokens, their bytes, negative log-likelihood by the model and by its teacher (nats),
KL(teacher ‖ model) (nats), and the number of tokens at which both have the same top-1 prediction."""


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


@torch.no_grad()
def measure(
    model: PreTrainedModel, teacher: PreTrainedModel | None, ids: torch.Tensor, predicted: torch.Tensor
) -> torch.Tensor:
    """The sums of `COLUMNS` from `nll` on for each window: [B, S] to [B, 4] in float64.

    Without a teacher, the model is compared with itself: KL is 0 and agreement complete.
    """
    target = ids[:, 1:, None]
    log_s = F.log_softmax(model(input_ids=ids, use_cache=False).logits[:, :-1].float(), dim=-1)
    log_t = log_s
    if teacher is not None:
        log_t = F.log_softmax(teacher(input_ids=ids, use_cache=False).logits[:, :-1].float(), dim=-1)
    figures = (
        -log_s.gather(-1, target).squeeze(-1),
        -log_t.gather(-1, target).squeeze(-1),
        (log_t.exp() * (log_t - log_s)).sum(dim=-1),
        log_t.argmax(dim=-1) == log_s.argmax(dim=-1),
    )
    return torch.stack(
        [torch.where(predicted[:, 1:], figure, 0).sum(dim=1, dtype=torch.float64) for figure in figures], dim=1
    )


def check_sums(
    sums: np.ndarray, numbers: list[int], ids: torch.Tensor, model: PreTrainedModel, teacher: PreTrainedModel | None
) -> None:
    """Refuse sums [B, 4] that are not finite; `numbers` and `ids` [B, S] are those of the windows.

    Raises:
        NotFiniteError: Names the model, the figure, the window, and the first module with such values.
    """
    wrong = np.argwhere(~np.isfinite(sums))
    if len(wrong):
        row, column = wrong[0].tolist()
        culprit = teacher if teacher is not None and not np.isfinite(sums[row, 1]) else model
        figure = COLUMNS[2 + column]
        raise not_finite(culprit, f"the figure `{figure}` of window {numbers[row]} of the held-out text", ids[[row]])
