"""Whole merges: what is written, by parts, in every type, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunus.console import Console
from prunus.errors import ModelError, RecipeError
from prunus.models.checkpoint import WEIGHTS
from prunus.runtime import Runtime
from prunus.steps.merge.config import MergeConfig
from prunus.steps.merge.fitness import Fitness
from prunus.steps.merge.methods import METHODS
from prunus.steps.merge.step import Inputs, run
from tests.families import DISTINCT, make_teacher
from tests.tiny import load, make_model


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("three")
    return [make_model(root / str(seed), seed=seed) for seed in range(3)]


def merge(out: Path, models: list[Path], base: Path | None = None, **options) -> Path:
    config = MergeConfig.model_validate(options)
    out.mkdir(exist_ok=True)
    inputs = {f"model_{i}" if i else "model": path for i, path in enumerate(models)}
    run(config, Inputs(base=base if config.definition.based else None, **inputs), out, Runtime(), Console(quiet=True))
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.merge])
def test_equal_models_merge_to_themselves(method: str, three: list[Path], tmp_path: Path) -> None:
    model, _, base = three
    dropped = {"densities": [1.0, 1.0]}
    halves = {"weights": [0.5, 0.5]} if method in ("task_arithmetic", "dare_linear", "dare_ties") else {}
    found = tensors(merge(tmp_path / "out", [model, model], base, method=method, **dropped, **halves))
    for name, tensor in tensors(model).items():
        torch.testing.assert_close(found[name], tensor)


def test_each_part_has_its_values(three: list[Path], tmp_path: Path) -> None:
    parts = [
        {"layers": "1-2", "weights": [1, 0]},
        {"module": "mlp", "layers": "2", "weights": [0, 1]},
        {"match": "model.embed_*", "weights": [1, 3]},
    ]
    found = tensors(merge(tmp_path / "out", three[:2], parts=parts))
    first, second = (tensors(folder) for folder in three[:2])
    for name, tensor in found.items():
        share = 0.5
        if ".layers.1." in name or ".layers.2." in name:
            share = 1.0 if "layers.2.mlp" in name else 0.0
        if "embed" in name:
            share = 0.75
        torch.testing.assert_close(tensor, (1 - share) * first[name] + share * second[name])


def test_what_dare_drops_is_decided_by_the_seed_alone(three: list[Path], tmp_path: Path) -> None:
    options = {"method": "dare_ties", "densities": [0.3, 0.6]}
    found = [
        tensors(merge(tmp_path / name, three[:2], three[2], seed=seed, **options))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    assert not all(torch.equal(tensor, found[2][name]) for name, tensor in found[0].items())


def test_dtypes_and_shards_are_kept_and_arithmetic_is_in_float32(tmp_path: Path) -> None:
    models = [make_model(tmp_path / str(seed), seed=seed, dtype=torch.bfloat16) for seed in range(2)]
    load(models[1]).to(torch.bfloat16).save_pretrained(models[1], max_shard_size="20KB")
    (models[1] / WEIGHTS).unlink()
    whole = tensors(merge(tmp_path / "out", models, weights=[1, 2]))
    second = {name: tensor for file in models[1].glob("*.safetensors") for name, tensor in load_file(file).items()}
    for name, tensor in tensors(models[0]).items():
        assert whole[name].dtype == torch.bfloat16
        assert torch.equal(whole[name], ((tensor.float() + 2 * second[name].float()) / 3).bfloat16())
    assert json.loads((tmp_path / "out" / "merge.json").read_text()) == {"weights": [1.0, 2.0]}


@pytest.mark.parametrize("model_type", DISTINCT)
def test_every_family_merges_and_flows(model_type: str, tmp_path: Path) -> None:
    """A path through the model's own layers with scale 1 is the model itself; stock transformers loads both."""
    model = make_teacher(tmp_path / "model", model_type)
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        own = load(model)(ids).logits
        for name, options in (
            ("mean", {}),
            ("flow", {"method": "flow", "flow": {"layers": ["0:0-1", "1:2-3"], "scales": [1, 1, 1, 1]}}),
        ):
            found = load(merge(tmp_path / name, [model, model], **options))(ids).logits
            torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma2", "olmo2", "gpt2", "gpt_neox", "qwen3_moe"])
def test_a_layer_of_scale_0_writes_nothing(model_type: str, tmp_path: Path) -> None:
    """The path with it is the path without it; in GPT-NeoX, Gemma, OLMo and the others alike."""
    model = make_teacher(tmp_path / "model", model_type)
    ids = torch.arange(3, 19)[None]
    paths = {
        "with": {"layers": ["0:0", "0:2", "0:1", "0:3"], "scales": [1, 0, 1, 0.5]},
        "without": {"layers": ["0:0", "0:1", "0:3"], "scales": [1, 1, 0.5]},
    }
    found = []
    for name, flow in paths.items():
        folder = merge(tmp_path / name, [model], method="flow", flow=flow)
        loaded = load(folder)
        for layer, kind in enumerate(getattr(loaded.config, "layer_types", None) or ()):
            assert kind == load(model).config.layer_types[[0, 2, 1, 3][layer] if name == "with" else [0, 1, 3][layer]]
        found.append(loaded(ids).logits.detach())
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_a_scaled_stream_is_a_scaled_branch(three: list[Path], tmp_path: Path) -> None:
    """Sakana's scale of a layer's input, c, and ours of all that is written from there on, 1 / c, give the same."""
    folder = merge(tmp_path / "out", three[:1], method="flow", flow={"layers": ["0:0-3"], "scales": [1, 1, 0.5, 0.5]})
    model, ids = load(three[0]), torch.arange(3, 19)[None]
    model.model.layers[2].register_forward_pre_hook(lambda _, inputs: (2 * inputs[0], *inputs[1:]))
    torch.testing.assert_close(load(folder)(ids).logits, model(ids).logits, atol=1e-3, rtol=1e-3)


