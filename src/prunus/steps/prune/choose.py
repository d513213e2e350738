"""Choose the units to keep on every axis, from scores and a target shape. Pure functions on small arrays.

L layers, E experts, C units of an axis
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from prunus.models.axes import AXES, WHOLE
from prunus.models.prefix import rotary_pairs
from prunus.models.shape import Shape
from prunus.steps.prune.config import RANKED, ImportanceConfig, PruneConfig
from prunus.steps.prune.merge import Group, clusters, distances, group_of, nearest
from prunus.steps.prune.rank import Scores, layer_losses, rank, removal_order, statistic

_RANDOM_LAYERS = 4  # with the seed, decides random layers


@dataclass(frozen=True)
class Keep:
    """The units to keep, as the teacher's indices in ascending order.

    Attributes:
        layers: The layers.
        shared: The units of each axis that all layers share.
        layered: The units of each axis of a layer, for every layer of the teacher; of `mlp` in a mixture of experts,
            for every expert of every layer.
        partners: For each layer of the teacher, the pruned query head that each kept head is paired with, or the kept
            head itself if it has no partner; empty if `head_residual` is 0.
        groups: For each layer of the teacher, the experts that are merged into each kept one, which is the first of
            its group; empty if none are merged.
    """

    layers: list[int]
    shared: dict[str, np.ndarray]
    layered: dict[str, list[Any]]
    partners: list[np.ndarray] = field(default_factory=list)
    groups: list[dict[int, Group]] = field(default_factory=list)

    def members(self, axis: str, layer: int | None, expert: int | None = None) -> np.ndarray:
        """The kept units of `axis` in `layer` of the teacher (None for a weight outside the layers)."""
        if axis in self.shared:
            return self.shared[axis]
        members = self.layered[axis][layer or 0]
        return np.asarray(members if expert is None or axis != "mlp" else members[expert])


def choose(scores: Scores, teacher: Shape, target: Shape, config: PruneConfig, vocabulary: np.ndarray | None) -> Keep:
    """Choose the units to keep.

    Args:
        scores: The teacher's scores.
        teacher: The teacher's shape.
        target: The student's shape.
        config: The options of the cut.
        vocabulary: The ids of the tokens to keep; None keeps all.
    """
    layers = range(teacher.num_hidden_layers)
    ranked = partial(unit_scores, scores, teacher, target, config)
    heads, neurons = ranked("heads"), ranked("neurons")
    kv_heads = [best_groups(heads[i], teacher.num_key_value_heads, target.num_key_value_heads) for i in layers]
    per_group = target.num_attention_heads // target.num_key_value_heads
    layered: dict[str, list[Any]] = {
        "mlp": [best_neurons(neurons[i], target.intermediate_size) for i in layers],
        "kv_heads": kv_heads,
        "heads": [best_heads(heads[i], teacher.num_key_value_heads, kv_heads[i], per_group) for i in layers],
    }
    merged: list[dict[int, Group]] = []
    if teacher.num_experts:
        if neurons.ndim == 2:
            layered["mlp"] = [[np.arange(teacher.intermediate_size)] * teacher.num_experts for _ in layers]
        groups = max(1, teacher.expert_groups)
        by_score = ranked("experts")
        layered["experts"] = [best_experts(row, groups, target.num_experts) for row in by_score]
        if config.merges(teacher, target):
            merged = [merged_experts(scores, i, by_score[i], teacher, target, config) for i in layers]
            layered["experts"] = [np.array(list(row)) for row in merged]
    for axis, of in ("linear_values", "linear_keys"), ("ssm_heads", "ssm_groups"):
        (size, of_size), ranked_as = (AXES[axis], AXES[of]), {"linear_values": "linear_heads"}.get(axis, axis)
        if getattr(teacher, size):
            groups, rows = getattr(teacher, of_size), ranked(ranked_as)
            each = getattr(target, size) // getattr(target, of_size)
            layered[of] = [best_groups(row, groups, getattr(target, of_size)) for row in rows]
            layered[axis] = [best_heads(row, groups, kept, each) for row, kept in zip(rows, layered[of], strict=True)]
    for axis in ("shared", "dense", "conv"):
        if getattr(teacher, RANKED[axis]):
            layered[axis] = [best(row, getattr(target, RANKED[axis])) for row in ranked(axis)]
    # a rotated cut reads all channels; its basis selects what is kept of them
    rotates = config.rotates(teacher, target)
    hidden = np.arange(teacher.hidden_size) if rotates else best(ranked("channels")[0], target.hidden_size)
    return Keep(
        layers=choose_layers(scores, teacher, target.num_hidden_layers, config),
        shared={
            "vocab": np.arange(teacher.vocab_size) if vocabulary is None else vocabulary,
            **{axis: np.arange(teacher.sizes()[axis]) for axis in WHOLE},
            "head_dim": rotary_pairs(teacher, target.head_dim),
            "hidden": hidden,
        },
        layered=layered,
        partners=[partners(heads[i], teacher.num_key_value_heads, kv_heads[i], per_group) for i in layers]
        if config.head_residual
        else [],
        groups=merged,
    )


def merged_experts(
    scores: Scores, layer: int, by_score: np.ndarray, teacher: Shape, target: Shape, config: PruneConfig
) -> dict[int, Group]:
    """The groups of a layer's experts that become one each, by their first expert, ascending.

    Experts that are routed by groups are merged within these, and each keeps equally many.

    Args:
        scores: The teacher's scores.
        layer: The layer.
        by_score: The importance of each of its experts, [E].
        teacher: The teacher's shape.
        target: The student's shape.
        config: The options of the cut.
    """
    distance = distances(statistic(scores, "experts.products")[layer])
    tokens = statistic(scores, "experts.frequency")[layer]
    routed = max(1, teacher.expert_groups)
    size, count = teacher.num_experts // routed, target.num_experts // routed
    found = []
    for start in range(0, teacher.num_experts, size):
        within = distance[start : start + size, start : start + size]
        if config.merge_experts == "clusters":
            parts = clusters(within, count)
        else:
            parts = nearest(within, best(by_score[start : start + size], count).tolist())
        found += [group_of([start + expert for expert in part], by_score, tokens) for part in parts]
    return {group.experts[0]: group for group in sorted(found, key=lambda group: group.experts[0])}


def unit_scores(scores: Scores, teacher: Shape, target: Shape, config: PruneConfig, axis: str) -> np.ndarray:
    """As `rank`; zeros [L, C] where all units are kept, which needs no scores."""
    size = RANKED[axis]
    if getattr(teacher, size) == getattr(target, size):
        return np.zeros((teacher.num_hidden_layers, getattr(teacher, size)))
    return rank(scores, axis, config.importance.of(axis), teacher, config.seed)


def unranked_experts(keep: Keep, scores: Scores, teacher: Shape) -> int:
    """How many of the kept experts no token of the calibration set reached, so that their neurons have no scores."""
    if "neurons.squares" not in scores:
        return 0
    reached = np.asarray(scores["neurons.squares"].sum(axis=2) > 0)  # [L, E]
    layers = [layer for layer in keep.layers if teacher.has_units("experts", layer)]
    return sum(int(np.sum(~reached[layer][keep.members("experts", layer)])) for layer in layers)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` highest scores, ascending; of equal scores the first: [C] to [count]."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def best_experts(scores: np.ndarray, groups: int, count: int) -> np.ndarray:
    """The best experts, equally many of each group that they are routed by: [E] to [count], ascending."""
    rows = scores.reshape(groups, -1)
    return np.concatenate([i * rows.shape[1] + best(row, count // groups) for i, row in enumerate(rows)])


def best_neurons(scores: np.ndarray, count: int) -> Any:
    """The neurons to keep in one layer: scores [mlp] to [count], or for each expert: [E, mlp] to E times [count]."""
    return best(scores, count) if scores.ndim == 1 else [best(row, count) for row in scores]


def best_groups(scores: np.ndarray, groups: int, count: int) -> np.ndarray:
    """The `count` KV heads whose query heads' scores have the largest L2 norm: [heads] to [count]."""
    return best(np.linalg.norm(scores.reshape(groups, -1), axis=1), count)


