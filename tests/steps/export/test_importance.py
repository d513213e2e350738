"""The importance matrix against a slow reference: each linear layer's inputs, kept whole and squared in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from prunus.gguf.tensors import plan_tensors
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.steps.export.importance import measure_importance
from tests.families import make_teacher


def sequences() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (3, 20))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "phi3", "gemma2"])
def test_sums_are_those_of_every_linear_layers_inputs(model_type: str, tmp_path: Path) -> None:
    folder = ModelFolder(make_teacher(tmp_path / "model", model_type))
    model = load_model(folder.path, torch.device("cpu"), torch.float32)
    found = measure_importance(model, folder, sequences())
    kept: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not model.get_output_embeddings():
            module.register_forward_pre_hook(lambda _, args, name=name: kept.setdefault(name, []).append(args[0]))
    with torch.no_grad():
        for ids in sequences():
            model(torch.from_numpy(ids[None]))
    sources = {one.name: one.sources[0].name.removesuffix(".weight") for one in plan_tensors(folder) if one.sources}
    assert sorted(kept) == sorted(name for name in kept if any(name.endswith(sources[key]) for key in found))
    assert len(kept) == len(found)
    for key, one in found.items():
        name = next(name for name in kept if name.endswith(sources[key]))
        inputs = torch.cat(kept[name], dim=1).double().flatten(0, 1)
        assert one.counts.tolist() == [60]
        np.testing.assert_allclose(one.squares, inputs.square().sum(0)[None].numpy(), rtol=1e-6)


def test_each_expert_has_the_sums_of_its_own_tokens(tmp_path: Path) -> None:
    folder = ModelFolder(make_teacher(tmp_path / "model", "mixtral"))
    model = load_model(folder.path, torch.device("cpu"), torch.float32)
    found = measure_importance(model, folder, sequences())
    experts, active = folder.shape.num_experts, folder.shape.num_experts_per_tok
    calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
    stacked = [module for name, module in model.named_modules() if name.endswith(".experts")]
    for module in stacked:
        module.register_forward_pre_hook(lambda module, args: calls.append((module, args[0], args[1])))
    with torch.no_grad():
        for ids in sequences():
            model(torch.from_numpy(ids[None]))
    for layer, module in enumerate(stacked):
        entered, counts = np.zeros((experts, folder.shape.hidden_size)), np.zeros(experts)
        neurons = np.zeros((experts, folder.shape.intermediate_size))
        for _, tokens, routed in (call for call in calls if call[0] is module):
            for token, chosen in zip(tokens.double(), routed.tolist(), strict=True):
                for expert in chosen:
                    gate, up = (module.gate_up_proj[expert].double() @ token).chunk(2)
                    entered[expert] += token.square().numpy()
                    neurons[expert] += (nn.functional.silu(gate) * up).square().detach().numpy()
                    counts[expert] += 1
        assert counts.sum() == 60 * active
        for part, wanted in {"ffn_gate": entered, "ffn_up": entered, "ffn_down": neurons}.items():
            one = found[f"blk.{layer}.{part}_exps.weight"]
            assert np.array_equal(one.counts, counts)
            np.testing.assert_allclose(one.squares, wanted, rtol=1e-5)
