"""Healing: corrects a student's gains and weights in closed form, layer by layer, from the activations of both models.

    N sequences, S tokens of each, d, d' channels of teacher and student; B [d, d'] as in `bridge`

Both models run over the calibration set one layer at a time. A layer of the student is healed on the output of the
healed layers before it, so it also corrects their remaining error. If layers of the teacher were dropped, the target
of the layer before them is the stream after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from prunus.models.families.family import Family
from prunus.steps.prune.activations import LayerRunner
from prunus.steps.prune.bridge import Bridge
from prunus.steps.prune.dropped import divide_later_outputs, fold_dropped_layers, magnitude
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.norm_fit import Reader, best_scale, norm_sums, reader_sums, scale_gain, weight_of
from prunus.steps.prune.pair import Pair, is_linear, norms_and_writers, residual_multiplier
from prunus.steps.prune.refit import Gram, Inner


@torch.no_grad()
def heal(
    teacher: LayerRunner,
    student: LayerRunner,
    bridge: Bridge,
    ids: torch.Tensor,
    config: HealConfig,
    update: Callable[[int], None],
) -> None:
    """Change the student's gains and weights in place.

    Args:
        teacher: The teacher.
        student: The student, in float32.
        bridge: Maps the teacher's activations to the student's coordinates.
        ids: The calibration set, [N, S].
        config: What to change; `refit` must not be `auto`.
        update: Called with the number of layers done.
    """
    teacher.start(ids)
    student.start(ids)
    heal_from(0, teacher, student, bridge, config, update)


@torch.no_grad()
def heal_from(
    start: int,
    teacher: LayerRunner,
    student: LayerRunner,
    bridge: Bridge,
    config: HealConfig,
    update: Callable[[int], None],
) -> None:
    """Heal the student from layer `start` on; see `heal`.

    Both streams are before the layer of that index, in teacher and student: none of the layers before was dropped.
    """
    kept = [*bridge.layers, teacher.model.config.num_hidden_layers]
    for i in range(start, kept[start]):
        teacher.advance(i)
    for j in range(start, len(bridge.layers)):
        first, end = kept[j : j + 2]
        if end == first + 1 and _is_same(teacher, student, bridge, first, j):
            teacher.advance(first)
            student.stream = teacher.stream
            update(j + 1)
            continue
        before = teacher.stream
        teacher.advance(first, *_modules_to_compare(student.layer(j), student.family, config))
        magnitudes = [magnitude(teacher.stream)]
        for i in range(first + 1, end):
            teacher.advance(i)
        magnitudes.append(magnitude(teacher.stream))
        after, teacher.stream = teacher.stream, before
        pair = Pair(teacher, student, first, j, after, end - first - 1)
        _heal_layer(pair, bridge, config)
        if pair.dropped and config.depth == "magnitude":
            divide_later_outputs(student, j + 1, magnitudes[1] / magnitudes[0])
        student.advance(j)
        teacher.stream = after
        update(j + 1)
    _heal_final_norm_and_head(teacher, student, bridge, config)


def _is_same(teacher: LayerRunner, student: LayerRunner, bridge: Bridge, i: int, j: int) -> bool:
    """Whether a layer and its input are those of the teacher, so that a fit would change nothing."""
    if not bridge.is_identity or teacher.model.dtype != student.model.dtype:
        return False
    weights = [dict(layer.state_dict()) for layer in (teacher.layer(i), student.layer(j))]
    return torch.equal(teacher.stream, student.stream) and all(
        torch.equal(weight, weights[1][name]) for name, weight in weights[0].items()
    )


def _heal_layer(pair: Pair, bridge: Bridge, config: HealConfig) -> None:
    """Heal each norm, the linear layers that read it, and the one that writes the stream, in forward order."""
    norms, writers = norms_and_writers(pair.student.layer(pair.j), pair.student.family)
    for number, norm in enumerate(norms):
        _heal_norm(pair, bridge, norm, config)
        # of a parallel block, one norm is read by attention and MLP: the last norm comes before all that is left
        end = number + 1 if norm != norms[-1] else None
        for writer in writers[number:end] if config.refit != "none" else ():
            # in a mixture, experts may follow the last linear layer: what they add is no part of its target, unless
            # nothing else can make up for dropped layers
            ends = writer == writers[-1] and (norm == norms[-1] or pair.dropped > 0)
            refit = _refit_last if ends else _refit_writer
            refit(pair, bridge, writer, config.ridge)
    if pair.dropped and config.refit == "none" and config.depth == "linear" and writers:
        fold_dropped_layers(pair, bridge, writers[-1], config.ridge)


def _modules_to_compare(layer: nn.Module, family: Family, config: HealConfig) -> list[str]:
    """The modules of a layer whose activations in the teacher are needed."""
    norms, writers = norms_and_writers(layer, family)
    return [
        *(norms if config.norms or config.refit == "all" else ()),
        *(writers[:-1] if config.refit != "none" else ()),
    ]


def _heal_norm(pair: Pair, bridge: Bridge, norm: str, config: HealConfig) -> None:
    """Heal a norm of the layer and the linear layers that read it."""
    layers = (pair.teacher.layer(pair.i), pair.student.layer(pair.j))
    names = [name for name in pair.student.family.feeds[norm] if is_linear(layers[1], name)]
    readers = [
        Reader(layers[0].get_submodule(name), layers[1].get_submodule(name), *bridge.rows(name, pair.i))
        for name in names
        if config.refit == "all"
    ]
    streams = (
        (pair.teacher.activations(pair.i, rows, norm)[norm][0], pair.student.input(pair.j, rows, norm))
        for rows in pair.student.rows()
    )
    norms = (layers[0].get_submodule(norm), layers[1].get_submodule(norm))
    _heal_norm_and_readers(norms, streams, readers, bridge, bridge.scale(norm, pair.i), config, pair.student.family)


def _heal_norm_and_readers(
    norms: tuple[Any, Any],
    streams: Iterable[tuple[torch.Tensor, torch.Tensor]],
    readers: list[Reader],
    bridge: Bridge,
    applied: float,
    config: HealConfig,
    family: Family,
) -> None:
    """Scale a norm's gain, and refit the linear layers that read the norm, in one pass over the calibration set.

    Args:
        norms: The norm in teacher and student.
        streams: Micro-batches of what the two norms read, [..., d] and [..., d'].
        readers: The linear layers to refit.
        bridge: Maps the teacher's activations to the student's coordinates.
        applied: The factor that the cut applied to the gain.
        config: What to change.
        family: The models' family.
    """
    if not config.norms and not readers:
        return
    sums = norm_sums(norms, streams, bridge.basis, family)
    if config.norms:
        scale_gain(norms[1], best_scale(sums, norms[1], bridge.basis, family) / applied, family)
    if readers:
        _refit([reader.student for reader in readers], reader_sums(sums, norms, readers, family), config.ridge, bridge)


def _refit_writer(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Refit a linear layer that writes the stream within a layer, so that the stream equals the teacher's there."""
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    gram = _empty_gram(module)
    for rows in pair.student.rows():
        x, y = pair.student.input(pair.j, rows, name), pair.teacher.activations(pair.i, rows, name)[name][1]
        pair.student.keep_input(pair.j, rows, name, x)
        stream = pair.teacher.stream[rows].to(y.device)
        stream = stream + multiplier * y.view_as(stream)  # in some mixtures, y has all tokens in one dimension
        target = bridge.project(stream) - pair.student.stream[rows].to(x.device)
        _add(gram, x, target / multiplier, module, _rms(stream))
    _refit([module], gram, ridge, bridge)


def _refit_last(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Refit the last linear layer of a layer, so that the stream equals the teacher's before the next kept layer."""
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    gram = _empty_gram(module)
    for rows in pair.student.rows():
        out, captured = pair.student.run(pair.j, rows, name)
        x, y = captured[name]
        pair.student.keep_input(pair.j, rows, name, x)
        after = pair.after[rows].to(out.device)
        target = bridge.project(after) - (out - multiplier * y.view_as(out))
        _add(gram, x, target / multiplier, module, _rms(after))
    _refit([module], gram, ridge, bridge)


def _heal_final_norm_and_head(teacher: LayerRunner, student: LayerRunner, bridge: Bridge, config: HealConfig) -> None:
    """Heal the final norm, and the LM head unless it is tied."""
    (name,) = student.family.norms[1]
    heads = (teacher.model.get_output_embeddings(), student.model.get_output_embeddings())
    device = bridge.basis.device
    readers = []
    if config.refit == "all" and heads[1].weight is not student.model.get_input_embeddings().weight:
        rows = torch.arange(len(heads[1].weight), device=device)
        readers.append(Reader(*heads, rows, torch.ones(len(rows), device=device)))
    streams = ((teacher.stream[rows].to(device), student.stream[rows].to(device)) for rows in teacher.rows())
    norms = tuple(one.model.get_submodule(one.family.module_name(name)) for one in (teacher, student))
    _heal_norm_and_readers(norms, streams, readers, bridge, bridge.scale(name, None), config, student.family)


def _empty_gram(module: nn.Module) -> Gram:
    weight = weight_of(module)
    return Gram.empty(weight.shape[1], weight.shape[0], weight.device)


def _add(gram: Gram, x: torch.Tensor, y: torch.Tensor, module: Any, size: torch.Tensor) -> None:
    """Add a micro-batch of inputs and targets of a linear layer, whose bias is subtracted."""
    gram.add(x, y if module.bias is None else y - module.bias, size)


def _rms(stream: torch.Tensor) -> torch.Tensor:
    """The root mean square of each token's stream, by which the norm that reads it divides: [..., d] to [...]."""
    return stream.float().square().mean(-1).sqrt().clamp_min(1e-30)


def _refit(modules: list[Any], gram: Gram, ridge: float, bridge: Bridge) -> None:
    """Fit the weights of linear layers with the same input."""
    weights = [weight_of(module) for module in modules]
    sizes = [len(weight) for weight in weights]
    fitted = gram.fit(torch.cat(weights), ridge, _joined([bridge.inner.get(module) for module in modules], sizes))
    for weight, part in zip(weights, fitted.split(sizes), strict=True):
        weight.copy_(part)


def _joined(inner: list[Inner | None], sizes: list[int]) -> Inner | None:
    """What a smaller size has of linear layers with the same input, whose outputs follow one another."""
    starts = [0, *accumulate(sizes[:-1])]
    found = [(one, start) for one, start in zip(inner, starts, strict=True) if one is not None]
    if not found:
        return None
    return replace(found[0][0], rows=torch.cat([one.rows + start for one, start in found]))
