"""Properties that hold for every family with a table, including those added later."""

import json
import shutil
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

from prunus.data.tokens import IDS
from prunus.errors import ShapeError
from prunus.models.axes import AXES
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.positions import SCALABLE_ROPES, with_rope_resolved, yarn_end
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs, run
from tests.cutting import QUIET, TEXT, logits, plain, prune, score
from tests.families import SPECIAL, kill, make_teacher, square_cut, weights_of
from tests.tiny import load

TYPES = [name for name in FAMILIES if name in CONFIG_MAPPING]
HYBRIDS = [name for name in TYPES if FAMILIES[name].pattern]
MIXTURES = [name for name, family in FAMILIES.items() if family.experts is not None]


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
    assert folder.shape.parameters == sum(p.numel() for _, p in weights_of(load(folder.path)))


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
    for size, of in ((AXES[axis], AXES[group]) for axis, group in OF_GROUPS.items()):
        if getattr(shape, size):
            options[of] = data.draw(st.integers(1, 2))
            options[size] = options[of] * data.draw(st.integers(1, 2))
    if shape.num_experts:
        options["num_experts"] = data.draw(st.sampled_from([4, 6] if shape.expert_groups > 1 else [2, 3, 4, 5, 6]))
        options["num_experts_per_tok"] = data.draw(st.integers(1, 2))
        for size in ("shared_expert_intermediate_size", "dense_intermediate_size"):
            if getattr(shape, size) and size not in shape.family.multiples:
                options[size] = data.draw(st.integers(1, 20))
        options["num_hidden_layers"] = max(options["num_hidden_layers"], shape.dense_layers + 1)
    out = prune(teacher.path, tmp_path_factory.mktemp("any") / "out", **options)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    student = ModelFolder(out).shape
    assert student.parameters == sum(p.numel() for _, p in weights_of(model))
    assert student.parameters == sum(prod(v.shape) for v in load_file(out / "model.safetensors").values())
    for key, value in options.items():
        assert getattr(student, key) == value
    assert model.config.tie_word_embeddings == shape.flags["tie_word_embeddings"]
    assert logits(out).isfinite().all()


def dead_in_groups(teacher: Path, axis: str) -> tuple[dict[str, Any], dict[str, int]]:
    """`dead_members` of heads in groups, or of groups with their heads."""
    draw, shape = np.random.default_rng(4), ModelFolder(teacher).shape
    layers = range(shape.num_hidden_layers)
    if axis in OF_GROUPS:  # one of each group
        groups, size = shape.sizes()[OF_GROUPS[axis]], shape.sizes()[axis]
        each = size // groups
        dead = {axis: [[group * each + int(draw.integers(each)) for group in range(groups)] for _ in layers]}
        return dead, {AXES[axis]: size - groups}
    heads = next(one for one, of in OF_GROUPS.items() if of == axis)
    each, gone = shape.sizes()[heads] // shape.sizes()[axis], [int(draw.integers(2)) for _ in layers]
    of_gone = [[group * each + i for i in range(each)] for group in gone]
    return {axis: [[group] for group in gone], heads: of_gone}, {AXES[axis]: 1}


