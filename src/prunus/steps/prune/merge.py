"""Merges experts in place of dropping them: which ones, how their neurons correspond, and by what weights.

E experts of a layer, C neurons of each, F weights of a neuron

Clusters are those of HC-SMoE (Chen et al. 2024, arXiv 2410.08589), which joins experts by the distance of their mean
outputs. Here it is the distance of their outputs to the same tokens, so that experts that differ only on some texts
are told apart. Neurons are matched by their weights as in Git Re-Basin (Ainsworth et al. 2022, arXiv 2209.04836,
section 3.2), greedily instead of by an optimal assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from prunus.errors import ModelError
from prunus.models.axes import Weight, parse_weight, positions
from prunus.models.checkpoint import TensorInfo, read_bytes
from prunus.models.families.family import Place
from prunus.models.shape import Shape
from prunus.models.values import from_float, is_finite, to_float


@dataclass(frozen=True)
class Group:
    """The experts of a layer that become one.

    Attributes:
        experts: Their numbers in the teacher. The first gives the others its order of neurons, and its place.
        weights: Their shares of the tokens that are routed to the group: they sum to 1.
    """

    experts: tuple[int, ...]
    weights: tuple[float, ...]


def distances(products: np.ndarray) -> np.ndarray:
    """√Σ |f_i - f_j|² between the outputs of all experts, from Σ f_i · f_j: [E, E] to [E, E]."""
    squares = np.diagonal(products)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0))


def clusters(distance: np.ndarray, count: int) -> list[list[int]]:
    """Agglomerative clusters by average linkage: [E, E] to `count` lists of experts, each ascending."""
    groups = [[expert] for expert in range(len(distance))]
    between = distance.astype(np.float64)
    np.fill_diagonal(between, np.inf)
    while len(groups) > count:
        i, j = sorted(np.unravel_index(np.argmin(between), between.shape))
        sizes = len(groups[i]), len(groups[j])
        between[i] = between[:, i] = (sizes[0] * between[i] + sizes[1] * between[j]) / sum(sizes)
        between[i, i] = np.inf
        between = np.delete(np.delete(between, j, axis=0), j, axis=1)
        groups[i] = sorted(groups[i] + groups.pop(j))
    return groups


def nearest(distance: np.ndarray, kept: Sequence[int]) -> list[list[int]]:
    """The kept experts, each with all others that are nearer to it than to another kept one."""
    groups = {expert: [expert] for expert in kept}
    for expert in set(range(len(distance))) - set(kept):
        groups[min(kept, key=lambda other: distance[expert, other])].append(expert)
    return [sorted(group) for group in groups.values()]


def group_of(experts: Sequence[int], scores: np.ndarray, tokens: np.ndarray) -> Group:
    """A group of experts, the one of the highest score first.

    Args:
        experts: Their numbers.
        scores: The importance of each expert of the layer, [E].
        tokens: The tokens that are routed to each, [E]. If none is to any of the group, weights are equal.
    """
    ordered = sorted(experts, key=lambda expert: (-scores[expert], expert))
    uses = tokens[ordered] if tokens[ordered].sum() else np.ones(len(ordered))
    return Group(tuple(ordered), tuple((uses / uses.sum()).tolist()))


def matched(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The neuron of another expert that corresponds to each neuron of the reference: two [C, F] to [C].

    The pair of the largest product a_n · b_m is matched, then the largest of the remaining neurons, and so on. If the
    other has the same neurons in another order, this finds the order.
    """
    products = reference @ other.T
    result = np.full(len(products), -1)
    rows, columns = np.arange(len(products)), np.arange(len(products))
    while len(rows):
        left = products[np.ix_(rows, columns)]
        best = left.argmax(axis=1)  # pairs that are each other's best are those that the greedy order would reach
        mutual = left.argmax(axis=0)[best] == np.arange(len(rows))
        result[rows[mutual]] = columns[best[mutual]]
        rows, columns = rows[~mutual], np.delete(columns, best[mutual])
    return result


