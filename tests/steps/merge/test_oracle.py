"""Whole merges beside mergekit's, tensor by tensor, on the same folders.

mergekit's pins do not fit ours, so it stands in an environment of its own: PRUNUS_MERGEKIT names its python. Compared
with 0.1.5. `dare` draws otherwise there and rescales by sums where the paper divides by the density, so both are
compared with every value kept, and then on one and the same draw without its rescaling.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from prunus.steps.merge.methods import added, elected
from tests.steps.merge.test_step import merge, tensors
from tests.tiny import make_model

PYTHON = os.environ.get("PRUNUS_MERGEKIT", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="PRUNUS_MERGEKIT names no python that has mergekit")

CASES = {
    "linear": ({"weights": [0.3, 1.2]}, {}),
    "slerp": ({"t": 0.3}, {"t": 0.3}),
    "task_arithmetic": ({"weights": [0.3, 1.2], "scale": 0.7}, {"lambda": 0.7}),
    "ties": ({"weights": [0.3, 1.2], "densities": [0.3, 0.6], "scale": 0.7}, {"lambda": 0.7}),
    "dare_linear": ({"weights": [0.3, 1.2], "densities": [1.0, 1.0]}, {}),
    "dare_ties": ({"weights": [0.3, 1.2], "densities": [1.0, 1.0]}, {}),
    "model_stock": ({}, {}),
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models near a base of theirs, and the base."""
    root = tmp_path_factory.mktemp("three")
    folders = [make_model(root / str(seed), seed=seed) for seed in range(3)]
    base = tensors(folders[2])
    for folder in folders[:2]:
        near = {name: base[name] + 0.1 * tensor for name, tensor in tensors(folder).items()}
        save_file(near, folder / "model.safetensors", metadata={"format": "pt"})
    return folders


def mergekit(config: dict, out: Path) -> dict[str, torch.Tensor]:
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config))
    script = "import sys; from mergekit.scripts.run_yaml import main; main()"
    done = subprocess.run(
        [PYTHON, "-c", script, str(file), str(out), "--no-copy-tokenizer"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: tensor for part in out.glob("*.safetensors") for name, tensor in load_file(part).items()}


@pytest.mark.parametrize("method", CASES)
def test_the_same_tensors(method: str, three: list[Path], tmp_path: Path) -> None:
    ours, shared = CASES[method]
    models = [
        {
            "model": str(folder),
            "parameters": {
                theirs: ours[name][i]
                for name, theirs in (("weights", "weight"), ("densities", "density"))
                if name in ours
            },
        }
        for i, folder in enumerate(three[:2])
    ]
    config = {"merge_method": method, "models": models, "dtype": "float32", "parameters": shared}
    if method != "linear":
        config["base_model"] = str(three[0] if method == "slerp" else three[2])
    expected = mergekit(config, tmp_path / "theirs")
    found = tensors(merge(tmp_path / "ours", three[:2], three[2], method=method, **ours))
    assert expected.keys() == found.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-6, rtol=1e-6)


def test_the_same_stack_of_layers(three: list[Path], tmp_path: Path) -> None:
    scaled = [{"filter": key, "value": 0.5} for key in ("o_proj", "down_proj")]
    slices = [
        {"sources": [{"model": str(three[0]), "layer_range": [0, 3]}]},
        {
            "sources": [
                {"model": str(three[1]), "layer_range": [1, 4], "parameters": {"scale": [*scaled, {"value": 1}]}}
            ]
        },
    ]
    expected = mergekit({"merge_method": "passthrough", "slices": slices, "dtype": "float32"}, tmp_path / "theirs")
    flow = {"layers": ["0:0-2", "1:1-3"], "scales": [1, 1, 1, 0.5, 0.5, 0.5]}
    found = tensors(merge(tmp_path / "ours", three[:2], method="flow", flow=flow))
    shared = (
        "model.embed_tokens.weight",
        "model.norm.weight",
    )  # the last norm is the last slice's there, the first's here
    for name, tensor in found.items():
        if name not in shared:
            torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_the_same_of_the_same_draw(method: str, tmp_path: Path) -> None:
    base, a, b = (torch.randn(30, 20, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    masks = [(torch.rand(30, 20, generator=torch.Generator().manual_seed(9 + i)) < 0.4).float() for i in range(2)]
    save_file({"base": base, "a": a, "b": b, "mask0": masks[0], "mask1": masks[1]}, tmp_path / "in.safetensors")
    script = f"""
import torch
from safetensors.torch import load_file, save_file
from types import SimpleNamespace as Of
from mergekit.merge_methods import registry
given = load_file({json.dumps(str(tmp_path / "in.safetensors"))})
masks = iter([given["mask0"], given["mask1"]])
torch.bernoulli = lambda *_, **__: next(masks)
entries = [Of(id=0, tensor=given["a"]), Of(id=1, tensor=given["b"])]
group = Of(base=Of(tensor=given["base"]), non_base=entries)
out = registry.get({method!r}).merge_group(group, weight=[0.5, 1.5], density=[0.4, 0.4], normalize=False, rescale=False,
                                           int8_mask=False, **{{"lambda": 1 / 0.4}})
save_file({{"out": out}}, {json.dumps(str(tmp_path / "out.safetensors"))})
"""
    subprocess.run([PYTHON, "-c", script], check=True, capture_output=True)
    add = added if method == "dare_linear" else elected
    deltas = [(tensor - base) * mask / 0.4 for tensor, mask in zip((a, b), masks, strict=True)]
    found = add(base, deltas, (0.5, 1.5), 1.0, normalize=False)
    torch.testing.assert_close(found, load_file(tmp_path / "out.safetensors")["out"], atol=2e-6, rtol=1e-6)
