"""Healing against a slow reference: in float64, whole models run for every fit, on all tokens at once."""

from collections.abc import Callable
from itertools import zip_longest
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.models.families.family import Family
from prunus.steps.prune.activations import LayerRunner
from prunus.steps.prune.bridge import Bridge
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.pair import is_linear, norms_and_writers, residual_multiplier
from tests.families import make_teacher
from tests.steps.prune.test_heal import healed, tokens  # noqa: F401
from tests.tiny import load

ALL = {"norms": True, "refit": "all", "samples": 48}


@torch.no_grad()
def reference(
    teacher: LayerRunner, student: LayerRunner, bridge: Bridge, ids: torch.Tensor, config: HealConfig, _: Callable
) -> None:
    """As `heal`."""
    t, s = teacher.model.double(), student.model.double()
    for model in (t, s) if student.family.experts else ():
        model.set_experts_implementation("eager")  # the grouped product takes no float64
    family, basis, multiplier = student.family, bridge.basis.double(), residual_multiplier(student)
    grown = sqrt(basis.shape[1] / basis.shape[0]) if family.scaled_embedding else 1.0
    ends = [*bridge.layers[1:], t.config.num_hidden_layers]
    for j, (i, end) in enumerate(zip(bridge.layers, ends, strict=True)):
        before_t, here_s, next_t = (family.layer.format(n) for n in (i, j, end - 1))
        norms, writers = norms_and_writers(student.layer(j), family)
        for norm, writer in zip_longest(norms, writers):
            if norm is not None:
                names = [name for name in family.feeds[norm] if is_linear(student.layer(j), name)]
                readers = [(before_t + name, here_s + name, *bridge.rows(name, i)) for name in names]
                both = before_t + norm, here_s + norm
                heal_norm(t, s, both, readers, bridge.scale(norm, i), basis, ids, config, family)
            if writer is None:
                continue
            stream_t, y_t = seen(t, ids, before_t[:-1])[0], seen(t, ids, before_t + writer)[1]
            stream_s, (x, y) = seen(s, ids, here_s[:-1]), seen(s, ids, here_s + writer)
            experts_follow = len(writers) < len(norms)
            if writer == writers[-1] and (end > i + 1 or not experts_follow):
                target, others = seen(t, ids, next_t[:-1])[1], stream_s[1] - multiplier * y
            else:
                target, others = stream_t + multiplier * y_t, stream_s[0]
            size = target.square().mean(-1, keepdim=True).sqrt()
            fit(s.get_submodule(here_s + writer), x, (target @ basis * grown - others) / multiplier, config.ridge, size)
    (norm,) = family.norms[1]
    names_of = {id(module): name for model in (t, s) for name, module in model.named_modules()}
    head_t, head_s = t.get_output_embeddings(), s.get_output_embeddings()
    rows = (torch.arange(t.config.vocab_size), torch.ones(t.config.vocab_size))
    tied = head_s.weight is s.get_input_embeddings().weight
    readers = [] if tied else [(names_of[id(head_t)], names_of[id(head_s)], *rows)]
    heal_norm(t, s, (norm, norm), readers, bridge.scale(norm, None), basis, ids, config, family)
    teacher.model.float()
    student.model.float()


def heal_norm(
    t: Any, s: Any, norms: tuple[str, str], readers: list[Any], applied: float, basis: torch.Tensor,
    ids: torch.Tensor, config: HealConfig, family: Family,
) -> None:  # fmt: skip
    module = s.get_submodule(norms[1])
    if config.norms:
        gain = module.weight + family.gain_offset
        target, values = (normal(seen(*each)[0], family) for each in ((t, ids, norms[0]), (s, ids, norms[1])))
        target, values = gain * (target @ basis), gain * values
        module.weight.copy_(gain * ((target * values).sum() / values.square().sum() / applied) - family.gain_offset)
    for name_t, name_s, rows, factors in readers if config.refit == "all" else []:
        fit(
            s.get_submodule(name_s), seen(s, ids, name_s)[0], seen(t, ids, name_t)[1][..., rows] * factors, config.ridge
        )


def normal(x: torch.Tensor, family: Family) -> torch.Tensor:
    x = x - x.mean(-1, keepdim=True) if family.layer_norm else x
    return x / x.square().mean(-1, keepdim=True).sqrt()  # the models' ε is 1e-12


def fit(module: Any, x: torch.Tensor, y: torch.Tensor, ridge: float, size: torch.Tensor | None = None) -> None:
    """Ridge regression about the present weights as a plain least-squares problem with more rows."""
    y = y if module.bias is None else y - module.bias
    x, y = (each.flatten(0, 1) if size is None else (each / size).flatten(0, 1) for each in (x, y))
    weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
    root = (ridge * x.square().sum(0).mean()).sqrt()
    rows = torch.cat([x, root * torch.eye(x.shape[1], dtype=x.dtype)])
    weight.copy_(torch.linalg.lstsq(rows, torch.cat([y, root * weight.T])).solution.T)


def seen(model: Any, ids: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output of a module in a run of the whole model."""
    captured: list[Any] = []

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        captured.append((args[0] if args else kwargs["hidden_states"], output))

    handle = model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
    model(ids, use_cache=False)
    handle.remove()
    return captured[0]


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"method": "rotate", "hidden_size": 24, "intermediate_size": 16}),  # grouped heads, an untied LM head
        ("qwen2", {"hidden_size": 24, "num_attention_heads": 2, "drop_layers": [1]}),  # tied, with biases and windows
        ("qwen3", {"method": "rotate", "intermediate_size": 16, "drop_layers": [0]}),
        ("phi3", {"hidden_size": 24, "intermediate_size": 16}),  # fused projections
        ("granite", {"drop_layers": [1, 2]}),  # a factor on what layers write
        ("gpt_neox", {"method": "rotate", "hidden_size": 24, "num_attention_heads": 3}),  # attention beside the MLP
        ("gemma", {"method": "rotate", "hidden_size": 24, "drop_layers": [2]}),  # embeddings that grow with the width
        ("cohere", {"hidden_size": 24, "intermediate_size": 16}),  # one norm before attention and MLP
        ("phi", {"method": "rotate", "hidden_size": 24, "drop_layers": [1]}),
        ("gpt2", {"intermediate_size": 16, "drop_layers": [3]}),
        ("mixtral", {"hidden_size": 24, "num_experts": 4}),
        ("mixtral", {"num_experts": 4, "drop_layers": [1]}),
        ("glm4_moe", {"num_experts": 4, "intermediate_size": 16}),  # a shared expert, and a layer without experts
    ],
)
def test_the_weights_are_those_of_a_slow_reference(
    tmp_path: Path,
    tokens: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    options: dict[str, Any],
) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    fast = load(healed(teacher, tokens, tmp_path / "fast", ALL, **options))
    monkeypatch.setattr("prunus.steps.prune.heal_checkpoint.heal", reference)
    slow = dict(load(healed(teacher, tokens, tmp_path / "slow", ALL, **options)).named_parameters())
    for name, weight in fast.named_parameters():
        error = (weight - slow[name]).norm() / slow[name].norm()
        assert error < 1e-5, name
