"""What cannot be a folder is named before anything is written, with the file, the key or the tensor."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.cli.main import main
from prunus.errors import ModelError, PrunusError
from prunus.llamacpp.reading import read_gguf
from prunus.steps.unpack import step
from prunus.steps.unpack.config import UnpackConfig
from tests.families import make_teacher
from tests.fuzz import fuzz
from tests.gguf.test_tensors import ROPES, changed
from tests.steps.unpack.files import file_of, folder_of, rewritten

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


@pytest.fixture(scope="module")
def file(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(teacher, tmp_path_factory.mktemp("file") / "model.gguf")


KEYS: list[tuple[dict[str, Any], str]] = [
    ({"general.type": "mmproj"}, r"a vision or audio projector \(mmproj\)"),
    ({"general.type": "adapter"}, "general.type is 'adapter', not a model"),
    ({"tokenizer.ggml.model": None}, "has no tokenizer"),
    ({"tokenizer.ggml.model": "rwkv"}, "tokenizer.ggml.model is 'rwkv'; allowed: gpt2, llama, t5"),
    ({"tokenizer.ggml.pre": "deepseek-v3"}, "tokenizer.ggml.pre is 'deepseek-v3'; allowed:"),
    ({"tokenizer.ggml.merges": None}, "a byte-level BPE without merges"),
    ({"tokenizer.ggml.merges": ["no where"]}, "the merge 'no where' has tokens that are not in the vocabulary"),
    ({"tokenizer.ggml.eos_token_id": "x"}, "eos_token_id is 'x'; expected a token's id"),
    ({"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True}, "bos is added to each text"),
    (
        {"llama.feed_forward_length": [48, 48, 24, 48]},
        "llama.feed_forward_length is .* its value differs between layers",
    ),
    ({"llama.block_count": None}, "llama.block_count is None; expected a whole number"),
    (
        {"llama.embedding_length": 64},
        r"blk.0.attn_norm.weight is \[32\]|token_embd.weight is .*; expected .* by its keys",
    ),
    ({"llama.attention.value_length": 8}, "heads with 4 dimensions for queries and 8 for values"),
    ({"llama.rope.scaling.type": "ntk", "llama.rope.scaling.factor": 2.0}, "rope.scaling.type is 'ntk'"),
    ({"llama.rope.scaling.type": "yarn"}, "positions are 'yarn' without a factor"),
    ({"llama.rope.scaling.yarn_beta_fast": 16.0}, "yarn_beta_fast is 16.0; allowed: 32.0"),
    ({"llama.rope.dimension_count": 2}, "rope.dimension_count is 2, but this family rotates all 4"),
    ({"llama.attention.sliding_window": 16}, "attention.sliding_window is 16, below the context of 128"),
    ({"llama.attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv is 8.0; Prunus does not know this key"),
    ({"llama.attention.layer_norm_rms_epsilon": "small"}, "layer_norm_rms_epsilon is 'small'; expected a number"),
]


@pytest.mark.parametrize(("keys", "message"), KEYS)
def test_keys(file: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    other = rewritten(file, tmp_path / "other.gguf", keys)
    with pytest.raises(ModelError, match=message) as raised:
        folder_of(other, tmp_path / "out")
    assert "other.gguf" in str(raised.value)
    assert not any((tmp_path / "out").iterdir())


def test_tensors_that_are_missing_or_too_many(file: Path, tmp_path: Path) -> None:
    lacking = rewritten(file, tmp_path / "a.gguf", leave_out=("blk.2.ffn_up.weight",))
    with pytest.raises(
        ModelError, match=r"the tensor blk.2.ffn_up.weight is missing; model.layers.2.* is made from it"
    ):
        folder_of(lacking, tmp_path / "a")
    more = rewritten(file, tmp_path / "b.gguf", more={"blk.9.odd.weight": np.ones(4, dtype=np.float32)})
    with pytest.raises(ModelError, match=r"unexpected tensor blk.9.odd.weight for a Llama with these keys"):
        folder_of(more, tmp_path / "b")
    odd = rewritten(file, tmp_path / "c.gguf", more={"rope_freqs.weight": np.array([1, 3], dtype=np.float32)})
    assert folder_of(odd, tmp_path / "c")  # two numbers: some llama3 has them
    none = rewritten(file, tmp_path / "d.gguf", more={"rope_freqs.weight": np.array([3, 1], dtype=np.float32)})
    with pytest.raises(ModelError, match=r"rope_freqs.weight \(from .*\) cannot be made by llama3's positions"):
        folder_of(none, tmp_path / "d")


def test_values_that_the_type_has_not(file: Path, tmp_path: Path) -> None:
    name = "blk.1.ffn_down.weight"
    values = np.zeros(read_gguf(file).tensors[name].shape, dtype=np.float32)
    values[3, 5] = 1e6
    large = rewritten(file, tmp_path / "a.gguf", leave_out=(name,), more={name: values})
    with pytest.raises(ModelError, match=f"{name} has a value that is not finite, or overflows float16"):
        folder_of(large, tmp_path / "a", dtype="float16")
    assert folder_of(large, tmp_path / "b", dtype="bfloat16")
    values[3, 5] = np.nan
    broken = rewritten(file, tmp_path / "c.gguf", leave_out=(name,), more={name: values})
    for dtype in ("auto", "bfloat16"):
        with pytest.raises(ModelError, match=f"{name} has a value that is not finite"):
            folder_of(broken, tmp_path / f"out-{dtype}", dtype=dtype)


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    broken = tmp_path / "broken.gguf"
    for size in (0, 3, 20, 200, len(whole) // 50, len(whole) // 2, len(whole) - 40):
        broken.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"broken.gguf: .*"):
            read_gguf(broken)
    broken.write_bytes(b"GGML" + whole[4:])
    with pytest.raises(ModelError, match="it begins with b'GGML', expected b'GGUF'"):
        read_gguf(broken)
    broken.write_bytes(whole[:4] + b"\x01" + whole[5:])
    with pytest.raises(ModelError, match="version 1 of GGUF is not supported; allowed: versions 2 and 3"):
        read_gguf(broken)
    broken.write_bytes(whole[:8] + b"\xff" * 8 + whole[16:])
    with pytest.raises(ModelError, match="truncated: it names 18446744073709551615 entries"):
        read_gguf(broken)


def test_split_files(file: Path, tmp_path: Path) -> None:
    names = list(read_gguf(file).tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    parts = [tmp_path / f"m-{i:05d}-of-00002.gguf" for i in (1, 2)]
    for i, (part, other) in enumerate(zip(parts, halves[::-1], strict=True)):
        told = {"split.no": i, "split.count": 2, "split.tensors.count": len(names)}
        rewritten(file, part, told, leave_out=tuple(other))
    one = folder_of(file, tmp_path / "one")
    two = folder_of(parts[0], tmp_path / "two")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="a later part of a split file; name the first one, m-00001-of-00002.gguf"):
        read_gguf(parts[1])
    odd = parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(
        ModelError, match="renamed.gguf: one of 2 parts of a split file, but its name does not have the form"
    ):
        read_gguf(odd)
    odd.rename(parts[0])
    parts[1].unlink()
    with pytest.raises(ModelError, match="a split file of 2 parts, but m-00002-of-00002.gguf is missing"):
        read_gguf(parts[0])


def test_a_pattern_of_gemma_that_is_left_out(tmp_path: Path) -> None:
    file = file_of(make_teacher(tmp_path / "model", "gemma3_text"), tmp_path / "m.gguf")
    keys = {"gemma3.attention.sliding_window_pattern": None, "gemma3.rope.freq_base_swa": None}
    config = json.loads(
        (folder_of(rewritten(file, tmp_path / "n.gguf", keys), tmp_path / "out") / "config.json").read_text()
    )
    assert config["layer_types"] == ["sliding_attention"] * 4  # of six, the last sees all
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 1e4


def test_the_command_line(file: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    odd = rewritten(file, tmp_path / "odd.gguf", {"general.architecture": "mamba"})
    for command in (
        ["inspect", odd],
        ["convert", odd, "--out", tmp_path / "out"],
        ["score", odd, "--corpus", "x.txt", "--out", "o"],
    ):
        assert main(list(map(str, command))) == 2
        said = capsys.readouterr().err
        assert said.count("error:") == 1
        assert "odd.gguf: general.architecture is 'mamba'; allowed: arcee, " in said
    assert main(["convert", str(tmp_path / "none.gguf"), "--out", str(tmp_path / "out")]) == 2
    assert "FILE: there is no file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.processes
def test_no_torch_is_loaded_for_a_folder(file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from prunus.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported'"
    )
    command = [sys.executable, "-c", code, "convert", str(file), "--out", str(tmp_path / "out"), "--no-check"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out" / "artifact.json").is_file()


ODD: list[Any] = [
    "x", "", -1, 0, 3, 2**63, True, 1.5, float("nan"), 1e40, [], [1], ["a"] * 300, [-1] * 300, [float("nan")] * 300
]  # fmt: skip


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "granite", "qwen3_moe"])
def test_a_key_of_any_value_is_read_or_refused(tmp_path: Path, monkeypatch, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "model", model_type)
    if model_type in ("llama", "granite"):
        changed(teacher, rope_parameters=ROPES["yarn with its own"])
    file = file_of(teacher, tmp_path / "m.gguf")
    source = read_gguf(file)
    for key in source.keys:
        for value in ODD:
            with_value = replace(source, keys={**source.keys, key: value})
            monkeypatch.setattr(step, "read_gguf", lambda _, found=with_value: found)
            with suppress(PrunusError):
                step.read_source(file, UnpackConfig())


@fuzz(40)
@given(changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_header_of_any_bytes_is_read_or_refused(file: Path, tmp_path_factory, changes: list) -> None:
    whole = bytearray(file.read_bytes())
    start = min(tensor.start for tensor in read_gguf(file).tensors.values())
    for at, value in changes:
        whole[at % start] = value
    other = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    other.write_bytes(whole)
    with suppress(PrunusError):
        step.read_source(other, UnpackConfig())
