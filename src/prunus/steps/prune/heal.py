"""Healing: corrects a student's gains and weights in closed form, layer by layer, from the activations of both models.

    N sequences, S tokens of each, d, d' channels of teacher and student; B [d, d'] as in `bridge`

Both models run over the calibration set one layer at a time. A layer of the student is healed on the output of the
healed layers before it, so it also corrects their remaining error. If layers of the teacher were dropped, the target
of the layer before them is the stream after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunus.models.axes import parse_weight
from prunus.models.families.family import Family
from prunus.models.norms import normalised
from prunus.steps.prune.activations import LayerRunner
from prunus.steps.prune.bridge import Bridge
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.refit import Gram, scale_products


@dataclass(frozen=True)
class Pair:
    """A kept layer, in the teacher and in the student.

    Attributes:
        teacher: The teacher, with its stream before the layer.
        student: The student, with its stream before the layer.
        i: The layer's index in the teacher.
        j: The layer's index in the student.
        after: [N, S, d], the teacher's stream before the next kept layer.
        dropped: How many layers between this and the next kept layer were dropped.
    """

    teacher: LayerRunner
    student: LayerRunner
    i: int
    j: int
    after: torch.Tensor
    dropped: int

    def activations(self, *modules: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], slice]]:
        """For each micro-batch: `(input, output)` of the modules by name in teacher and student, and its slice."""
        for rows in self.teacher.rows():
            activations_t = self.teacher.activations(self.i, rows, *modules)
            yield activations_t, self.student.activations(self.j, rows, *modules), rows


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
    ends = [*bridge.layers[1:], teacher.model.config.num_hidden_layers]
    for i in range(bridge.layers[0]):
        teacher.advance(i)
    for j, (first, end) in enumerate(zip(bridge.layers, ends, strict=True)):
        before = teacher.stream
        teacher.advance(first, *_modules_to_compare(student, j, config))
        magnitudes = [_magnitude(teacher.stream)]
        for i in range(first + 1, end):
            teacher.advance(i)
        magnitudes.append(_magnitude(teacher.stream))
        after, teacher.stream = teacher.stream, before
        pair = Pair(teacher, student, first, j, after, end - first - 1)
        _heal_layer(pair, bridge, config)
        if pair.dropped and config.depth == "magnitude":
            _divide_later_outputs(student, j + 1, magnitudes[1] / magnitudes[0])
        student.advance(j)
        teacher.stream = after
        update(j + 1)
    _heal_final_norm_and_head(teacher, student, bridge, config)


def _heal_layer(pair: Pair, bridge: Bridge, config: HealConfig) -> None:
    """Heal each norm, the linear layers that read it, and the one that writes the stream, in forward order."""
    family, layer = pair.student.family, pair.student.layer(pair.j)
    norms = [norm for norm in family.norms[0] if norm in family.feeds]
    writers = linear_names(layer, family, "hidden", 1 if family.conv1d else 0)
    for number, norm in enumerate(norms):
        if config.norms:
            _scale_norm(pair, bridge, norm)
        if config.refit == "all":
            _refit_readers(pair, bridge, [name for name in family.feeds[norm] if is_linear(layer, name)], config.ridge)
        if config.refit != "none" and number < len(writers):
            refit = _refit_last if writers[number] == writers[-1] else _refit_writer
            refit(pair, bridge, writers[number], config.ridge)
    if pair.dropped and config.refit == "none" and config.depth == "linear" and writers:
        _fold_dropped_layers(pair, bridge, writers[-1], config.ridge)


def _modules_to_compare(student: LayerRunner, j: int, config: HealConfig) -> list[str]:
    """The modules of a layer whose activations in the teacher are needed."""
    family, layer = student.family, student.layer(j)
    norms = [norm for norm in family.norms[0] if norm in family.feeds]
    names = norms if config.norms else []
    if config.refit == "all":
        names = [*names, *(name for norm in norms for name in family.feeds[norm] if is_linear(layer, name))]
    if config.refit != "none":
        names = [*names, *linear_names(layer, family, "hidden", 1 if family.conv1d else 0)[:-1]]
    return names


def _scale_norm(pair: Pair, bridge: Bridge, norm: str) -> None:
    """Scale a norm's gain by Σ ⟨g ∘ Bᵀx̂, g ∘ x̂'⟩ / Σ ‖g ∘ x̂'‖², where g is the student's gain after the cut."""
    module = pair.student.layer(pair.j).get_submodule(norm)
    products = torch.zeros(2, dtype=torch.float64, device=bridge.basis.device)
    for in_teacher, in_student, _ in pair.activations(norm):
        products += _norm_products(in_teacher[norm][0], in_student[norm][0], module, bridge, pair.student.family)
    _scale_gain(module, float(products[0] / products[1]) / bridge.scale(norm, pair.i), pair.student.family)


def _norm_products(x: torch.Tensor, x_s: torch.Tensor, norm: Any, bridge: Bridge, family: Family) -> torch.Tensor:
    gain = norm.weight.float() + family.gain_offset
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    target = normalised(x, family.layer_norm, epsilon) @ bridge.basis
    return scale_products(gain * target, gain * normalised(x_s, family.layer_norm, epsilon))


def _scale_gain(norm: Any, factor: float, family: Family) -> None:
    norm.weight.copy_((norm.weight + family.gain_offset) * factor - family.gain_offset)


def _refit_readers(pair: Pair, bridge: Bridge, names: list[str], ridge: float) -> None:
    """Refit the linear layers that read one norm to the kept outputs of the teacher's, in one fit."""
    if not names:
        return
    modules = [pair.student.layer(pair.j).get_submodule(name) for name in names]
    kept = [bridge.rows(name, pair.i) for name in names]
    gram: Gram | None = None
    for in_teacher, in_student, _ in pair.activations(*names):
        targets = [in_teacher[name][1][..., rows] * factors for name, (rows, factors) in zip(names, kept, strict=True)]
        gram = _add(gram, in_student[names[0]][0], targets, modules)
    _refit(pair.student, modules, gram, ridge)