def dead_members(teacher: Path, axis: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Units to set to zero, different ones in each layer, and the options that cut as many."""
    draw = np.random.default_rng(4)
    shape = ModelFolder(teacher).shape
    layers = range(shape.num_hidden_layers)
    group = shape.num_attention_heads // shape.num_key_value_heads
    if axis == "mlp":
        dead: dict[str, Any] = {"mlp": [draw.permutation(24)[:10] for _ in layers]}
        if "shared_expert_intermediate_size" in shape.family.multiples:  # its neurons go with those of experts
            shared = shape.shared_expert_intermediate_size
            dead["shared"] = [draw.permutation(shared)[: 10 * shared // 24] for _ in layers]
        return dead, {"intermediate_size": 14}
    if axis in ("shared", "dense"):
        size = {"shared": "shared_expert_intermediate_size", "dense": "dense_intermediate_size"}[axis]
        return {axis: [draw.permutation(getattr(shape, size))[:8] for _ in layers]}, {size: getattr(shape, size) - 8}
    if axis == "hidden":
        dead = {"hidden": draw.permutation(32)[:8].tolist()}
        if shape.conv_channels:  # as many channels of short convolutions as of the stream
            dead["conv"] = [draw.permutation(32)[:8] for _ in layers]
        return dead, {"hidden_size": 24}
    if axis == "head_dim":  # the slowest pairs
        rotary = shape.family.rotary
        dead_pairs = [4, 5, 6, 7] if rotary is not None and rotary.interleaved else [2, 3, 6, 7]
        return {"head_dim": dead_pairs}, {"head_dim": 4}
    if axis == "heads" and not shape.family.latent:  # in latent attention, each has keys and values of its own
        dead = [[g * group + int(draw.integers(group)) for g in range(shape.num_key_value_heads)] for _ in layers]
        return {"heads": dead}, {"num_attention_heads": shape.num_attention_heads - shape.num_key_value_heads}
    kv = [[int(draw.integers(shape.num_key_value_heads))] for _ in layers]
    if shape.family.latent:  # two, since hidden_size must be a multiple of what is left
        kv = [[head, (head + 1) % shape.num_key_value_heads] for (head,) in kv]
    heads = [[g * group + i for g in row for i in range(group)] for row in kv]
    return {"kv_heads": kv, "heads": heads}, {"num_key_value_heads": shape.num_key_value_heads - len(kv[0])}


def zero_scores_of_dead_heads(scores: Path, dead: list[list[int]]) -> None:
    """Set the scores of heads without queries to 0: their output is not 0, but the mean of their group's values."""
    file = scores / "scores.safetensors"
    actual = load_file(file)
    for layer, heads in enumerate(dead):
        actual["heads.mean"][:, layer, heads] = 0
    save_file(actual, file)


PARTS = [(model_type, axis) for model_type in TYPES for axis in ("mlp", "hidden", "heads", "kv_heads", "head_dim")]
MIXED = [
    (model_type, axis)
    for model_type, family in FAMILIES.items()
    for axis, size in (("shared", "shared_expert_intermediate_size"), ("dense", "dense_intermediate_size"))
    if size in family.keys
]
OF_GROUPS = {"linear_values": "linear_keys", "ssm_heads": "ssm_groups"}
LINEAR = [
    (name, axis) for name in HYBRIDS for pair in OF_GROUPS.items() for axis in pair if AXES[axis] in FAMILIES[name].keys
]


@pytest.mark.parametrize(("model_type", "axis"), [*PARTS, *MIXED, *LINEAR])
def test_cutting_what_is_dead_changes_nothing(tmp_path, model_type: str, axis: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    family = ModelFolder(teacher).family
    if family.square and axis in ("heads", "kv_heads", "head_dim"):
        pytest.skip(f"{family.name} has heads x head_dim = hidden_size: its heads go with its channels")
    grouped = axis in (*OF_GROUPS, *OF_GROUPS.values())
    dead, options = (dead_in_groups if grouped else dead_members)(teacher, axis)
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
    tolerance = 1e-11 if axis in ("mlp", "shared", "dense") and model_type != "gptj" else 3e-5
    tolerance = 1e-3 if (model_type, axis) == ("opt", "hidden") else tolerance
    tolerance = 3e-4 if axis == "ssm_heads" else tolerance  # gains, and the states, are in float32
    torch.testing.assert_close(logits(out), logits(teacher), rtol=tolerance, atol=tolerance)


def starve(teacher: Path) -> dict[int, list[int]]:
    """Make two experts of each layer get no tokens, others in each layer; by layer, these experts."""
    folder = ModelFolder(teacher)
    family = folder.family
    tensors = load_file(teacher / "model.safetensors")
    embedding = next(key for key, line in family.shared.items() if line == "vocab hidden")
    tensors[embedding][:, 0] = 6.0  # channel 0 stays as positive as it was embedded
    dead: dict[int, list[int]] = {}
    for name, tensor in tensors.items():
        place = family.place(name)
        if place is None or place.layer is None:
            continue
        if family.writes(place):
            np.moveaxis(tensor, family.outputs(place.weight) + place.weight.stacked, 0)[0] = 0
        elif place.key == "post_attention_layernorm.weight":
            tensor[0] = 1
        elif place.weight.has("experts"):  # the router and its biases
            layer = dead.setdefault(place.layer, [place.layer % 3, 3 + place.layer % 3])
            if place.weight.has("hidden"):
                tensor[:, 0] = 0
                tensor[layer] = 0
                tensor[layer, 0] = -1e4
            else:
                tensor[..., layer] = -10
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})
    return dead


