"""Properties that hold for every family with a table, including those added later."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from prunus.errors import ShapeError
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.positions import SCALABLE_ROPES, with_rope_resolved, yarn_end
from prunus.models.shape import Shape
from prunus.steps.prune.config import PruneConfig
from tests.cutting import TEXT, logits, plain, prune, score
from tests.families import SPECIAL, kill, make_teacher, square_cut
from tests.tiny import load

TYPES = [name for name in FAMILIES if name in CONFIG_MAPPING]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    """A teacher of each family; tests must not change it."""
    root = tmp_path_factory.mktemp("teachers")
    return {model_type: make_teacher(root / model_type, model_type) for model_type in TYPES}


def test_every_table_has_a_teacher_here() -> None:
    assert sorted(FAMILIES) == sorted(SPECIAL)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_table_names_the_checkpoint(teachers, model_type: str) -> None:
    folder = ModelFolder(teachers[model_type])
    folder.check()
    stored = {name: value.shape for name, value in load_file(folder.path / "model.safetensors").items()}
    assert dict(folder.shape.tensors()) == stored
    assert folder.shape.parameters == sum(p.numel() for p in load(folder.path).parameters())


@pytest.mark.parametrize("model_type", TYPES)
def test_keeping_everything_keeps_every_byte(teachers, tmp_path, model_type: str) -> None:
    teacher = teachers[model_type]
    out = prune(teacher, tmp_path / "out")
    before, after = load_file(teacher / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].tobytes() == after[name].tobytes(), name
    assert torch.equal(logits(out), logits(teacher))


@pytest.mark.parametrize("model_type", TYPES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_student_is_what_the_stock_classes_build(teachers, tmp_path_factory, model_type: str, data) -> None:
    teacher = ModelFolder(teachers[model_type])
    shape = teacher.shape
    whole_groups = shape.family.square and shape.num_key_value_heads < shape.num_attention_heads
    options: dict[str, Any] = {
        "num_hidden_layers": data.draw(st.integers(1, 4)),
        "intermediate_size": data.draw(st.integers(1, 24)),
        "hidden_size": data.draw(st.sampled_from([16, 32] if whole_groups else [8, 16, 24, 32])),
    }
    if not shape.family.square:
        options["num_key_value_heads"] = data.draw(st.sampled_from([1, 2]))
    if not shape.family.square and not shape.rope_types - SCALABLE_ROPES:
        options["head_dim"] = data.draw(st.sampled_from([2, 4, 8]))
    if shape.num_experts:
        options["num_experts"] = data.draw(st.integers(2, 6))
    out = prune(teacher.path, tmp_path_factory.mktemp("any") / "out", **options)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    student = ModelFolder(out).shape
    assert student.parameters == sum(p.numel() for p in model.parameters())
    assert student.parameters == sum(prod(v.shape) for v in load_file(out / "model.safetensors").values())
    for key, value in options.items():
        assert getattr(student, key) == value
    assert model.config.tie_word_embeddings == shape.flags["tie_word_embeddings"]
    assert logits(out).isfinite().all()


def dead_members(teacher: Path, axis: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Units to set to zero, different ones in each layer, and the options that cut as many."""
    draw = np.random.default_rng(4)
    shape = ModelFolder(teacher).shape
    layers = range(shape.num_hidden_layers)
    group = shape.num_attention_heads // shape.num_key_value_heads
    if axis == "mlp":
        return {"mlp": [draw.permutation(24)[:10] for _ in layers]}, {"intermediate_size": 14}
    if axis == "hidden":
        return {"hidden": draw.permutation(32)[:8].tolist()}, {"hidden_size": 24}
    if axis == "head_dim":  # the slowest pairs
        rotary = shape.family.rotary
        dead_pairs = [4, 5, 6, 7] if rotary is not None and rotary.interleaved else [2, 3, 6, 7]
        return {"head_dim": dead_pairs}, {"head_dim": 4}
    if axis == "heads":
        dead = [[g * group + int(draw.integers(group)) for g in range(shape.num_key_value_heads)] for _ in layers]
        return {"heads": dead}, {"num_attention_heads": shape.num_attention_heads - shape.num_key_value_heads}
    kv = [[int(draw.integers(shape.num_key_value_heads))] for _ in layers]
    heads = [[g * group + i for g in row for i in range(group)] for row in kv]
    return {"kv_heads": kv, "heads": heads}, {"num_key_value_heads": shape.num_key_value_heads - 1}


def zero_scores_of_dead_heads(scores: Path, dead: list[list[int]]) -> None:
    """Set the scores of heads without queries to 0: their output is not 0, but the mean of their group's values."""
    file = scores / "scores.safetensors"
    actual = load_file(file)
    for layer, heads in enumerate(dead):
        actual["heads.mean"][:, layer, heads] = 0
    save_file(actual, file)


