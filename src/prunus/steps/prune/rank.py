"""From the statistics that `score` collected to one score for each member of an axis. Pure functions on small arrays.

L layers, E experts, C members of an axis
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prunus.errors import ArtifactError
from prunus.models.shape import Shape
from prunus.steps.prune.config import RANKED, ImportanceConfig, Ranking

Scores = Mapping[str, np.ndarray]
"""The contents of `scores.safetensors`; see `prunus.steps.score.step.run`."""


def rank(scores: Scores, axis: str, ranking: Ranking, teacher: Shape, seed: int) -> np.ndarray:
    """The score of every member of an axis, higher for what is worth more: [L, C], or [L, E, mlp] of experts' neurons.

    Channels are summed over the norms, [1, C].

    Args:
        scores: The teacher's.
        axis: `neurons`, `heads`, `channels` or `experts`.
        ranking: The criterion, and how activations are aggregated.
        teacher: The shape that is scored.
        seed: Of what chance decides.

    Raises:
        ArtifactError: The scores lack what the criterion needs.
    """
    if ranking.criterion == "random":
        return _by_chance(axis, teacher, seed)
    if ranking.criterion in ("taylor", "fisher"):
        found = statistic(scores, f"{axis}.gradients")[0 if ranking.criterion == "taylor" else 1]
    elif axis == "neurons" and teacher.num_experts:
        found = np.sqrt(statistic(scores, "neurons.squares"))
    else:
        found = aggregate(
            statistic(scores, f"{axis}.{ranking.sequence}"), float(statistic(scores, "counts")[0]), ranking.batch
        )
    if ranking.criterion == "activation_norm":
        norms = statistic(scores, "reader_norms")
        found = found * (norms**2 if "variance" in (ranking.sequence, ranking.batch) else norms)
    return found.sum(axis=0, keepdims=True) if axis == "channels" else found


def aggregate(moments: np.ndarray, count: float, how: str) -> np.ndarray:
    """Aggregate over the batch from Σ v and Σ v²: [2, ...] to [...] (arXiv 2407.14679, section 2.2).

    Args:
        moments: The two sums over the sequences.
        count: How many sequences they are over.
        how: `mean`, (1/B) Σ |v|; `l2`, √Σ v²; or `variance`, (1/B) Σ (v - mean v)². All v are at least 0.
    """
    total, squares = moments
    if how == "mean":
        return total / count
    if how == "l2":
        return np.sqrt(squares)
    return np.maximum(squares / count - (total / count) ** 2, 0.0)


def layer_losses(scores: Scores, importance: ImportanceConfig, length: int) -> np.ndarray:
    """What leaving out each block of `length` layers costs by the criterion, from the first block on: [L - length + 1].

    Raises:
        ArtifactError: The scores lack it.
    """
    if importance.layers == "block_influence":
        return 1.0 - np.diagonal(statistic(scores, "cosines"), offset=length)
    return statistic(scores, f"layers.{importance.layers}.{length}")


def removal_order(scores: Scores) -> list[int]:
    """The order in which layers can go, one by one, by the logits that are left.

    Raises:
        ArtifactError: The scores lack it.
    """
    return [int(layer) for layer in statistic(scores, "layers.logit_nmse.order")]


def _by_chance(axis: str, teacher: Shape, seed: int) -> np.ndarray:
    draw = np.random.default_rng([seed, list(RANKED).index(axis)])
    experts = (teacher.num_experts,) if axis == "neurons" and teacher.num_experts else ()
    layers = 1 if axis == "channels" else teacher.num_hidden_layers
    return draw.random((layers, *experts, getattr(teacher, RANKED[axis])))


def statistic(scores: Scores, name: str) -> np.ndarray:
    """One of the statistics.

    Raises:
        ArtifactError: The scores lack it; says what to collect.
    """
    if name not in scores:
        wanted = name.split(".")[1] if name.startswith("layers.") else name.rpartition(".")[2]
        raise ArtifactError(f"prune.importance: the scores hold no {name}; score with {wanted!r} in `score.collect`")
    return scores[name]