@pytest.mark.parametrize("model_type", MIXTURES)
def test_cutting_experts_that_no_token_reaches_changes_nothing(tmp_path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    dead = starve(teacher)
    out = prune(teacher, tmp_path / "out", score(teacher, tmp_path), num_experts=4)
    kept = json.loads((out / "kept.json").read_text())["per_layer"]
    assert all(set(kept[layer]["experts"]).isdisjoint(gone) for layer, gone in dead.items())
    in_float32 = ("ernie4_5_moe", "glm4_moe", "deepseek_v2", "deepseek_v3")  # their routers are
    tolerance = 1e-5 if model_type in in_float32 else 1e-11
    torch.testing.assert_close(logits(out), logits(teacher), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_fewer_active_experts_are_those_of_transformers(teachers, tmp_path, model_type: str) -> None:
    teacher = teachers[model_type]
    out = prune(teacher, tmp_path / "out", num_experts_per_tok=1)
    before, after = load_file(teacher / "model.safetensors"), load_file(out / "model.safetensors")
    assert {name: value.tobytes() for name, value in before.items()} == {n: v.tobytes() for n, v in after.items()}
    config = json.loads((teacher / "config.json").read_text())
    config |= dict.fromkeys(ModelFolder(teacher).family.config_keys("num_experts_per_tok"), 1)
    copy = tmp_path / "copy"
    shutil.copytree(teacher, copy)
    (copy / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(out), logits(copy))
    assert not torch.equal(logits(out), logits(teacher))
    assert ModelFolder(out).shape.flops_per_token(8) < ModelFolder(teacher).shape.flops_per_token(8)


@pytest.mark.parametrize("model_type", [name for name in MIXTURES if FAMILIES[name].dense_layers is not None])
def test_first_layers_without_experts_can_be_dropped_by_number_only(teachers, tmp_path, model_type: str) -> None:
    teacher = teachers[model_type]
    shape = ModelFolder(teacher).shape
    out = prune(teacher, tmp_path / "out", drop_layers=(0,))
    assert ModelFolder(out).shape.dense_layers == 0
    kept = json.loads((out / "kept.json").read_text())["per_layer"]
    assert all("experts" in row and "dense" not in row for row in kept)
    assert logits(out).isfinite().all()
    for seed in range(4):
        other = prune(teacher, tmp_path / f"chance{seed}", num_hidden_layers=2, seed=seed)
        assert ModelFolder(other).shape.dense_layers == shape.dense_layers
        assert json.loads((other / "kept.json").read_text())["layers"][0] == 0


def refitted(teacher: Path, scores: Path, out: Path, refit: str, **options: Any) -> Path:
    """A student with four of six experts, or other sizes, refitted on the text that it was scored on."""
    out.mkdir()
    heal = {"refit": refit, "samples": 8, "sequence_length": 24}
    given = options or {"num_experts": 4, "method": "minitron"}
    config = PruneConfig(**given, check_samples=0, heal=heal)
    run(config, Inputs(teacher, scores, scores.parent / "tokens"), out, Runtime(), QUIET)
    return out


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_refit_beside_dropped_experts_brings_the_student_nearer(teachers, tmp_path, model_type: str) -> None:
    teacher = teachers[model_type]
    scores = score(teacher, tmp_path)
    ids = torch.from_numpy(np.fromfile(tmp_path / "tokens" / IDS, dtype=np.uint16).astype(np.int64).reshape(8, 24))
    errors = {}
    for refit in ("none", "outputs", "all"):
        out = refitted(teacher, scores, tmp_path / refit, refit)
        with torch.no_grad():
            found, wanted = (plain(folder)(ids, use_cache=False).logits for folder in (out, teacher))
        errors[refit] = (found - wanted).square().mean().item()
    assert max(errors["outputs"], errors["all"]) < errors["none"]


@pytest.mark.parametrize("options", [{"hidden_size": 24}, {"intermediate_size": 16, "drop_layers": (2,)}])
@pytest.mark.parametrize("model_type", HYBRIDS)
def test_a_refit_brings_a_student_with_layers_of_several_kinds_nearer(
    teachers, tmp_path, model_type: str, options: dict[str, Any]
) -> None:
    teacher = teachers[model_type]
    scores = score(teacher, tmp_path, collect=("mean", "gradients", "covariance", "gradient_covariance"))
    ids = torch.from_numpy(np.fromfile(tmp_path / "tokens" / IDS, dtype=np.uint16).astype(np.int64).reshape(8, 24))
    errors = {}
    for refit in ("none", "outputs", "all"):
        out = refitted(teacher, scores, tmp_path / refit, refit, **options)
        with torch.no_grad():
            found, wanted = (plain(folder)(ids, use_cache=False).logits for folder in (out, teacher))
        errors[refit] = (found - wanted).square().mean().item()
    assert max(errors["outputs"], errors["all"]) < errors["none"]


@pytest.mark.parametrize("model_type", HYBRIDS)
def test_a_student_decodes_token_by_token_what_it_computes_at_once(teachers, tmp_path, model_type: str) -> None:
    sizes = {"hidden_size": 24, "intermediate_size": 16, "num_key_value_heads": 1, "drop_layers": (0,)}
    out = prune(teachers[model_type], tmp_path / "out", **sizes)
    model = plain(out)
    with torch.no_grad():
        first = model(TEXT[:, :5], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        for i in range(5, TEXT.shape[1]):
            steps.append(model(TEXT[:, i : i + 1], past_key_values=cache, use_cache=True).logits)
    tolerance = 1e-9 if model_type == "lfm2" else 1e-5  # recurrences are computed in float32
    torch.testing.assert_close(torch.cat(steps, dim=1), logits(out), rtol=tolerance, atol=tolerance)
    shape, held = ModelFolder(out).shape, 0
    for layer in cache.layers:
        for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
            held += sum(state.numel() for state in states.values() if state is not None)
    assert held == len(TEXT) * shape.state_bytes(1)
    pairs = [(layer.keys, layer.values) for layer in cache.layers if getattr(layer, "keys", None) is not None]
    assert sum(part.numel() for pair in pairs for part in pair) == TEXT.numel() * shape.kv_cache_bytes(1)


@pytest.mark.parametrize("model_type", HYBRIDS)
def test_a_layer_with_attention_is_kept(teachers, tmp_path, model_type: str) -> None:
    shape = ModelFolder(teachers[model_type]).shape
    having = [layer for layer in range(4) if shape.has_units("heads", layer)]
    with pytest.raises(ShapeError, match="only with a layer of attention; keep one of the layers"):
        PruneConfig(drop_layers=tuple(having)).target(shape, "prune")
    for seed in range(4):
        out = prune(teachers[model_type], tmp_path / str(seed), num_hidden_layers=1, seed=seed)
        assert ModelFolder(out).shape.attention_layers == 1
    long = shape.of_layers([0, 0, having[0], 0, 0])
    with pytest.raises(ShapeError, match="has all of them; nearest that works: 3, or drop_layers: single"):
        PruneConfig(num_hidden_layers=2).target(long, "prune")
    assert PruneConfig(num_hidden_layers=2, drop_layers="single").target(long, "prune").num_hidden_layers == 2
    with pytest.raises(ShapeError, match="a nest of a .* is not supported, for its layers of several kinds"):
        PruneConfig(nest={"a": {"hidden_size": 24}, "b": {"hidden_size": 16}}).target(shape, "prune")


def test_a_gated_shared_expert_is_not_refitted(teachers, tmp_path) -> None:
    teacher = teachers["qwen2_moe"]
    out = refitted(teacher, score(teacher, tmp_path), tmp_path / "out", "outputs")
    before, after = load_file(teacher / "model.safetensors"), load_file(out / "model.safetensors")
    for layer in range(4):
        name = f"model.layers.{layer}.mlp.shared_expert.down_proj.weight"
        assert before[name].tobytes() == after[name].tobytes()


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
        parent = model.get_submodule(family.layer_name(0).removesuffix(".0"))
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
        ("glm4_moe", {"num_experts": 3}, "num_experts: 3; GLM-4.5 routes by 2 groups of equally many experts"),
        ("glm4_moe", {"shared_expert_intermediate_size": 4}, "a multiple of intermediate_size; set that instead"),
        ("glm4_moe", {"num_hidden_layers": 1}, "1, but the first 1 layers have no experts and are kept"),
        ("qwen2_moe", {"dense_intermediate_size": 4}, "4 is more than the teacher's 0"),
        ("llama", {"num_experts_per_tok": 1}, "num_experts_per_tok: 1 is more than the teacher's 0"),
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
