"""Folders that transformers reads as something else, or refuses: refused here too, by name, before anything is made."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from prunus.errors import ModelError
from prunus.models import checkpoint
from prunus.models.checkpoint import INDEX, WEIGHTS
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.settings import MAX_LAYERS
from tests.cutting import prune
from tests.families import SPECIAL, config_of, make_teacher
from tests.tiny import load

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def copy(teacher: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(teacher, tmp_path / "copy"))


def change(folder: Path, **values: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


def rewrite(folder: Path, new: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    tensors = {name: value for name, value in load_file(folder / WEIGHTS).items() if name not in drop}
    save_file({**tensors, **new}, folder / WEIGHTS, metadata={"format": "pt"})


# a head that the config ties


def test_a_tied_head_that_holds_other_values_is_refused(copy: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "_PIECE_BYTES", 100)
    embedding = load_file(copy / WEIGHTS)[EMBEDDING]
    rewrite(copy, {HEAD: embedding})
    ModelFolder(copy).check()
    other = embedding.copy()
    other[-1, -1] += 1
    rewrite(copy, {HEAD: other})
    model = load(copy)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)  # transformers keeps both
    with pytest.raises(ModelError, match=r"lm_head.weight holds other values.*`tie_word_embeddings: false`"):
        ModelFolder(copy).check()
    with pytest.raises(ModelError, match="holds other values"):
        _ = ModelFolder(copy).weights
    change(copy, tie_word_embeddings=False)
    ModelFolder(copy).check()


@pytest.mark.parametrize("model_type", SPECIAL)
def test_ties_are_compared_in_every_family(tmp_path: Path, model_type: str) -> None:
    """Also where the config leaves the key out and the family ties by default."""
    folder = make_teacher(tmp_path / "model", model_type)
    read = ModelFolder(folder)
    head = next(key for key, line in read.family.shared.items() if "tie_word_embeddings" in line)
    embedding = read.family.tied_to(head)
    values = load_file(folder / WEIGHTS)[embedding]
    by_default = AutoConfig.for_model(model_type).tie_word_embeddings
    assert by_default == read.family.flags["tie_word_embeddings"]
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config if by_default else {**config, "tie_word_embeddings": True}))
    rewrite(folder, {head: values})
    ModelFolder(folder).check()
    rewrite(folder, {head: values + 1})
    with pytest.raises(ModelError, match="holds other values"):
        ModelFolder(folder).check()


def test_weights_of_a_switch_that_is_off_are_not_dropped(copy: Path) -> None:
    rewrite(copy, {"model.layers.0.self_attn.q_proj.bias": np.ones(32, dtype=np.float32)})
    with pytest.raises(ModelError, match=r"q_proj.bias is not one that a Llama with this config has"):
        ModelFolder(copy).check()


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "qwen3"])
def test_old_buffers_are_dropped(tmp_path: Path, model_type: str) -> None:
    folder = make_teacher(tmp_path / "model", model_type)
    family = FAMILIES[model_type]
    rewrite(folder, {family.layer_name(0) + end: np.ones(2, dtype=np.float32) for end in family.buffers})
    ModelFolder(folder).check()


def test_nothing_that_looks_like_an_old_buffer_is_dropped(copy: Path) -> None:
    rewrite(copy, {"model.layers.0.self_attn.bias": np.ones(2, dtype=np.float32)})
    with pytest.raises(ModelError, match=r"self_attn.bias is not one"):
        ModelFolder(copy).check()


@pytest.mark.parametrize("layer", ["00", "²", "٠", "0 ", "9" * 5000])
def test_a_layers_number_is_written_in_one_way(copy: Path, layer: str) -> None:
    rewrite(copy, {f"model.layers.{layer}.mlp.up_proj.weight": np.ones((48, 32), dtype=np.float32)})
    with pytest.raises(ModelError, match="is not one that a Llama"):
        ModelFolder(copy).check()


def test_two_tensors_for_one_weight(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "gpt2")
    rewrite(folder, {"h.0.ln_1.weight": np.ones(32, dtype=np.float32)})
    with pytest.raises(ModelError, match=r"are the same weight, transformer.h.0.ln_1.weight"):
        ModelFolder(folder).check()


# which files are read


def sharded(folder: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    return tmp_path / "shards"


def test_an_older_index_and_a_newer_file_are_refused(copy: Path, tmp_path: Path) -> None:
    for file in sharded(copy, tmp_path).glob("model*"):
        shutil.copyfile(file, copy / file.name)
    with pytest.raises(ModelError, match="two saves in one folder. Transformers reads model.safetensors"):
        ModelFolder(copy).check()
    tensors = load_file(copy / WEIGHTS)
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, WEIGHTS)}))
    ModelFolder(copy).check()


def test_a_shard_holds_more_than_the_index_lists(copy: Path, tmp_path: Path) -> None:
    shards = sharded(copy, tmp_path)
    index = json.loads((shards / INDEX).read_text())
    del index["weight_map"]["model.norm.weight"]
    (shards / INDEX).write_text(json.dumps(index))
    ModelFolder(shards).check()  # as transformers, which reads whole shards
    expected = load(copy).model.norm.weight
    assert torch.equal(load(shards).model.norm.weight, expected)
    assert ModelFolder(shards).weights["model.norm.weight"].shape == tuple(expected.shape)


def test_a_name_in_two_shards_is_the_later_ones(copy: Path, tmp_path: Path) -> None:
    shards = sharded(copy, tmp_path)
    index = json.loads((shards / INDEX).read_text())
    first, last = sorted(set(index["weight_map"].values()))[:: len(set(index["weight_map"].values())) - 1]
    for shard, value in ((first, 1.0), (last, 2.0)):
        tensors = load_file(shards / shard)
        norm = {"model.norm.weight": np.full(32, value, dtype=np.float32)}
        save_file({**tensors, **norm}, shards / shard, metadata={"format": "pt"})
    index["weight_map"]["model.norm.weight"] = first
    (shards / INDEX).write_text(json.dumps(index))
    chosen = ModelFolder(shards).weights["model.norm.weight"]
    assert chosen.file.name == last
    assert float(load(shards).model.norm.weight[0].detach()) == 2.0


@pytest.mark.parametrize("shard", ["/etc/passwd", "../a.safetensors", "sub/a.safetensors", "a.bin", "a\n.safetensors"])
def test_shards_outside_the_folder(copy: Path, shard: str) -> None:
    (copy / WEIGHTS).unlink()
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="no file name of a shard"):
        ModelFolder(copy).check()


def test_an_index_without_metadata_is_refused_as_transformers_refuses_it(copy: Path, tmp_path: Path) -> None:
    shards = sharded(copy, tmp_path)
    index = json.loads((shards / INDEX).read_text())
    (shards / INDEX).write_text(json.dumps({"weight_map": index["weight_map"]}))
    with pytest.raises(KeyError):
        AutoModelForCausalLM.from_pretrained(shards)
    with pytest.raises(ModelError, match="metadata is None; expected an object"):
        ModelFolder(shards).check()


def test_links_to_blobs_that_cannot_be_written_are_read(copy: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs with ü"
    copy.rename(blobs)
    copy.mkdir()
    for file in blobs.iterdir():
        file.chmod(0o444)
        (copy / file.name).symlink_to(file)
    ModelFolder(copy).check()


# what is no plain checkpoint


def named(folder: Path, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        ModelFolder(folder).check()


QUANTISED = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "fp8": {"quant_method": "fp8"},
    "bitsandbytes": {"load_in_4bit": True, "quant_method": "bitsandbytes"},
}


@pytest.mark.parametrize("method", QUANTISED)
def test_a_quantised_checkpoint_is_named_by_its_config(copy: Path, method: str) -> None:
    named(change(copy, quantization_config=QUANTISED[method]), f"quantised checkpoint .*{method}.*dequantise it first")
    ModelFolder(change(copy, quantization_config=None)).check()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (GATE.replace("weight", "qweight"), "quantised checkpoint .GPTQ"),
        (GATE + ".absmax", "quantised checkpoint .bitsandbytes"),
        (GATE + ".quant_state.bitsandbytes__nf4", "bitsandbytes"),
        (GATE + "_scale_inv", "quantised checkpoint .FP8"),
        (GATE + "_packed", "compressed-tensors"),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "MXFP4"),
        ("_orig_mod." + GATE, "torch.compile"),
        ("module." + GATE, "a wrapper for training"),
        (GATE.replace("weight", "lora_A.weight"), "an adapter .LoRA"),
        (GATE.replace("weight", "base_layer.weight"), "an adapter .LoRA"),
        ("language_model." + GATE, "a model of several parts"),
        ("vision_tower.x.weight", "a model of several parts"),
    ],
)
def test_other_kinds_are_named_by_their_tensors(copy: Path, name: str, told: str) -> None:
    rewrite(copy, {name: np.zeros(2, dtype=np.float32)})
    named(copy, told)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_floats(copy: Path, dtype: torch.dtype) -> None:
    tensors = {name: torch.from_numpy(value) for name, value in load_file(copy / WEIGHTS).items()}
    save_torch({**tensors, GATE: tensors[GATE].to(dtype)}, copy / WEIGHTS, metadata={"format": "pt"})
    named(copy, f"{GATE} is of type .*, where a Llama has floating weights")


def test_an_adapter_is_named_alone_and_next_to_weights(copy: Path, tmp_path: Path) -> None:
    alone = tmp_path / "adapter"
    alone.mkdir()
    for folder in (alone, copy):
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    named(alone, r"an adapter \(LoRA\), not a model; merge it")
    named(copy, "in the folder of a model, and transformers with peft would load both")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "2 shards .* and no .*index"),
        (["pytorch_model.bin"], "its weights are pickled"),
        (["model-q4.gguf"], r"a GGUF file \(model-q4.gguf\)"),
        (["consolidated.00.pth"], "in their publisher.s format"),
        (["weights.safetensors"], "transformers does not read weights.safetensors"),
        (["training_args.bin"], "there are no weights"),
    ],
)
def test_weights_that_are_not_read_are_named(copy: Path, files: list[str], told: str) -> None:
    (copy / WEIGHTS).unlink()
    assert not ModelFolder(copy).has_weights
    for file in files:
        (copy / file).write_bytes(b"x")
    assert ModelFolder(copy).has_weights == (files != ["training_args.bin"])
    named(copy, told)


def test_a_model_of_several_parts_is_named(copy: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}, "vision_config": {}}
    (copy / "config.json").write_text(json.dumps(config))
    named(copy, "a model of several parts .text_config, vision_config; its text model is gemma3_text")


def test_weights_in_a_file_that_config_names(copy: Path) -> None:
    named(change(copy, transformers_weights="other.safetensors"), "transformers_weights is 'other.safetensors'")


# sizes and values


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [10**9, 10**30, 0, -1, 2.0, "4", True, [4]])
def test_sizes_without_end_are_refused_at_once(copy: Path, key: str, value: Any) -> None:
    named(change(copy, **{key: value}), rf"{key} is |implies|cannot be shared|head_dim")


def test_more_layers_or_experts_than_any_header_has(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "mixtral")
    named(change(folder, num_hidden_layers=10**9), f"num_hidden_layers is 1000000000; .* from 1 to {MAX_LAYERS}")
    named(change(folder, num_hidden_layers=4, num_local_experts=10**9), "num_local_experts is 1000000000; ")
    named(change(folder, num_hidden_layers=10_000, num_local_experts=10_000), r"implies \[10000, 32\]")


SWITCHES = ["tie_word_embeddings", "attention_bias", "mlp_bias"]


@pytest.mark.parametrize("value", ["no", "false", 0, 1, None, 1.0, []])
@pytest.mark.parametrize("key", SWITCHES)
def test_switches_are_true_or_false_as_transformers_wants_them(copy: Path, key: str, value: Any) -> None:
    change(copy, **{key: value})
    with pytest.raises(Exception, match=key):
        AutoConfig.from_pretrained(copy)
    named(copy, f"{key} is .*; expected true or false")


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["half", "torch.float16", "auto", "float8_e4m3fn", 16, {"": "float16"}])
def test_types_that_no_weights_are_in(copy: Path, key: str, value: Any) -> None:
    change(copy, dtype=None)
    named(change(copy, **{key: value}), f"{key} is .*; expected one of bfloat16, float16, float32, float64")


@pytest.mark.parametrize("key", ["eos_token_id", "pad_token_id", "decoder_start_token_id"])
@pytest.mark.parametrize("value", ["2", 1.5, True, [1, "2"], {}])
def test_ids_of_tokens(copy: Path, key: str, value: Any) -> None:
    (copy / "generation_config.json").write_text(json.dumps({key: value}))
    named(copy, rf"generation_config.json: {key} is .*; expected a token's id")
    (copy / "generation_config.json").unlink()
    named(change(copy, **{key: value}), rf"config.json: {key} is .*; expected a token's id")


@pytest.mark.parametrize(
    "model_type",
    # transformers has no default of it for DeepSeek-V2, whose configs have the key
    [name for name, family in FAMILIES.items() if family.experts is not None and name != "deepseek_v2"],
)
def test_experts_of_a_token_are_those_of_transformers(tmp_path: Path, model_type: str) -> None:
    folder = make_teacher(tmp_path / "model", model_type)
    assert ModelFolder(folder).shape.num_experts_per_tok == config_of(model_type).num_experts_per_tok
    config = json.loads((folder / "config.json").read_text())
    for key in FAMILIES[model_type].config_keys("num_experts_per_tok"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    assert ModelFolder(folder).shape.num_experts_per_tok == AutoConfig.from_pretrained(folder).num_experts_per_tok


@pytest.mark.parametrize(
    ("model_type", "ignored"),
    [("glm4_moe", "model.layers.4.eh_proj.weight"), ("ernie4_5_moe", "model.mtp_block.0.mlp.up_proj.weight")],
)
def test_weights_that_predict_further_tokens_are_left_out(tmp_path: Path, model_type: str, ignored: str) -> None:
    folder = make_teacher(tmp_path / "model", model_type)
    own = load_file(folder / WEIGHTS)
    further = {name.replace("layers.3", "layers.4"): own[name] for name in own if "layers.3" in name}
    rewrite(folder, {ignored: np.ones((8, 8), np.float32), **(further if model_type == "glm4_moe" else {})})
    change(folder, num_nextn_predict_layers=1)
    ModelFolder(folder).check()
    assert set(ModelFolder(folder).weights) == set(own)
    out = prune(folder, tmp_path / "out")
    assert set(load_file(out / WEIGHTS)) == set(own)
    assert json.loads((out / "config.json").read_text())["num_nextn_predict_layers"] == 0
    rewrite(folder, {"model.layers.3.eh_proj.weight": np.ones((8, 8), np.float32)})
    named(folder, "the weight model.layers.3.eh_proj.weight is not one")


def test_experts_that_end_before_the_last_layer_are_refused(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "ernie4_5_moe")
    named(change(folder, moe_layer_end_index=2), "moe_layer_end_index is 2; the table of ERNIE 4.5 MoE is for -1 or 3")


def test_sizes_that_are_equal_in_all_layers_are_read_from_lists(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "hunyuan_v1_moe")
    change(folder, moe_topk=[2, 2, 2, 2], moe_intermediate_size=[24, 24, 24, 24])
    assert ModelFolder(folder).shape.num_experts_per_tok == 2
    out = prune(folder, tmp_path / "out", num_experts_per_tok=1, intermediate_size=16)
    config = json.loads((out / "config.json").read_text())
    assert [config[key] for key in ("moe_topk", "intermediate_size", "moe_intermediate_size")] == [1, 16, 16]
    named(change(folder, moe_topk=[2, 2, 1, 2]), r"moe_topk or num_experts_per_tok is \[2, 2, 1, 2\]; expected a whole")


# code of a folder's own


def test_code_is_passed_over_where_transformers_has_the_type(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "phi", "phi3")
    for name in ("config.json", "tokenizer_config.json"):
        config = json.loads((folder / name).read_text())
        config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T"]}
        (folder / name).write_text(json.dumps(config))
    for name in ("evil.py", "tokenizer_evil.py"):
        (folder / name).write_text("raise SystemExit('it ran')")
    read = ModelFolder(folder)
    read.check()
    load(folder)
    out = tmp_path / "out"
    out.mkdir()
    write_config(out, read.config)
    copy_along(folder, out)
    assert not list(out.glob("*.py"))
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((out / name).read_text())
    assert AutoTokenizer.from_pretrained(out)("plum")["input_ids"]


# text files


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
DAMAGE = {
    "empty": (b"", "the file is empty"),
    "a pointer": (POINTER, "git lfs pull"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "not UTF-8": (b'{"a": "\xe4"}', "not UTF-8"),
    "a list": (b"[1]", "holds list, expected an object"),
    "nested": (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested deeper"),
    "nested less": (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper"),
    "cut": (b'{"a": ', "not JSON"),
}
FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json",
         "added_tokens.json", INDEX]  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_before_anything_is_made(copy: Path, name: str, kind: str) -> None:
    contents, told = DAMAGE[kind]
    (copy / name).write_bytes(contents)
    named(copy, f"{name}: .*{told}")


def test_other_files_of_a_tokenizer_are_looked_at(copy: Path) -> None:
    (copy / "tokenizer.model").write_bytes(POINTER)
    named(copy, "tokenizer.model: a git-lfs pointer")
    (copy / "tokenizer.model").write_bytes(b"")
    named(copy, "tokenizer.model: the file is empty")


def test_half_a_gigabyte_of_head_is_compared_in_little_memory(tmp_path: Path) -> None:
    """The comparison holds two pieces, whatever the tensors' size; sparse files make it cheap to show."""
    import tracemalloc

    size = 1 << 26
    infos = []
    for name in "ab":
        with (tmp_path / name).open("wb") as handle:
            handle.truncate(size)
        infos.append(checkpoint.TensorInfo(name, "U8", (size,), tmp_path / name, 0))
    tracemalloc.start()
    assert checkpoint.same_bytes(*infos)
    assert tracemalloc.get_traced_memory()[1] < 3 * (4 << 20)
    tracemalloc.stop()
