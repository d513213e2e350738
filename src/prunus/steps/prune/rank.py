"""Computes the score of each unit of an axis from the statistics of `score`. Pure functions on small arrays.

L layers, E experts, C units of an axis
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
    """The score of every unit of an axis, higher for more important units.

    Args:
        scores: The teacher's statistics.
        axis: One of `RANKED`.
        ranking: The criterion, and how activations are aggregated.
        teacher: The teacher's shape.
        seed: Seed of the criterion `random`.

    Returns:
        [L, C]; for neurons in a mixture of experts [L, E, mlp]; for channels [1, C], summed over the norms.

    Raises:
        ArtifactError: A statistic that the criterion needs is missing.
    """
    if ranking.criterion == "random":
        return _random(axis, teacher, seed)
    if ranking.criterion in ("taylor", "fisher"):
        result = statistic(scores, f"{axis}.gradients")[0 if ranking.criterion == "taylor" else 1]
    elif ranking.criterion == "frequency":
        result = statistic(scores, "experts.frequency")
    elif ranking.criterion == "reap":
        total, tokens = statistic(scores, "experts.reap")
        result = total / np.maximum(tokens, 1.0)  # an expert without tokens has a total of 0
    elif axis == "neurons" and teacher.num_experts:
        result = np.sqrt(statistic(scores, "neurons.squares"))
    else:
        result = aggregate(
            statistic(scores, f"{axis}.{ranking.sequence}"), float(statistic(scores, "counts")[0]), ranking.batch
        )
    if ranking.criterion == "activation_norm":
        norms = statistic(scores, "reader_norms" if axis == "neurons" else f"reader_norms.{axis}")
        result = result * (norms**2 if "variance" in (ranking.sequence, ranking.batch) else norms)
    return result.sum(axis=0, keepdims=True) if axis == "channels" else result


def aggregate(moments: np.ndarray, count: float, how: str) -> np.ndarray:
    """Aggregate over the batch from Σ v and Σ v²: [2, ...] to [...] (arXiv 2407.14679, section 2.2).

    Args:
        moments: The two sums over the sequences, [2, ...].
        count: Number of sequences.
        how: `mean`, (1/B) Σ |v|; `l2`, √Σ v²; or `variance`, (1/B) Σ (v - mean v)². All v are at least 0.
    """
    total, squares = moments
    if how == "mean":
        return total / count
    if how == "l2":
        return np.sqrt(squares)
    return np.maximum(squares / count - (total / count) ** 2, 0.0)


def layer_losses(scores: Scores, importance: ImportanceConfig, length: int) -> np.ndarray:
    """The importance of each block of `length` layers, by the block's first layer: [L - length + 1].

    Raises:
        ArtifactError: The criterion's statistic is missing.
    """
    if importance.layers == "block_influence":
        return 1.0 - np.diagonal(statistic(scores, "cosines"), offset=length)
    return statistic(scores, f"layers.{importance.layers}.{length}")


def removal_order(scores: Scores) -> list[int]:
    """The greedy order in which to drop single layers, by the error of the logits.

    Raises:
        ArtifactError: The statistic is missing.
    """
    return [int(layer) for layer in statistic(scores, "layers.logit_nmse.order")]


def _random(axis: str, teacher: Shape, seed: int) -> np.ndarray:
    draw = np.random.default_rng([seed, list(RANKED).index(axis)])
    experts = (teacher.num_experts,) if axis == "neurons" and teacher.num_experts else ()
    layers = 1 if axis == "channels" else teacher.num_hidden_layers
    return draw.random((layers, *experts, getattr(teacher, RANKED[axis])))


def statistic(scores: Scores, name: str) -> np.ndarray:
    """The statistic of the given name.

    Raises:
        ArtifactError: The statistic is missing; names what to collect.
    """
    if name not in scores:
        collect = name.split(".")[1] if name.startswith("layers.") else name.rpartition(".")[2]
        raise ArtifactError(f"prune.importance: the scores contain no {name}; add {collect!r} to `score.collect`")
    return scores[name]
