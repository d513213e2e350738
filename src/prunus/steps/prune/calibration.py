"""The sequences of the corpus that a cut is fitted on, and the others that it is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunus.data.blocks import calibration_set
from prunus.data.tokens import Tokens
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.heal_config import HealConfig

_JUDGED = 8


def calibration(config: HealConfig, tokens: Path, seed: int, more: int = 0) -> np.ndarray:
    """The sequences that weights are fitted on, [N, S], and behind them so many more."""
    return calibration_set(Tokens.open(tokens), config.samples + more, config.sequence_length, seed)


def fitted_and_judged(config: PruneConfig, tokens: Path) -> tuple[np.ndarray, np.ndarray]:
    """The sequences that a cut is fitted on and others that it is judged by, [N, S] each.

    A healed student is far nearer its teacher on what it was fitted on: SmolLM2's half on 12,288 tokens has a KL of
    0.56 nats there and three times that elsewhere. Of few sequences a quarter is kept apart; of less than four none.
    """
    judged = max(_JUDGED, config.check_samples)
    ids = calibration(config.heal, tokens, config.seed, judged)
    count = min(config.heal.samples, len(ids) - min(judged, len(ids) // 4))
    return ids[:count], ids[count : count + judged]