def best_heads(scores: np.ndarray, groups: int, kept: np.ndarray, per_group: int) -> np.ndarray:
    """The `per_group` best query heads of each kept KV head: scores [heads] to head indices, ascending.

    Heads are ranked within their group, so that all groups keep equally many (arXiv 2407.14679, section 2.2).
    """
    grouped = scores.reshape(groups, -1)
    return np.concatenate([group * grouped.shape[1] + best(grouped[group], per_group) for group in kept])


def partners(scores: np.ndarray, groups: int, kept: np.ndarray, per_group: int) -> np.ndarray:
    """For each head that `best_heads` returns, the pruned head that it is paired with, or itself if it has none.

    With heads numbered 1, 2, ... from the best of a group on, of which K are kept, head i is paired with head
    2K - i + 1 (arXiv 2407.14679, section 2.2): the last kept head with the first pruned one, and so on.
    """
    grouped = scores.reshape(groups, -1)
    result = []
    for group in kept:
        order = np.argsort(-grouped[group], kind="stable")
        paired = {head: head for head in order[:per_group]}
        paired |= dict(zip(order[:per_group][::-1], order[per_group:], strict=False))
        result += [group * grouped.shape[1] + paired[head] for head in sorted(paired)]
    return np.array(result)


def choose_layers(scores: Scores, teacher: Shape, count: int, config: PruneConfig) -> list[int]:
    """The `count` layers to keep.

    The first layers of a mixture that have no experts are dropped by number only, and in a family with layers of
    several kinds, one with attention is always kept.

    Args:
        scores: The teacher's scores.
        teacher: The teacher's shape.
        count: How many to keep.
        config: `drop_layers` is `contiguous` (drop the block of least importance), `single` (drop the least important
            layers, each ranked separately, or in the greedy order of `logit_nmse`) or the layers to drop.
            `importance.layers` is the criterion.
    """
    layers, dense = teacher.num_hidden_layers, teacher.dense_layers
    drop = layers - count
    if isinstance(config.drop_layers, tuple) or not drop:
        dropped: set[int] = set(config.drop_layers) if isinstance(config.drop_layers, tuple) else set()
    elif config.importance.layers == "random":
        draw = np.random.default_rng([config.seed, _RANDOM_LAYERS])
        blocks = teacher.droppable(drop)
        block = blocks[int(draw.integers(len(blocks)))] if blocks else ()
        others = (dense + draw.permutation(layers - dense)).tolist()
        dropped = set(block if config.drop_layers == "contiguous" else first_droppable(others, drop, teacher))
    elif config.drop_layers == "contiguous":
        dropped = set(blocks_by_loss(scores, config.importance, drop, teacher)[0])
    else:
        dropped = set(single_layers(scores, config.importance, drop, teacher))
    return [layer for layer in range(layers) if layer not in dropped]