class Merged:
    """The tensors of merged experts, computed from the teacher's files.

    Attributes:
        groups: For each layer of the teacher, the groups by their first expert.
    """

    def __init__(
        self, tensors: Mapping[str, TensorInfo], teacher: Shape, groups: list[dict[int, Group]], layers: list[int],
        update: Callable[[int], None],
    ) -> None:  # fmt: skip
        """Find the correspondence of neurons in `layers`; `update` is called with the number of layers done.

        Raises:
            ModelError: A weight holds NaN or infinity.
        """
        self.groups, self._sizes = groups, teacher.sizes()
        self._parts = _expert_tensors(tensors, teacher)
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        for done, layer in enumerate(layers, start=1):
            for first, group in groups[layer].items():
                if len(group.experts) == 1:
                    continue
                reference = self._neurons(layer, first)
                for expert in group.experts[1:]:
                    self._orders[layer, expert] = matched(reference, self._neurons(layer, expert))
            update(done)

    def _neurons(self, layer: int, expert: int) -> np.ndarray:
        """All weights of each neuron of an expert, [C, F] in float32."""
        found = []
        for (one, _), (weight, infos) in self._parts.items():
            if one != layer or not weight.has("mlp"):
                continue
            values = _values(infos[expert]).astype(np.float32)
            (dim,) = (d for d, segments in enumerate(weight.dims) if any("mlp" in segment for segment in segments))
            for_each = [
                np.take(values, positions(weight, self._sizes, self._one_neuron(n))[dim], axis=dim).ravel()
                for n in range(self._sizes["mlp"])
            ]
            found.append(np.stack(for_each))
        return np.concatenate(found, axis=1)

    def _one_neuron(self, neuron: int) -> Callable[[str], np.ndarray]:
        return lambda axis: np.array([neuron]) if axis == "mlp" else np.arange(self._sizes[axis])

    def changes(self, place: Place) -> bool:
        """Whether a weight is one of a merged expert, or the router's."""
        if place.layer is None or not self.groups[place.layer]:
            return False
        if place.expert is not None:
            return len(self.groups[place.layer][place.expert].experts) > 1
        return place.weight.has("experts")

    def read(self, place: Place, info: TensorInfo, members: Callable[[str], np.ndarray]) -> Iterator[bytes]:
        """The kept part of a weight that `changes`, as one piece.

        An expert's is the weighted mean of the group's experts, their neurons in the order of the first; so is a row
        of the router.

        Args:
            place: The weight; of an expert, of the first of its group.
            info: Its tensor.
            members: The kept units of each axis.
        """
        assert place.layer is not None
        groups = self.groups[place.layer]
        if place.expert is None:
            values = _values(info)
            dim = place.weight.dims.index((("experts",),))
            kept = positions(place.weight, self._sizes, members)
            for first, group in groups.items():
                rows = np.take(values, group.experts, axis=dim)
                np.moveaxis(values, dim, 0)[first] = np.average(rows, axis=dim, weights=group.weights)
            yield from_float(values[np.ix_(*kept)], info.dtype)
            return
        total: np.ndarray | float = 0.0
        group = groups[place.expert]
        _, infos = self._parts[place.layer, place.key]
        for expert, weight in zip(group.experts, group.weights, strict=True):
            order = self._orders.get((place.layer, expert), np.arange(self._sizes["mlp"]))
            indices = positions(place.weight, self._sizes, partial(_in_order, order, members))
            total = total + weight * _values(infos[expert])[np.ix_(*indices)]
        yield from_float(np.asarray(total), info.dtype)


def _in_order(order: np.ndarray, members: Callable[[str], np.ndarray], axis: str) -> np.ndarray:
    """The kept units of an axis, neurons as another expert numbers them."""
    kept = members(axis)
    return np.asarray(order[kept]) if axis == "mlp" else kept


def _expert_tensors(
    tensors: Mapping[str, TensorInfo], teacher: Shape
) -> dict[tuple[int, str], tuple[Weight, dict[int, TensorInfo]]]:
    """By layer and key of the table: an expert's line, and the tensor of each expert, a part of one if stacked."""
    result: dict[tuple[int, str], tuple[Weight, dict[int, TensorInfo]]] = {}
    for name, info in tensors.items():
        place = teacher.family.place(name)
        if place is None or place.layer is None or not place.weight.exists(teacher.flags):
            continue
        line = parse_weight(teacher.family.layered[place.key])
        if place.expert is not None:
            result.setdefault((place.layer, place.key), (line, {}))[1][place.expert] = info
        elif line.stacked:
            size = info.nbytes // info.shape[0]
            parts = {
                expert: replace(info, shape=info.shape[1:], data=info.data + expert * size)
                for expert in range(info.shape[0])
            }
            result[place.layer, place.key] = replace(line, stacked=False), parts
    return result


def _values(info: TensorInfo) -> np.ndarray:
    """All values of a tensor, in float64.

    Raises:
        ModelError: One is NaN or infinity.
    """
    data = read_bytes(info)
    if not is_finite(data, info.dtype):
        raise ModelError(f"{info.file}: {info.name} holds NaN or infinity")
    return to_float(data, info.dtype).reshape(info.shape)