def _refit_writer(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Refit a linear layer that writes the stream within a layer, so that the stream equals the teacher's there."""
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    gram: Gram | None = None
    for in_teacher, in_student, rows in pair.activations(name):
        x, y = in_student[name][0], in_teacher[name][1]
        stream = pair.teacher.stream[rows].to(y.device) + multiplier * y
        target = stream @ bridge.basis - pair.student.stream[rows].to(x.device)
        gram = _add(gram, x, [target / multiplier], [module], _rms(stream))
    _refit(pair.student, [module], gram, ridge)


def _refit_last(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Refit the last linear layer of a layer, so that the stream equals the teacher's before the next kept layer."""
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    gram: Gram | None = None
    for rows in pair.student.rows():
        out, captured = pair.student.run(pair.j, pair.student.stream[rows], name)
        x, y = captured[name]
        after = pair.after[rows].to(out.device)
        target = after @ bridge.basis - (out - multiplier * y)
        gram = _add(gram, x, [target / multiplier], [module], _rms(after))
    _refit(pair.student, [module], gram, ridge)


def _fold_dropped_layers(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Approximate the dropped layers by one linear map, folded into the last linear layer before them.

    T = argmin ‖M T - (Y - (x - M))‖² for the output M of that linear layer, the stream x after it and the target
    stream Y; then W ← Tᵀ W (Shopkhoev et al. 2025, ReplaceMe, arXiv 2505.02819).
    """
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    width = bridge.basis.shape[1]
    gram = Gram.empty(width, width, bridge.basis.device)
    for rows in pair.student.rows():
        out, captured = pair.student.run(pair.j, pair.student.stream[rows], name)
        output = multiplier * captured[name][1]
        gram.add(output, pair.after[rows].to(out.device) @ bridge.basis - (out - output))
    linear_map = gram.fit(torch.eye(width, device=bridge.basis.device), ridge)
    for parameter in module.parameters():
        as_rows = parameter.T if parameter.ndim == 2 and pair.student.family.conv1d else parameter
        as_rows.copy_(linear_map @ as_rows)


def _divide_later_outputs(student: LayerRunner, first: int, growth: float) -> None:
    """Divide the outputs of all later layers by the factor by which the stream grew over the dropped layers.

    This restores the ratio of the stream to what later layers add to it. Prune&Comp (Chen et al. 2025, arXiv
    2507.18212) multiplies the weights before the dropped layers instead, which tied embeddings do not allow.
    """
    for j in range(first, student.model.config.num_hidden_layers):
        layer = student.layer(j)
        for name in linear_names(layer, student.family, "hidden", 1 if student.family.conv1d else 0):
            for parameter in layer.get_submodule(name).parameters():
                parameter.div_(growth)


def _heal_final_norm_and_head(teacher: LayerRunner, student: LayerRunner, bridge: Bridge, config: HealConfig) -> None:
    """Heal the final norm, and the LM head unless it is tied."""
    family = student.family
    (name,) = family.norms[1]
    norm_t, norm_s = teacher.model.get_submodule(name), student.model.get_submodule(name)
    if config.norms:
        products = torch.zeros(2, dtype=torch.float64, device=bridge.basis.device)
        for rows in teacher.rows():
            x, x_s = (runner.stream[rows].to(bridge.basis.device) for runner in (teacher, student))
            products += _norm_products(x.to(bridge.basis.dtype), x_s, norm_s, bridge, family)
        _scale_gain(norm_s, float(products[0] / products[1]) / bridge.scale(name, None), family)
    head_t, head_s = teacher.model.get_output_embeddings(), student.model.get_output_embeddings()
    tied = head_s.weight is student.model.get_input_embeddings().weight
    if config.refit == "all" and not tied:
        gram = Gram.empty(bridge.basis.shape[1], bridge.basis.shape[0], bridge.basis.device)
        for rows in teacher.rows():
            x, x_s = (runner.stream[rows].to(bridge.basis.device) for runner in (teacher, student))
            gram.add(norm_s(x_s), norm_t(x.to(norm_t.weight.dtype)))
        gram.outputs = head_t.weight.double() @ gram.outputs  # Σ y xᵀ = W_T Σ n_T n_Sᵀ, without computing logits
        head_s.weight.copy_(gram.fit(head_s.weight, config.ridge))


def _add(
    gram: Gram | None,
    x: torch.Tensor,
    targets: list[torch.Tensor],
    modules: list[Any],
    size: torch.Tensor | None = None,
) -> Gram:
    """Add a micro-batch of inputs and targets of modules with the same input; their biases are subtracted."""
    y = torch.cat([y if m.bias is None else y - m.bias for y, m in zip(targets, modules, strict=True)], dim=-1)
    gram = gram or Gram.empty(x.shape[-1], y.shape[-1], x.device)
    gram.add(x, y, size)
    return gram


def _rms(stream: torch.Tensor) -> torch.Tensor:
    """The root mean square of each token's stream, by which the norm that reads it divides: [..., d] to [...]."""
    return stream.float().square().mean(-1).sqrt().clamp_min(1e-30)


def _refit(student: LayerRunner, modules: list[Any], gram: Gram | None, ridge: float) -> None:
    assert gram is not None  # there is at least one micro-batch
    weights = [module.weight.T if student.family.conv1d else module.weight for module in modules]
    fitted = gram.fit(torch.cat(weights), ridge)
    for weight, part in zip(weights, fitted.split([len(weight) for weight in weights]), strict=True):
        weight.copy_(part)


def _magnitude(stream: torch.Tensor) -> float:
    return float(stream.abs().mean(dtype=torch.float64))


def linear_names(layer: nn.Module, family: Family, axis: str, dim: int) -> list[str]:
    """Names of a layer's linear modules whose weight has `axis` as dimension `dim`, in the table's order."""
    names = [
        key.removesuffix(".weight") for key, line in family.layered.items() if parse_weight(line).runs_over(axis, dim)
    ]
    return [name for name in names if is_linear(layer, name)]


def is_linear(layer: nn.Module, name: str) -> bool:
    """Whether a name in the table is a linear module in transformers: routers and stacked experts are not."""
    try:
        module = layer.get_submodule(name)
    except AttributeError:
        return False
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def residual_multiplier(runner: LayerRunner) -> float:
    """The factor on everything that layers write to the residual stream."""
    key = runner.family.residual_multiplier
    return float(getattr(runner.model.config, key)) if key else 1.0