def test_a_killed_evolution_resumes_from_its_journal(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked is counted; answers are replaced by a score of the weights."""
    asked: list[str] = []

    def score(_: Fitness, folder: Path, part: int) -> dict[str, float]:
        if len(asked) == 9:
            asked.append("killed")
            raise KeyboardInterrupt
        asked.append(folder.name)
        return {"task": float(tensors(folder)["model.norm.weight"].mean())}

    monkeypatch.setattr(Fitness, "of", score)
    tasks = {"rag": {"path": "builtin:world", "name": "chat"}}
    options = {"evolve": {"trials": 8, "items": 1, "finalists": 2, "tasks": tasks}}
    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path / "killed", three[:2], **options)
    assert asked == ["0", "0", "1", "1", *["trial"] * 5, "killed"]  # the parents in both parts, then trials
    assert (tmp_path / "killed" / "checkpoints" / "evolve" / "complete").exists()  # so that the folder is kept
    merge(tmp_path / "killed", three[:2], **options)
    assert asked.count("trial") == 8 + 3
    merge(tmp_path / "whole", three[:2], **options)
    names = ("merge.json", "journal.jsonl", "parents.json", WEIGHTS)
    assert all((tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)
    assert not (tmp_path / "whole" / "trial").exists()


def test_a_path_is_evolved_to_a_plain_model(three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit is here who has few layers; the path of one layer is found, and the model of one layer written."""

    def score(_: Fitness, folder: Path, part: int) -> dict[str, float]:
        return {"task": 1 / load(folder).config.num_hidden_layers}

    monkeypatch.setattr(Fitness, "of", score)
    tasks = {"rag": {"path": "builtin:world", "name": "chat"}}
    evolve = {"trials": 30, "space": "flow", "items": 1, "finalists": 1, "tasks": tasks, "sigma": 0.4}
    out = merge(tmp_path / "out", three[:2], method="flow", evolve=evolve, seed=1)
    journal = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    best = max(line["fitness"] for line in journal)
    assert best > journal[0]["fitness"] == 0.25
    assert load(out).config.num_hidden_layers == round(1 / best)


def refused(out: Path, models: list[Path], base: Path | None = None, **options) -> str:
    with pytest.raises((ModelError, RecipeError)) as caught:
        merge(out, models, base, **options)
    return str(caught.value)


def test_unequal_models_are_named_weight_by_weight(three: list[Path], tmp_path: Path) -> None:
    wide = make_model(tmp_path / "wide", intermediate_size=56)
    message = refused(tmp_path / "out", [three[0], wide])
    assert "model.layers.0.mlp.gate_proj.weight: [56, 32] and [48, 32]" in message
    assert "and 4 more" in message


def test_other_settings_tokens_and_templates_are_named(three: list[Path], tmp_path: Path) -> None:
    theta = make_model(tmp_path / "theta", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert "config.json: rope_parameters" in refused(tmp_path / "1", [three[0], theta])
    words = shutil.copytree(three[1], tmp_path / "words")
    tokenizer = json.loads((words / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (words / "tokenizer.json").write_text(json.dumps(tokenizer))
    message = refused(tmp_path / "2", [three[0], words])
    assert f"token 'A': {vocabulary['A']} and {vocabulary['B']}" in message
    speaks = shutil.copytree(three[1], tmp_path / "speaks")
    (speaks / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "chat templates differ" in refused(tmp_path / "3", [three[0], speaks])
    merge(tmp_path / "4", [speaks, speaks], three[0], method="ties")  # a base may have none


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ties"}, "base: missing"),
        ({"weights": [1.0]}, "weights: 1 for 2 models"),
        ({"weights": [1.0, -1.0]}, "sum to 0"),
        ({"parts": [{"layers": "3-4"}]}, "there are only 4 layers"),
        ({"method": "flow", "flow": {"layers": ["0:0-3", "2:1"]}}, "layer 1 of model 2"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict, message: str, three: list[Path], tmp_path: Path) -> None:
    assert message in refused(tmp_path / "out", three[:2], **options)


def test_values_that_are_not_finite_are_refused(three: list[Path], tmp_path: Path) -> None:
    assert "model.embed_tokens.weight" in refused(tmp_path / "out", three[:2], weights=[1e39, 1e39], normalize=False)
