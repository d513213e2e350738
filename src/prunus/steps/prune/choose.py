"""What to keep: from scores and a target shape to the members of every axis. Pure functions on small arrays.

L layers, E experts, C members of an axis
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunus.models.shape import Shape
from prunus.steps.prune.config import RANKED, ImportanceConfig, PruneConfig
from prunus.steps.prune.rank import Scores, layer_losses, rank, removal_order


@dataclass(frozen=True)
class Keep:
    """The members that stay, by the teacher's numbers, in ascending order.

    Attributes:
        layers: The layers.
        shared: For each axis of the whole network, its members.
        layered: For each axis of a layer, its members in every layer of the teacher; those of `mlp` in a mixture of
            experts for each expert in turn.
        partners: For each layer of the teacher, the pruned query head that each of those that stay is paired with, or
            itself; empty where pruned heads leave nothing.
    """

    layers: list[int]
    shared: dict[str, np.ndarray]
    layered: dict[str, list[Any]]
    partners: list[np.ndarray] = field(default_factory=list)

    def members(self, axis: str, layer: int | None, expert: int | None = None) -> np.ndarray:
        """The members of `axis` that stay in `layer` of the teacher (None for a weight outside the layers)."""
        if axis in self.shared:
            return self.shared[axis]
        members = self.layered[axis][layer or 0]
        return np.asarray(members if expert is None or axis != "mlp" else members[expert])


def choose(scores: Scores, teacher: Shape, target: Shape, config: PruneConfig, vocabulary: np.ndarray | None) -> Keep:
    """Choose what stays.

    Args:
        scores: The teacher's.
        teacher: The shape that is cut.
        target: The shape to reach.
        config: Says how layers are chosen.
        vocabulary: The tokens that stay; None keeps all.
    """
    layers = range(teacher.num_hidden_layers)

    def ranked(axis: str) -> np.ndarray:
        size = RANKED[axis]
        if getattr(teacher, size) == getattr(target, size):  # all stay, and nothing has to say which
            return np.zeros((len(layers), getattr(teacher, size)))
        return rank(scores, axis, getattr(config.importance, axis), teacher, config.seed)

    heads, neurons = ranked("heads"), ranked("neurons")
    kv_heads = [best_groups(heads[i], teacher.num_key_value_heads, target.num_key_value_heads) for i in layers]
    per_group = target.num_attention_heads // target.num_key_value_heads
    layered: dict[str, list[Any]] = {
        "mlp": [best_neurons(neurons[i], target.intermediate_size) for i in layers],
        "kv_heads": kv_heads,
        "heads": [best_heads(heads[i], teacher.num_key_value_heads, kv_heads[i], per_group) for i in layers],
    }
    if teacher.num_experts:
        if neurons.ndim == 2:
            layered["mlp"] = [[np.arange(teacher.intermediate_size)] * teacher.num_experts for _ in layers]
        layered["experts"] = [best(row, target.num_experts) for row in ranked("experts")]
    # a rotated cut reads all channels: what stays of them is a matter of the basis
    rotates = config.rotates(teacher, target)
    hidden = np.arange(teacher.hidden_size) if rotates else best(ranked("channels")[0], target.hidden_size)
    return Keep(
        layers=choose_layers(scores, teacher.num_hidden_layers, target.num_hidden_layers, config),
        shared={
            "vocab": np.arange(teacher.vocab_size) if vocabulary is None else vocabulary,
            "positions": np.arange(teacher.max_position_embeddings),
            "head_dim": rotary_pairs(teacher.head_dim, target.head_dim),
            "hidden": hidden,
        },
        layered=layered,
        partners=[partners(heads[i], teacher.num_key_value_heads, kv_heads[i], per_group) for i in layers]
        if config.head_residual
        else [],
    )


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` members of highest score, ascending; of equals the first: [C] to [count]."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def best_neurons(scores: np.ndarray, count: int) -> Any:
    """The neurons that stay in one layer: [mlp] to [count], or of each expert in turn: [E, mlp] to E times [count]."""
    return best(scores, count) if scores.ndim == 1 else [best(row, count) for row in scores]


def best_groups(scores: np.ndarray, groups: int, count: int) -> np.ndarray:
    """The `count` KV heads whose query heads score highest together, by the L2 norm: [heads] to [count]."""
    return best(np.linalg.norm(scores.reshape(groups, -1), axis=1), count)


def best_heads(scores: np.ndarray, groups: int, kept: np.ndarray, per_group: int) -> np.ndarray:
    """The `per_group` best query heads of each kept KV head: [heads] to head numbers, ascending.

    Heads are ranked inside their group, so that every group keeps as many (arXiv 2407.14679, section 2.2).
    """
    grouped = scores.reshape(groups, -1)
    return np.concatenate([group * grouped.shape[1] + best(grouped[group], per_group) for group in kept])


def partners(scores: np.ndarray, groups: int, kept: np.ndarray, per_group: int) -> np.ndarray:
    """For each head that `best_heads` gives the pruned one that it is paired with, or itself where it has none.

    With heads numbered 1, 2, ... from the best of a group on, of which K stay, head i is paired with head 2K - i + 1
    (arXiv 2407.14679, section 2.2): the last that stays with the first that goes, and so on.
    """
    grouped = scores.reshape(groups, -1)
    result = []
    for group in kept:
        order = np.argsort(-grouped[group], kind="stable")
        paired = {head: head for head in order[:per_group]}
        paired |= dict(zip(order[:per_group][::-1], order[per_group:], strict=False))
        result += [group * grouped.shape[1] + paired[head] for head in sorted(paired)]
    return np.array(result)


def rotary_pairs(head_dim: int, count: int) -> np.ndarray:
    """The dimensions of a head that stay: the pairs (i, i + head_dim / 2) that turn fastest, `count` dimensions in all.

    Rotary positions turn pair i by theta^(-2i / head_dim). The first pairs keep their speeds exactly if theta becomes
    theta^(count / head_dim); no other choice can be written into a config.
    """
    if count == head_dim:
        return np.arange(head_dim)
    pairs = np.arange(count // 2)
    return np.concatenate([pairs, head_dim // 2 + pairs])


def choose_layers(scores: Scores, layers: int, count: int, config: PruneConfig) -> list[int]:
    """The `count` layers to keep.

    Args:
        scores: The teacher's.
        layers: How many there are.
        count: How many stay.
        config: Its `drop_layers` says `contiguous`, the block whose loss costs least; `single`, the layers that cost
            least each by itself, or by their logits one after the other; or names the layers to drop. Its
            `importance.layers` says what a loss costs.
    """
    drop = layers - count
    if isinstance(config.drop_layers, tuple) or not drop:
        dropped: set[int] = set(config.drop_layers) if isinstance(config.drop_layers, tuple) else set()
    elif config.importance.layers == "random":
        draw = np.random.default_rng([config.seed, len(RANKED)])
        first = int(draw.integers(count + 1))
        block = config.drop_layers == "contiguous"
        dropped = set(range(first, first + drop) if block else draw.permutation(layers)[:drop].tolist())
    elif config.drop_layers == "contiguous":
        dropped = set(blocks_by_loss(scores, config.importance, drop)[0])
    else:
        dropped = set(single_layers(scores, config.importance, drop))
    return [layer for layer in range(layers) if layer not in dropped]


def layer_choices(scores: Scores, config: PruneConfig, drop: int) -> list[tuple[int, ...]]:
    """Layers that may go, so many at a time, each once: what `drop_layers` chooses, what it would by its other name.

    Then the other blocks, from that whose loss costs least on.
    """
    first, *others = blocks_by_loss(scores, config.importance, drop)
    chosen = [first, single_layers(scores, config.importance, drop)]
    if config.drop_layers == "single":
        chosen.reverse()
    return list(dict.fromkeys([*chosen, *others]))


def single_layers(scores: Scores, importance: ImportanceConfig, count: int) -> tuple[int, ...]:
    """The `count` layers that cost least each by itself, or by their logits one after the other; ascending."""
    if importance.layers == "logit_nmse":
        return tuple(sorted(removal_order(scores)[:count]))
    losses = layer_losses(scores, importance, 1)
    stay = best(losses, len(losses) - count)
    return tuple(np.setdiff1d(np.arange(len(losses)), stay).tolist())


def blocks_by_loss(scores: Scores, importance: ImportanceConfig, length: int) -> list[tuple[int, ...]]:
    """The contiguous blocks of so many layers, from that whose loss costs least on."""
    order = np.argsort(layer_losses(scores, importance, length), kind="stable")
    return [tuple(range(first, first + length)) for first in order.tolist()]
