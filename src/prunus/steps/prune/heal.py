"""What can be put right about a cut before any training, layer by layer, from the two models' own activations.

    N sequences, S tokens of each, d, d' channels of teacher and student; B [d, d'] as in `bridge`

The residual streams of the calibration set are kept for both models and go through one layer at a time; a student's
layer is healed on the activations that the healed layers before it give, so that it also makes up for what they got
wrong. Where layers of the teacher were dropped, the layer before them aims at what they led to.
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
from prunus.steps.prune.activations import Side
from prunus.steps.prune.bridge import Bridge
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.refit import Gram, scale_products


@dataclass(frozen=True)
class Pair:
    """A layer of the teacher and what became of it in the student.

    Attributes:
        teacher: The teacher, its stream before the layer.
        student: The student, its stream before the layer.
        i: The layer's number in the teacher.
        j: Its number in the student.
        after: [N, S, d], the teacher's stream before the next layer that stays.
        gap: How many layers between the two were dropped.
    """

    teacher: Side
    student: Side
    i: int
    j: int
    after: torch.Tensor
    gap: int

    def look(self, *modules: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], slice]]:
        """Portion by portion: what each model's modules were given and gave, and the portion."""
        for rows in self.teacher.rows():
            yield self.teacher.look(self.i, rows, *modules), self.student.look(self.j, rows, *modules), rows


@torch.no_grad()
def heal(
    teacher: Side, student: Side, bridge: Bridge, ids: torch.Tensor, config: HealConfig, update: Callable[[int], None]
) -> None:
    """Change the student's gains and weights in place.

    Args:
        teacher: The teacher.
        student: What was cut from it, in float32.
        bridge: How they correspond.
        ids: The calibration set, [N, S].
        config: What to change.
        update: Is told how many layers are done.
    """
    teacher.start(ids)
    student.start(ids)
    ends = [*bridge.layers[1:], teacher.model.config.num_hidden_layers]
    for i in range(bridge.layers[0]):
        teacher.advance(i)
    for j, (first, end) in enumerate(zip(bridge.layers, ends, strict=True)):
        before = teacher.stream
        teacher.advance(first, *_looked_at(student, j, config))
        sizes = [_size(teacher.stream)]
        for i in range(first + 1, end):
            teacher.advance(i)
        sizes.append(_size(teacher.stream))
        after, teacher.stream = teacher.stream, before
        pair = Pair(teacher, student, first, j, after, end - first - 1)
        _heal_layer(pair, bridge, config)
        if pair.gap and config.depth == "magnitude":
            _shrink_later(student, j + 1, sizes[1] / sizes[0])
        student.advance(j)
        teacher.stream = after
        update(j + 1)
    _heal_end(teacher, student, bridge, config)


def _heal_layer(pair: Pair, bridge: Bridge, config: HealConfig) -> None:
    """Each norm, what reads it, and what then writes to the stream, in the order of the forward pass."""
    family, layer = pair.student.family, pair.student.layer(pair.j)
    norms = [norm for norm in family.norms[0] if norm in family.feeds]
    writers = linears(layer, family, "hidden", 1 if family.conv1d else 0)
    for number, norm in enumerate(norms):
        if config.norms:
            _scale_norm(pair, bridge, norm)
        if config.refit == "all":
            _refit_readers(pair, bridge, [name for name in family.feeds[norm] if is_linear(layer, name)], config.ridge)
        if config.refit != "none" and number < len(writers):
            refit = _refit_last if writers[number] == writers[-1] else _refit_writer
            refit(pair, bridge, writers[number], config.ridge)
    if pair.gap and config.refit == "none" and config.depth == "linear" and writers:
        _fold_gap(pair, bridge, writers[-1], config.ridge)


def _looked_at(student: Side, j: int, config: HealConfig) -> list[str]:
    """The modules of a layer that are looked at in the teacher."""
    family, layer = student.family, student.layer(j)
    norms = [norm for norm in family.norms[0] if norm in family.feeds]
    names = norms if config.norms else []
    if config.refit == "all":
        names = [*names, *(name for norm in norms for name in family.feeds[norm] if is_linear(layer, name))]
    if config.refit != "none":
        names = [*names, *linears(layer, family, "hidden", 1 if family.conv1d else 0)[:-1]]
    return names


