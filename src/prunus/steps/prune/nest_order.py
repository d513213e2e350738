"""The order of units in a nest: on every axis what is worth most comes first, so that a smaller size is the beginning.

C units of an axis
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from prunus.models.checkpoint import ITEM_BYTES, TensorPlan
from prunus.models.shape import Shape
from prunus.steps.prune.choose import Keep, blocks_by_loss, choose, choose_layers, unit_scores
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import indices
from prunus.steps.prune.rank import Scores


def choose_nested(scores: Scores, teacher: Shape, shapes: Sequence[Shape], config: PruneConfig) -> list[Keep]:
    """The units that each size keeps, as the teacher's indices in ascending order; each keeps what the next one keeps.

    Args:
        scores: The teacher's scores.
        teacher: The teacher's shape.
        shapes: The sizes' shapes, the largest first.
        config: The options.
    """
    layers = nested_layers(scores, teacher, [shape.num_hidden_layers for shape in shapes], config)
    wide = [shape.with_dimensions({"num_hidden_layers": teacher.num_hidden_layers}) for shape in shapes]
    return [
        replace(choose(scores, teacher, shape, config, None), layers=kept)
        for shape, kept in zip(wide, layers, strict=True)
    ]


def nested_layers(scores: Scores, teacher: Shape, counts: Sequence[int], config: PruneConfig) -> list[list[int]]:
    """The layers that each size keeps.

    With `drop_layers: contiguous`, the block that a size drops contains the block that the next larger one drops, and
    is the least important of those.

    Args:
        scores: The teacher's scores.
        teacher: The teacher's shape.
        counts: How many each size keeps, in descending order.
        config: The options.
    """
    layers = teacher.num_hidden_layers
    chosen = [choose_layers(scores, teacher, counts[0], config)]
    for above, count in pairwise(counts):
        if config.drop_layers == "contiguous" and above != count:
            dropped = set(range(layers)) - set(chosen[-1])
            blocks = _blocks(scores, teacher, layers - count, config)
            block = next(block for block in blocks if dropped <= set(block))
            chosen.append([layer for layer in range(layers) if layer not in block])
        else:  # layers ranked one by one nest by themselves
            chosen.append(choose_layers(scores, teacher, count, config))
    return chosen


def _blocks(scores: Scores, teacher: Shape, length: int, config: PruneConfig) -> list[tuple[int, ...]]:
    """All blocks of `length` layers, the least important first."""
    if config.importance.layers != "random":
        return blocks_by_loss(scores, config.importance, length, teacher)
    blocks = teacher.droppable(length)
    draw = np.random.default_rng([config.seed, length])
    return [blocks[i] for i in draw.permutation(len(blocks))]


def order_of(keep: Keep, scores: Scores, teacher: Shape, least: Shape, shape: Shape, config: PruneConfig) -> Keep:
    """The order of a size's units by worth, as indices into those of `keep`.

    Args:
        keep: What the size keeps.
        scores: The teacher's scores.
        teacher: The teacher's shape.
        least: The smallest size's shape; an axis that even this one has whole keeps the teacher's order.
        shape: The size's shape.
        config: The options.
    """
    ranked = {axis: unit_scores(scores, teacher, least, config, axis) for axis in ("neurons", "heads", "channels")}
    experts = unit_scores(scores, teacher, least, config, "experts") if teacher.num_experts else None
    layered: dict[str, list[Any]] = {"mlp": [], "kv_heads": [], "heads": []}
    if experts is not None:
        layered["experts"] = []
    groups, per_group = teacher.num_key_value_heads, shape.num_attention_heads // shape.num_key_value_heads
    for layer in keep.layers:
        heads = ranked["heads"][layer]
        kv_heads = by_worth(np.linalg.norm(heads.reshape(groups, -1), axis=1)[keep.members("kv_heads", layer)])
        inside = heads[keep.members("heads", layer)].reshape(-1, per_group)
        layered["kv_heads"].append(kv_heads)
        layered["heads"].append(np.concatenate([group * per_group + by_worth(inside[group]) for group in kv_heads]))
        neurons = ranked["neurons"][layer]
        if experts is None:
            layered["mlp"].append(by_worth(neurons[keep.members("mlp", layer)]))
            continue
        kept = keep.members("experts", layer)
        rows = neurons if neurons.ndim == 2 else np.broadcast_to(neurons, (teacher.num_experts, len(neurons)))
        layered["mlp"].append([by_worth(rows[expert][keep.members("mlp", layer, expert)]) for expert in kept])
        layered["experts"].append(by_worth(experts[layer][kept]))
    hidden = np.arange(shape.hidden_size)
    if len(keep.shared["hidden"]) == shape.hidden_size and not config.rotates(teacher, shape):
        hidden = by_worth(ranked["channels"][0][keep.shared["hidden"]])
    whole = {"vocab": teacher.vocab_size, "positions": teacher.max_position_embeddings, "head_dim": shape.head_dim}
    shared = {axis: np.arange(size) for axis, size in whole.items()}
    return Keep(list(range(len(keep.layers))), {**shared, "hidden": hidden}, layered)


def by_worth(scores: np.ndarray) -> np.ndarray:
    """The order of units by score, the highest first; of equal ones the first: [C] to [C]."""
    return np.argsort(-scores, kind="stable")


def ordered(plans: Sequence[TensorPlan], shape: Shape, order: Keep) -> list[TensorPlan]:
    """The tensors of a student with the units of every axis in another order; one tensor is in memory at a time.

    Args:
        plans: The tensors.
        shape: The student's shape.
        order: The order, as indices into the student's units.
    """
    return [_ordered(plan, shape, order) for plan in plans]


def _ordered(plan: TensorPlan, shape: Shape, order: Keep) -> TensorPlan:
    place = shape.family.place(plan.name)
    assert place is not None  # a name that the cut gave
    positions = indices(place, shape.sizes(), order)
    expert = place.expert
    if expert is not None:
        expert = order.members("experts", place.layer).tolist().index(expert)
    name = shape.family.name_of(place.key, place.layer, expert)
    if all(np.array_equal(axis, np.arange(size)) for axis, size in zip(positions, plan.shape, strict=True)):
        return replace(plan, name=name)

    def pieces() -> list[bytes]:
        item = np.dtype(f"V{ITEM_BYTES[plan.dtype]}")
        whole = np.frombuffer(b"".join(plan.pieces()), item).reshape(plan.shape)
        return [whole[np.ix_(*positions)].tobytes()]

    return replace(plan, name=name, pieces=lambda: iter(pieces()))


def in_order(keep: Keep, order: Keep) -> Keep:
    """The units that a size keeps, as the teacher's indices in the order of the nest.

    Layers of the teacher that the size lacks keep their ascending order.
    """
    layered = {axis: list(rows) for axis, rows in keep.layered.items()}
    for axis, rows in order.layered.items():
        for layer, positions in zip(keep.layers, rows, strict=True):
            if isinstance(positions, list):  # neurons of experts, by the expert's number among the kept ones
                kept = keep.members("experts", layer).tolist()
                row = list(keep.layered[axis][layer])
                for number, expert in enumerate(kept):
                    row[expert] = np.asarray(row[expert])[positions[number]]
                layered[axis][layer] = row
            else:
                layered[axis][layer] = np.asarray(keep.layered[axis][layer])[positions]
    hidden = keep.shared["hidden"]
    if len(hidden) == len(order.shared["hidden"]):
        hidden = hidden[order.shared["hidden"]]
    return replace(keep, shared={**keep.shared, "hidden": hidden}, layered=layered)