@pytest.mark.parametrize("axis", ["mlp", "hidden", "heads", "kv_heads", "head_dim"])
@pytest.mark.parametrize("model_type", TYPES)
def test_cutting_what_is_dead_changes_nothing(tmp_path, model_type: str, axis: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    family = ModelFolder(teacher).family
    if family.square and axis in ("heads", "kv_heads", "head_dim"):
        pytest.skip(f"{family.name} has heads x head_dim = hidden_size: its heads go with its channels")
    dead, options = dead_members(teacher, axis)
    if axis == "head_dim" and ModelFolder(teacher).shape.rope_types - SCALABLE_ROPES:
        with pytest.raises(ShapeError, match="no config keeps their frequencies with fewer dimensions"):
            PruneConfig(head_dim=4).target(ModelFolder(teacher).shape, "prune")
        return
    if family.square and axis == "hidden":
        with_heads, options = square_cut(ModelFolder(teacher).shape)
        draw = np.random.default_rng(4).permutation(32)
        dead = {"hidden": draw[: 32 - options["hidden_size"]].tolist(), **with_heads}
    kill(teacher, dead)
    scores = score(teacher, tmp_path)
    if axis == "heads" or (ModelFolder(teacher).shape.num_key_value_heads == 1 and "heads" in dead):
        zero_scores_of_dead_heads(scores, dead["heads"])
    out = prune(teacher, tmp_path / "out", scores, **options)
    assert ModelFolder(out).shape.parameters < ModelFolder(teacher).shape.parameters
    # rescaled gains are rounded to float32, as are GPT-J's queries; OPT's epsilon is not in its config
    tolerance = 1e-11 if axis == "mlp" and model_type != "gptj" else 3e-5
    tolerance = 1e-3 if (model_type, axis) == ("opt", "hidden") else tolerance
    torch.testing.assert_close(logits(out), logits(teacher), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "model_type", [t for t in TYPES if "num_experts" in SPECIAL[t] or "num_local_experts" in SPECIAL[t]]
)
def test_cutting_experts_that_no_token_reaches_changes_nothing(tmp_path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    tensors = load_file(teacher / "model.safetensors")
    tensors["model.embed_tokens.weight"][:, 0] = 6.0
    dead = {}
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight", "w2.weight", "post_attention_layernorm.weight")):
            tensor[0] = name.endswith("norm.weight")  # channel 0 stays as positive as it was embedded
        if name.endswith("gate.weight"):
            layer = int(name.split(".")[2])
            dead[layer] = [(layer + i) % 6 for i in range(2)]
            tensor[:, 0] = 0
            tensor[dead[layer]] = 0
            tensor[dead[layer], 0] = -1e4
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})
    out = prune(teacher, tmp_path / "out", score(teacher, tmp_path), num_experts=4)
    kept = json.loads((out / "kept.json").read_text())["per_layer"]
    assert all(set(row["experts"]).isdisjoint(dead[layer]) for layer, row in enumerate(kept))
    torch.testing.assert_close(logits(out), logits(teacher), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("model_type", TYPES)
def test_depth_leaves_the_other_layers_as_they_were(teachers, tmp_path, model_type: str) -> None:
    teacher = teachers[model_type]
    stripped = tmp_path / "stripped"  # a config as older transformers wrote it: without per-layer lists
    stripped.mkdir()
    for file in teacher.iterdir():
        (stripped / file.name).write_bytes(file.read_bytes())
    config = json.loads((teacher / "config.json").read_text())
    for key in ("layer_types", "no_rope_layers"):
        config.pop(key, None)
    config |= {key: value for key, value in SPECIAL[model_type].items() if "pattern" in key or "interval" in key}
    (stripped / "config.json").write_text(json.dumps(config))
    for source in (teacher, stripped):
        out = prune(source, tmp_path / f"out-{source.name}", drop_layers=(0, 2))
        model = plain(teacher)
        family = ModelFolder(teacher).family
        parent = model.get_submodule(family.layer.split(".{}")[0])
        kept = [parent[1], parent[3]]
        inner = next(m for m in model.modules() if any(child is parent for child in m.children()))
        for name, child in list(inner.named_children()):
            if child is parent:
                setattr(inner, name, torch.nn.ModuleList(kept))
        for i, layer in enumerate(kept):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = i
        for key in ("layer_types", "no_rope_layers"):
            if getattr(model.config, key, None):
                setattr(model.config, key, [getattr(model.config, key)[i] for i in (1, 3)])
        model.config.num_hidden_layers = 2
        with torch.no_grad():
            expected = model(TEXT, use_cache=False).logits
        torch.testing.assert_close(logits(out), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("gpt2", {"hidden_size": 20}, "20 is not num_attention_heads x head_dim = 2 x 8"),
        ("gpt2", {"num_attention_heads": 2}, r"32 is not num_attention_heads x head_dim = 2 x 8"),
        ("gpt_neox", {"head_dim": 4}, "GPT-NeoX's config has no head_dim"),
        ("gemma2", {"hidden_size": 18}, "not a multiple of num_attention_heads = 4"),
        ("llama", {"head_dim": 3}, "odd"),
        ("mixtral", {"num_experts": 1}, "less than num_experts_per_tok = 2"),
        ("llama", {"num_experts": 1}, "num_experts: 1 is more than the teacher's 0"),
    ],
)
def test_shapes_that_a_family_does_not_have(teachers, model_type, options, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        PruneConfig(**options).target(ModelFolder(teachers[model_type]).shape, "prune")


def test_positions_with_an_alpha_are_kept(tmp_path, monkeypatch) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 500.0, "alpha": 50.0, "factor": 1.0}
    monkeypatch.setitem(SPECIAL, "hunyuan_v1_dense", {"rope_parameters": rope})
    test_cutting_what_is_dead_changes_nothing(tmp_path, "hunyuan_v1_dense", "head_dim")