def _scale_norm(pair: Pair, bridge: Bridge, norm: str) -> None:
    """One number for a norm's gain: Σ ⟨g ∘ Bᵀx̂, g ∘ x̂'⟩ / Σ ‖g ∘ x̂'‖², for the gain g that the cut left."""
    module = pair.student.layer(pair.j).get_submodule(norm)
    products = torch.zeros(2, dtype=torch.float64, device=bridge.basis.device)
    for seen_t, seen_s, _ in pair.look(norm):
        products += _norm_products(seen_t[norm][0], seen_s[norm][0], module, bridge, pair.student.family)
    _scale_gain(module, float(products[0] / products[1]) / bridge.scale(norm, pair.i), pair.student.family)


def _norm_products(x: torch.Tensor, x_s: torch.Tensor, norm: Any, bridge: Bridge, family: Family) -> torch.Tensor:
    gain = norm.weight.float() + family.gain_offset
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    wanted = normalised(x, family.layer_norm, epsilon) @ bridge.basis
    return scale_products(gain * wanted, gain * normalised(x_s, family.layer_norm, epsilon))


def _scale_gain(norm: Any, factor: float, family: Family) -> None:
    norm.weight.copy_((norm.weight + family.gain_offset) * factor - family.gain_offset)


def _refit_readers(pair: Pair, bridge: Bridge, names: list[str], ridge: float) -> None:
    """The linears that read one norm give what the teacher's give, of what stays: one fit, as they read the same."""
    if not names:
        return
    modules = [pair.student.layer(pair.j).get_submodule(name) for name in names]
    kept = [bridge.rows(name, pair.i) for name in names]
    gram: Gram | None = None
    for seen_t, seen_s, _ in pair.look(*names):
        wanted = [seen_t[name][1][..., rows] * factors for name, (rows, factors) in zip(names, kept, strict=True)]
        gram = _add(gram, seen_s[names[0]][0], wanted, modules)
    _refit(pair.student, modules, gram, ridge)


