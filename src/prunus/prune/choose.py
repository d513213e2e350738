"""What to keep: from scores and a target shape to the members of every axis. Pure functions on small arrays.

L layers, C members of an axis
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunus.models.shape import Shape
from prunus.prune.config import PruneConfig

Scores = dict[str, np.ndarray]
"""`neurons` [L, mlp], `heads` [L, heads], `channels` [norms, hidden] and `cosines` [L + 1, L + 1]."""


@dataclass(frozen=True)
class Keep:
    """The members that stay, by the teacher's numbers, in ascending order.

    Attributes:
        layers: The layers.
        shared: For each axis of the whole network, its members.
        layered: For each axis of a layer, its members in every layer of the teacher.
    """

    layers: list[int]
    shared: dict[str, np.ndarray]
    layered: dict[str, list[np.ndarray]]

    def members(self, axis: str, layer: int | None) -> np.ndarray:
        """The members of `axis` that stay in `layer` of the teacher (None for a weight outside the layers)."""
        return self.shared[axis] if axis in self.shared else self.layered[axis][layer or 0]


def choose(scores: Scores, teacher: Shape, target: Shape, config: PruneConfig) -> Keep:
    """Choose what stays.

    Args:
        scores: The teacher's.
        teacher: The shape that is cut.
        target: The shape to reach.
        config: Says how layers are chosen.
    """
    layers = range(teacher.num_hidden_layers)
    kv_heads = [
        best_groups(scores["heads"][i], teacher.num_key_value_heads, target.num_key_value_heads) for i in layers
    ]
    per_group = target.num_attention_heads // target.num_key_value_heads
    return Keep(
        layers=choose_layers(scores["cosines"], target.num_hidden_layers, config.drop_layers),
        shared={
            "vocab": np.arange(teacher.vocab_size),
            "head_dim": np.arange(teacher.head_dim),
            "hidden": best(scores["channels"].sum(axis=0), target.hidden_size),
        },
        layered={
            "mlp": [best(scores["neurons"][i], target.intermediate_size) for i in layers],
            "kv_heads": kv_heads,
            "heads": [
                best_heads(scores["heads"][i], teacher.num_key_value_heads, kv_heads[i], per_group) for i in layers
            ],
        },
    )


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` members of highest score, ascending; of equals the first: [C] to [count]."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def best_groups(scores: np.ndarray, groups: int, count: int) -> np.ndarray:
    """The `count` KV heads whose query heads score highest together, by the L2 norm: [heads] to [count]."""
    return best(np.linalg.norm(scores.reshape(groups, -1), axis=1), count)


def best_heads(scores: np.ndarray, groups: int, kept: np.ndarray, per_group: int) -> np.ndarray:
    """The `per_group` best query heads of each kept KV head: [heads] to head numbers, ascending.

    Heads are ranked inside their group, so that every group keeps as many (arXiv 2407.14679, section 2.2).
    """
    grouped = scores.reshape(groups, -1)
    return np.concatenate([group * grouped.shape[1] + best(grouped[group], per_group) for group in kept])


def choose_layers(cosines: np.ndarray, count: int, rule: str | tuple[int, ...]) -> list[int]:
    """The `count` layers to keep.

    Args:
        cosines: [L + 1, L + 1], mean cosines of the residual stream between borders.
        count: How many stay.
        rule: `contiguous` drops the block whose input and output are most alike (least BI); `single` drops the layers
            of least BI, each by itself; numbers name the layers to drop.
    """
    layers = len(cosines) - 1
    drop = layers - count
    if isinstance(rule, tuple):
        dropped = set(rule)
    elif rule == "contiguous":
        likeness = [cosines[first, first + drop] for first in range(layers - drop + 1)]
        first = int(np.argmax(likeness))
        dropped = set(range(first, first + drop))
    else:
        influence = 1.0 - np.diagonal(cosines, offset=1)
        dropped = set(range(layers)) - set(best(influence, count).tolist())
    return [layer for layer in range(layers) if layer not in dropped]


def random_scores(teacher: Shape, seed: int) -> Scores:
    """Scores by chance, for a baseline: shapes as in `Scores`."""
    draw = np.random.default_rng(seed)
    layers = teacher.num_hidden_layers
    return {
        "neurons": draw.random((layers, teacher.intermediate_size)),
        "heads": draw.random((layers, teacher.num_attention_heads)),
        "channels": draw.random((1, teacher.hidden_size)),
        "cosines": draw.random((layers + 1, layers + 1)),
    }