def with_rope(teacher: Path, rope: dict[str, Any]) -> Shape:
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    return ModelFolder(teacher).shape


@pytest.mark.parametrize("original", [16, 64])
def test_longropes_factors_are_kept(tmp_path, monkeypatch, original: int) -> None:
    """On 24 tokens, once with the long and once with the short factors."""
    factors = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 2.0, 3.0, 5.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e3, "original_max_position_embeddings": original, **factors}
    monkeypatch.setitem(SPECIAL, "llama", {"rope_parameters": rope})
    test_cutting_what_is_dead_changes_nothing(tmp_path, "llama", "head_dim")
    rope = json.loads((tmp_path / "out/config.json").read_text())["rope_parameters"]
    assert (rope["short_factor"], rope["long_factor"]) == ([1.0, 1.1], [1.0, 2.0])


def test_phi3_with_longrope_is_cut_as_transformers_loads_it(tmp_path, monkeypatch) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e3, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    monkeypatch.setitem(SPECIAL, "phi3", {"rope_parameters": rope, "original_max_position_embeddings": 16})
    teacher = make_teacher(tmp_path / "teacher", "phi3")
    shape = ModelFolder(teacher).shape
    for options in ({"hidden_size": 24}, {"head_dim": 4}, {"num_attention_heads": 2}):
        with pytest.raises(ShapeError, match="as transformers requires for Phi-3 with longrope; change them together"):
            PruneConfig.model_validate(options).target(shape, "prune")
    out = prune(teacher, tmp_path / "out", hidden_size=16, head_dim=4)
    assert load(out).model.rotary_emb.inv_freq.shape == (2,)
    out = prune(teacher, tmp_path / "heads", hidden_size=16, num_attention_heads=2)
    assert logits(out).isfinite().all()


def test_yarn_keeps_its_frequencies_as_long_as_its_ramp_is_whole(tmp_path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "llama")
    rope = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    shape = with_rope(teacher, rope)
    with pytest.raises(ShapeError, match="head_dim: 2; with the yarn of this teacher, 3 or more keep the frequencies"):
        PruneConfig(head_dim=2).target(shape, "prune")
    assert PruneConfig(head_dim=4).target(shape, "prune").head_dim == 4
    slow = with_rope(teacher, {**rope, "beta_slow": 20.0, "original_max_position_embeddings": 60})
    with pytest.raises(ShapeError, match="head_dim: 4; with the yarn of this teacher, 8 or more"):
        PruneConfig(head_dim=4).target(slow, "prune")


def test_the_least_head_dim_of_yarn_is_what_transformers_computes(tmp_path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "llama")
    config = json.loads((teacher / "config.json").read_text())

    def frequencies(head_dim: int, rope: dict[str, Any]) -> Any:
        made = AutoConfig.for_model(**{**config, "head_dim": head_dim, "rope_parameters": rope})
        return AutoModelForCausalLM.from_config(made).model.rotary_emb.inv_freq

    for theta, trained, slow in ((1e4, 4096, 1.0), (1e6, 16384, 1.0), (500.0, 64, 2.0), (20.0, 64, 1.0)):
        rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": theta, "beta_slow": slow}
        rope["original_max_position_embeddings"] = trained
        whole = with_rope(teacher, rope).family.rotary
        assert whole is not None
        least = yarn_end({**config, "rope_parameters": rope}, whole, 64)
        assert least is not None
        for kept in range(2, 65, 2):
            cut = with_rope_resolved({**config, "rope_parameters": rope}, whole, kept / 64)["rope_parameters"]
            same = torch.allclose(frequencies(kept, cut), frequencies(64, rope)[: kept // 2], rtol=1e-5)
            assert same or kept < least, (theta, kept)


def test_rotary_positions_that_cannot_be_kept(tmp_path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "llama")
    shape = with_rope(teacher, {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(ShapeError, match="rotary position embeddings are of type dynamic"):
        PruneConfig(head_dim=4).target(shape, "prune")