def layer_choices(scores: Scores, config: PruneConfig, drop: int, teacher: Shape) -> list[tuple[int, ...]]:
    """Sets of `drop` layers that could be dropped, without duplicates, the most promising first.

    First the choice by `drop_layers`, then the choice by its other value (`contiguous` or `single`), then the other
    blocks by importance, the least important first.
    """
    first, *others = blocks_by_loss(scores, config.importance, drop, teacher)
    chosen = [first, single_layers(scores, config.importance, drop, teacher)]
    if config.drop_layers == "single":
        chosen.reverse()
    return list(dict.fromkeys([*chosen, *others]))


def single_layers(scores: Scores, importance: ImportanceConfig, count: int, teacher: Shape) -> tuple[int, ...]:
    """The `count` least important layers that can be dropped, ranked separately or in the greedy order; ascending."""
    if importance.layers == "logit_nmse":
        order = removal_order(scores)
    else:
        order = np.argsort(-layer_losses(scores, importance, 1), kind="stable")[::-1].tolist()
    return tuple(sorted(first_droppable(order, count, teacher)))


def first_droppable(order: Iterable[int], count: int, teacher: Shape) -> list[int]:
    """The first `count` layers of an order without which a student runs, and which have experts in a mixture."""
    left, dropped = set(range(teacher.num_hidden_layers)), list[int]()
    for layer in order:
        if len(dropped) < count and layer >= teacher.dense_layers and teacher.runs(left - {layer}):
            left.remove(layer)
            dropped.append(layer)
    return dropped


def blocks_by_loss(scores: Scores, importance: ImportanceConfig, length: int, teacher: Shape) -> list[tuple[int, ...]]:
    """The contiguous blocks of `length` layers that can be dropped, the least important first."""
    losses = layer_losses(scores, importance, length)
    return sorted(teacher.droppable(length), key=lambda block: float(losses[block[0]]))
