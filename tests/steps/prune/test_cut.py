"""The cut, compared with a slow, obvious reference that lists each weight of a Llama."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from prunus.console import Console
from prunus.errors import ArtifactError, ModelError
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.prune.choose import Keep, choose
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.cut import _pieces
from prunus.steps.prune.step import Inputs, run
from tests.tiny import load, make_model


def prune(teacher: Path, out: Path, **options) -> Path:
    out.mkdir()
    run(PruneConfig(importance="random", **options), Inputs(teacher), out, Runtime(), Console(quiet=True))
    return out


def slow_cut(teacher: Path, keep: Keep) -> dict[str, np.ndarray]:
    """Each tensor of the student, by index arithmetic written out weight by weight."""
    source = load_file(teacher / "model.safetensors")
    hidden = keep.shared["hidden"]
    head_dim = ModelFolder(teacher).shape.head_dim

    def rows(heads: np.ndarray) -> list[int]:
        return [int(head) * head_dim + i for head in heads for i in range(head_dim)]

    result = {"model.embed_tokens.weight": source["model.embed_tokens.weight"][:, hidden]}
    result["model.norm.weight"] = source["model.norm.weight"][hidden]
    if "lm_head.weight" in source:
        result["lm_head.weight"] = source["lm_head.weight"][:, hidden]
    for new, old in enumerate(keep.layers):
        mlp, heads, kv = (keep.layered[axis][old] for axis in ("mlp", "heads", "kv_heads"))
        s = {name.removeprefix(f"model.layers.{old}."): value for name, value in source.items() if f".{old}." in name}
        layer = {
            "input_layernorm.weight": s["input_layernorm.weight"][hidden],
            "post_attention_layernorm.weight": s["post_attention_layernorm.weight"][hidden],
            "self_attn.q_proj.weight": s["self_attn.q_proj.weight"][rows(heads)][:, hidden],
            "self_attn.k_proj.weight": s["self_attn.k_proj.weight"][rows(kv)][:, hidden],
            "self_attn.v_proj.weight": s["self_attn.v_proj.weight"][rows(kv)][:, hidden],
            "self_attn.o_proj.weight": s["self_attn.o_proj.weight"][hidden][:, rows(heads)],
            "mlp.gate_proj.weight": s["mlp.gate_proj.weight"][mlp][:, hidden],
            "mlp.up_proj.weight": s["mlp.up_proj.weight"][mlp][:, hidden],
            "mlp.down_proj.weight": s["mlp.down_proj.weight"][hidden][:, mlp],
        }
        if "self_attn.q_proj.bias" in s:
            layer |= {
                "self_attn.q_proj.bias": s["self_attn.q_proj.bias"][rows(heads)],
                "self_attn.k_proj.bias": s["self_attn.k_proj.bias"][rows(kv)],
                "self_attn.v_proj.bias": s["self_attn.v_proj.bias"][rows(kv)],
                "self_attn.o_proj.bias": s["self_attn.o_proj.bias"][hidden],
                "mlp.gate_proj.bias": s["mlp.gate_proj.bias"][mlp],
                "mlp.up_proj.bias": s["mlp.up_proj.bias"][mlp],
                "mlp.down_proj.bias": s["mlp.down_proj.bias"][hidden],
            }
        result |= {f"model.layers.{new}.{name}": value for name, value in layer.items()}
    return result


@pytest.fixture(scope="module")
def biased(tmp_path_factory) -> Path:
    """A teacher with every weight of the table: with biases, and an untied LM head."""
    folder = tmp_path_factory.mktemp("biased") / "model"
    return make_model(folder, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 4),
    hidden=st.sampled_from([8, 16, 24, 32]),
    mlp=st.integers(1, 48),
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 2),
    seed=st.integers(0, 5),
)
def test_a_cut_is_the_slow_cut(biased, tmp_path_factory, layers, hidden, mlp, groups, per_group, seed) -> None:
    options = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_attention_heads": groups * per_group,
        "num_key_value_heads": groups,
        "seed": seed,
    }
    out = prune(biased, tmp_path_factory.mktemp("cut") / "out", **options)
    teacher = ModelFolder(biased).shape
    config = PruneConfig(importance="random", **options)
    keep = choose({}, teacher, config.target(teacher, ""), config, None)
    actual = load_file(out / "model.safetensors")
    expected = slow_cut(biased, keep)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_keeping_everything_keeps_every_byte(teacher: Path, tmp_path: Path) -> None:
    out = prune(teacher, tmp_path / "out")
    before, after = load_file(teacher / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].tobytes() == after[name].tobytes()
    ids = torch.arange(40)[None] % 300
    assert torch.equal(load(out)(ids).logits, load(teacher)(ids).logits)


def test_the_student_is_what_the_stock_classes_build(teacher: Path, tmp_path: Path) -> None:
    out = prune(teacher, tmp_path / "out", hidden_size=16, intermediate_size=20, num_hidden_layers=2)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    config = json.loads((out / "config.json").read_text())
    assert (config["head_dim"], config["hidden_size"]) == (4, 16)  # 16 / 8 heads would be 2: it must be written out
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out))
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    for name in ("tokenizer.json", "generation_config.json"):
        assert (out / name).read_bytes() == (teacher / name).read_bytes()
    own, kept = (json.loads((folder / "tokenizer_config.json").read_text()) for folder in (teacher, out))
    assert kept == {**own, "tokenizer_class": "PreTrainedTokenizerFast"}  # the name that older readers know too


@pytest.mark.parametrize("axis", ["neurons", "heads", "kv_heads"])
def test_cutting_what_is_dead_changes_no_bit(tmp_path: Path, axis: str) -> None:
    folder = make_model(tmp_path / "teacher", tie_word_embeddings=False)
    model = load(folder)
    draw = np.random.default_rng(3)
    scores = made_scores(4, 48, 8, 32, draw)
    with torch.no_grad():
        for i, layer in enumerate(model.model.layers):
            if axis == "neurons":
                dead = draw.permutation(48)[:20]
                scores["neurons.mean"][:, i, dead] = 0
                layer.mlp.down_proj.weight[:, dead] = 0
            else:
                # one query head of each group, or whole groups
                heads = [2 * g + draw.integers(2) for g in range(4)] if axis == "heads" else [0, 1, 4, 5]
                scores["heads.mean"][:, i, heads] = 0
                for head in heads:
                    layer.self_attn.o_proj.weight[:, 4 * head : 4 * head + 4] = 0
    model.save_pretrained(folder)
    (tmp_path / "scores").mkdir()
    save(scores, tmp_path / "scores")
    options = {
        "neurons": {"intermediate_size": 28},
        "heads": {"num_attention_heads": 4},
        "kv_heads": {"num_key_value_heads": 2},
    }
    out = tmp_path / "out"
    out.mkdir()
    run(PruneConfig(**options[axis]), Inputs(folder, tmp_path / "scores"), out, Runtime(), Console(quiet=True))
    ids = torch.arange(50)[None] % 300
    student = load(out)
    before = load(folder).double()(ids).logits
    after = student.double()(ids).logits
    assert student.config.to_dict() != model.config.to_dict()
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("residual", [1.0, -0.5])
def test_pruned_heads_leave_their_difference(teacher: Path, tmp_path: Path, residual: float) -> None:
    scores = made_scores(4, 48, 8, 32, np.random.default_rng(3))
    (tmp_path / "scores").mkdir()
    save(scores, tmp_path / "scores")
    actual = {}
    for name, value in (("plain", 0.0), ("residual", residual)):
        (tmp_path / name).mkdir()
        config = PruneConfig(num_attention_heads=4, head_residual=value)
        run(config, Inputs(teacher, tmp_path / "scores"), tmp_path / name, Runtime(), Console(quiet=True))
        actual[name] = load_file(tmp_path / name / "model.safetensors")
    whole = load_file(teacher / "model.safetensors")
    kept = json.loads((tmp_path / "plain" / "kept.json").read_text())["per_layer"]
    for name, weight in actual["plain"].items():
        if "q_proj" not in name:
            np.testing.assert_array_equal(actual["residual"][name], weight)
            continue
        for i, head in enumerate(kept[int(name.split(".")[2])]["heads"]):
            mine, other = (whole[name][4 * h : 4 * h + 4] for h in (head, head ^ 1))  # two heads a group
            expected = mine + residual * (mine - other)
            np.testing.assert_allclose(actual["residual"][name][4 * i : 4 * i + 4], expected, rtol=1e-5, atol=1e-7)


def test_depth_cuts_whole_layers(teacher: Path, tmp_path: Path) -> None:
    out = prune(teacher, tmp_path / "out", drop_layers=(1, 2))
    model = load(teacher)
    model.model.layers = torch.nn.ModuleList([model.model.layers[0], model.model.layers[3]])
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = i
    ids = torch.arange(40)[None] % 300
    assert torch.equal(load(out)(ids).logits, model(ids, use_cache=False).logits)
    assert json.loads((out / "kept.json").read_text())["layers"] == [0, 3]


def test_per_layer_lists_are_cut_with_the_layers(teacher: Path, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    config["layer_types"] = ["full_attention", "a", "b", "c"]
    (folder / "config.json").write_text(json.dumps(config))
    out = prune(folder, tmp_path / "out", drop_layers=(0, 2))
    assert json.loads((out / "config.json").read_text())["layer_types"] == ["a", "c"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cut_keeps_the_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = make_model(tmp_path / "teacher", dtype=dtype)
    out = prune(folder, tmp_path / "out", hidden_size=16)
    assert ModelFolder(out).dtype == ModelFolder(folder).dtype
    assert AutoModelForCausalLM.from_pretrained(out).dtype == dtype


def test_a_random_start_is_seeded_and_not_the_teacher(teacher: Path, tmp_path: Path) -> None:
    weights = [
        load_file(prune(teacher, tmp_path / name, init="random", seed=seed, hidden_size=16) / "model.safetensors")
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    name = "model.embed_tokens.weight"
    np.testing.assert_array_equal(weights[0][name], weights[1][name])
    assert not np.array_equal(weights[0][name], weights[2][name])


def test_scores_that_are_missing_or_anothers(teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ArtifactError, match=r"no scores.safetensors"):
        run(PruneConfig(hidden_size=16), Inputs(teacher, tmp_path), out, Runtime(), Console(quiet=True))
    save(made_scores(4, 9, 8, 32, np.random.default_rng(0)), tmp_path)
    with pytest.raises(ArtifactError, match="contains the scores of another model"):
        run(PruneConfig(hidden_size=16), Inputs(teacher, tmp_path), out, Runtime(), Console(quiet=True))


def made_scores(layers: int, mlp: int, heads: int, hidden: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "neurons.mean": draw.random((2, layers, mlp)) + 1,
        "heads.mean": draw.random((2, layers, heads)) + 1,
        "channels.mean": np.ones((2, 1, hidden)),
        "cosines": np.ones((layers + 1, layers + 1)),
        "reader_norms": np.ones((layers, mlp)),
        "energy.model.norm": np.ones(hidden),
        "counts": np.array([4.0, 64.0]),
    }


def save(scores: dict[str, np.ndarray], folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file(scores, folder / "scores.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    folder = make_model(tmp_path / "teacher", dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[17, 5] = value
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"model\.layers\.2\.mlp\.up_proj\.weight holds NaN or infinity"):
        prune(folder, tmp_path / "out")


def test_rows_are_read_in_pieces_of_any_size_with_the_same_result(teacher: Path, tmp_path: Path, monkeypatch) -> None:
    options = {"hidden_size": 16, "intermediate_size": 20, "num_attention_heads": 4}
    actual = prune(teacher, tmp_path / "pieces", **options)
    monkeypatch.setattr("prunus.steps.prune.cut._GAP", 1)
    jumping = prune(teacher, tmp_path / "jumping", **options)
    monkeypatch.setattr("prunus.steps.prune.cut.PIECE_BYTES", 1 << 30)
    expected = prune(teacher, tmp_path / "whole", **options)
    for folder in (actual, jumping):
        assert (folder / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()


@pytest.mark.parametrize("columns", [32, 20], ids=["whole rows", "some columns"])
def test_pieces_can_be_kept_after_the_next_is_read(teacher: Path, columns: int) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    pieces = list(_pieces(ModelFolder(teacher).tensors[name], [np.arange(48), np.arange(columns)]))
    assert len(pieces) > 10
    assert b"".join(pieces) == load_file(teacher / "model.safetensors")[name][:, :columns].tobytes()


def test_too_little_disk_space_is_reported_before_anything_is_written(
    teacher: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ArtifactError, match="has 1000 bytes free, and the weights need"):
        prune(teacher, tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()