def _refit_writer(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """A linear that writes to the stream within a layer takes it where the teacher's takes its own."""
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    gram: Gram | None = None
    for seen_t, seen_s, rows in pair.look(name):
        x, y = seen_s[name][0], seen_t[name][1]
        stream = pair.teacher.stream[rows].to(y.device) + multiplier * y
        wanted = stream @ bridge.basis - pair.student.stream[rows].to(x.device)
        gram = _add(gram, x, [wanted / multiplier], [module], _rms(stream))
    _refit(pair.student, [module], gram, ridge)


def _refit_last(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """The last linear of a layer takes the stream to where the teacher's is before the next layer that stays."""
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    gram: Gram | None = None
    for rows in pair.student.rows():
        out, seen = pair.student.run(pair.j, pair.student.stream[rows], name)
        x, y = seen[name]
        after = pair.after[rows].to(out.device)
        wanted = after @ bridge.basis - (out - multiplier * y)
        gram = _add(gram, x, [wanted / multiplier], [module], _rms(after))
    _refit(pair.student, [module], gram, ridge)


def _fold_gap(pair: Pair, bridge: Bridge, name: str, ridge: float) -> None:
    """Fold what dropped layers did, as one linear map, into what is written before them.

    T = argmin ‖M T - (Y - (x - M))‖² for the output M of the last linear, the stream x after it and the wanted Y; then
    W ← Tᵀ W (Shopkhoev et al. 2025, ReplaceMe, arXiv 2505.02819).
    """
    module = pair.student.layer(pair.j).get_submodule(name)
    multiplier = residual_multiplier(pair.student)
    width = bridge.basis.shape[1]
    gram = Gram.empty(width, width, bridge.basis.device)
    for rows in pair.student.rows():
        out, seen = pair.student.run(pair.j, pair.student.stream[rows], name)
        written = multiplier * seen[name][1]
        gram.add(written, pair.after[rows].to(out.device) @ bridge.basis - (out - written))
    turn = gram.fit(torch.eye(width, device=bridge.basis.device), ridge)
    for parameter in module.parameters():
        as_rows = parameter.T if parameter.ndim == 2 and pair.student.family.conv1d else parameter
        as_rows.copy_(turn @ as_rows)


def _shrink_later(student: Side, first: int, growth: float) -> None:
    """Divide all that later layers write by how much the dropped layers let the stream grow.

    The stream that goes on is then as large beside what is added to it as it was. Prune&Comp (Chen et al. 2025, arXiv
    2507.18212) multiplies what comes before instead, which tied embeddings do not allow.
    """
    for j in range(first, student.model.config.num_hidden_layers):
        layer = student.layer(j)
        for name in linears(layer, student.family, "hidden", 1 if student.family.conv1d else 0):
            for parameter in layer.get_submodule(name).parameters():
                parameter.div_(growth)


def _heal_end(teacher: Side, student: Side, bridge: Bridge, config: HealConfig) -> None:
    """The final norm, and an LM head of its own."""
    family = student.family
    (name,) = family.norms[1]
    norm_t, norm_s = teacher.model.get_submodule(name), student.model.get_submodule(name)
    if config.norms:
        products = torch.zeros(2, dtype=torch.float64, device=bridge.basis.device)
        for rows in teacher.rows():
            x, x_s = (side.stream[rows].to(bridge.basis.device) for side in (teacher, student))
            products += _norm_products(x.to(bridge.basis.dtype), x_s, norm_s, bridge, family)
        _scale_gain(norm_s, float(products[0] / products[1]) / bridge.scale(name, None), family)
    head_t, head_s = teacher.model.get_output_embeddings(), student.model.get_output_embeddings()
    tied = head_s.weight is student.model.get_input_embeddings().weight
    if config.refit == "all" and not tied:
        gram = Gram.empty(bridge.basis.shape[1], bridge.basis.shape[0], bridge.basis.device)
        for rows in teacher.rows():
            x, x_s = (side.stream[rows].to(bridge.basis.device) for side in (teacher, student))
            gram.add(norm_s(x_s), norm_t(x.to(norm_t.weight.dtype)))
        gram.outputs = head_t.weight.double() @ gram.outputs  # Σ y xᵀ = W_T Σ n_T n_Sᵀ: no logits are made
        head_s.weight.copy_(gram.fit(head_s.weight, config.ridge))


def _add(
    gram: Gram | None,
    x: torch.Tensor,
    wanted: list[torch.Tensor],
    modules: list[Any],
    size: torch.Tensor | None = None,
) -> Gram:
    """Add a portion of what modules that read the same are to give, less what the bias of each gives."""
    y = torch.cat([y if m.bias is None else y - m.bias for y, m in zip(wanted, modules, strict=True)], dim=-1)
    gram = gram or Gram.empty(x.shape[-1], y.shape[-1], x.device)
    gram.add(x, y, size)
    return gram


def _rms(stream: torch.Tensor) -> torch.Tensor:
    """The root mean square of each token's stream, by which the norm that reads it divides: [..., d] to [...]."""
    return stream.float().square().mean(-1).sqrt().clamp_min(1e-30)


def _refit(student: Side, modules: list[Any], gram: Gram | None, ridge: float) -> None:
    assert gram is not None  # there is at least one portion
    weights = [module.weight.T if student.family.conv1d else module.weight for module in modules]
    fitted = gram.fit(torch.cat(weights), ridge)
    for weight, part in zip(weights, fitted.split([len(weight) for weight in weights]), strict=True):
        weight.copy_(part)


def _size(stream: torch.Tensor) -> float:
    return float(stream.abs().mean(dtype=torch.float64))


def linears(layer: nn.Module, family: Family, axis: str, dim: int) -> list[str]:
    """The linear modules of a layer of which dimension `dim` of the weight runs over `axis`, in the table's order."""
    names = [
        key.removesuffix(".weight") for key, line in family.layered.items() if parse_weight(line).runs_over(axis, dim)
    ]
    return [name for name in names if is_linear(layer, name)]


def is_linear(layer: nn.Module, name: str) -> bool:
    """Whether a module of the table is a linear of its own in memory: routers and stacked experts are not."""
    try:
        module = layer.get_submodule(name)
    except AttributeError:
        return False
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def residual_multiplier(side: Side) -> float:
    """What all that the layers write is multiplied by."""
    key = side.family.residual_multiplier
    return float(getattr(side.model.config, key)) if key else 1.0
