"""The step: what it writes, what it says of it, and what it leaves when something is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.errors import ExportError, RecipeError
from prunus.gguf import check, mixtures, writer
from prunus.gguf.compare import ENLARGED, Agreement, first_departure
from prunus.llamacpp import ggml
from prunus.models.folder import ModelFolder
from prunus.models.locate import locate_model
from prunus.runtime import Runtime
from prunus.steps.export.config import ExportConfig
from prunus.steps.export.step import Inputs, run
from tests.real import DATA
from tests.tiny import make_model

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 32, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose rows fit every type."""
    return make_model(tmp_path_factory.mktemp("wide") / "model", **WIDE)


def export(model: Path, out: Path, *formats: str, tokens: Path | None = None, **options: Any) -> dict[str, Any]:
    out.mkdir()
    config = ExportConfig(formats=formats, **{"check_tokens": 64, "check_length": 32, "new_tokens": 8, **options})
    run(config, Inputs(model, tokens), out, Runtime(), Console(quiet=True))
    return json.loads((out / "export.json").read_text())


def tensors_of(file: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}


def test_exported_files_and_their_records(wide: Path, tmp_path: Path, held_out: Path) -> None:
    stream = tmp_path / "tokens"
    stream.mkdir()
    tokenise(TokensConfig(), DataInputs((Source(path=str(held_out)),), wide), stream, Runtime(), Console(quiet=True))
    found = export(wide, tmp_path / "out", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m", tokens=stream)
    assert sorted(file.name for file in (tmp_path / "out").glob("*.gguf")) == [
        "model-F16.gguf",
        "model-Q4_K_M.gguf",
        "model-Q8_0.gguf",
    ]
    assert found["proof"]["max_logit_difference"] < 1e-3
    assert found["proof"]["greedy_tokens_alike"] == 8
    kl = [found[name]["kl"] for name in ("proof", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m")]
    assert kl == sorted(kl)
    for name in ("gguf-f16", "gguf-q8_0", "gguf-q4_k_m"):
        assert found[name]["nbytes"] == (tmp_path / "out" / found[name]["file"]).stat().st_size
        file, model = (np.log(found[name][figure]) for figure in ("perplexity", "perplexity_of_model"))
        assert file == pytest.approx(model, rel=0.05)
        assert found[name]["fallen_back"] == []
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_the_model_runs_once_for_all_files(wide: Path, tmp_path: Path, monkeypatch) -> None:
    """Five windows of 32 tokens: each once for all files, the proof's in addition; its greedy check once."""
    monkeypatch.setattr("prunus.steps.export.proof.PROOF_TOKENS", 70)
    lengths, logits = [], check.Reference.logits

    def counted(self: check.Reference, ids: Any, last: int = 0) -> np.ndarray:
        lengths.append(len(ids))
        return logits(self, ids, last)

    monkeypatch.setattr(check.Reference, "logits", counted)
    found = export(wide, tmp_path / "out", "gguf-f16", "gguf-q8_0", "gguf-f32", check_tokens=160)
    assert lengths == [32, 32, 8 + 8 - 1, *[32] * 5]
    assert {found[name]["tokens"] for name in ("gguf-f16", "gguf-q8_0", "gguf-f32")} == {160}
    assert found["gguf-f32"]["greedy_tokens_alike"] == 8


def test_the_mixture_is_llama_cpps(wide: Path, tmp_path: Path) -> None:
    export(wide, tmp_path / "out", "gguf-q4_k_m")
    types = tensors_of(tmp_path / "out" / "model-Q4_K_M.gguf")
    assert types["token_embd.weight"] == "Q6_K"  # tied, it is the LM head too
    assert types["blk.0.attn_q.weight"] == "Q4_K"
    assert types["blk.0.attn_v.weight"] == types["blk.0.ffn_down.weight"] == "Q4_K"
    assert types["blk.1.attn_v.weight"] == types["blk.1.ffn_down.weight"] == "Q6_K"  # the last eighth of 2 layers
    assert types["output_norm.weight"] == "F32"


def test_more_bits_where_they_are_worth_it(wide: Path) -> None:
    shape = ModelFolder(wide).shape.with_dimensions({"num_hidden_layers": 16})
    names = [f"blk.{i}.{part}.weight" for i in range(16) for part in ("attn_v", "attn_q")]
    chosen = mixtures.choose("gguf-q4_k_m", [*names, "output.weight"], [256] * 33, [2] * 33, shape)
    more = [i for i in range(16) if chosen[2 * i].kind == ggml.Q6_K]
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]
    assert {choice.kind for choice in chosen[1:32:2]} == {ggml.Q4_K}
    assert chosen[-1].kind == ggml.Q6_K


def test_rows_that_fit_no_block_fall_back_with_a_warning(tmp_path: Path, capsys) -> None:
    model = make_model(tmp_path / "model", intermediate_size=40)
    (tmp_path / "out").mkdir()
    config = ExportConfig(formats=("gguf-q4_k_m",), check_tokens=32, check_length=16)
    run(config, Inputs(model), tmp_path / "out", Runtime(), Console())
    types = tensors_of(tmp_path / "out" / "model-Q4_K_M.gguf")
    assert types["blk.0.attn_q.weight"] == "Q5_0"  # 32 is a multiple of 32
    assert types["blk.0.ffn_down.weight"] == "F16"  # 40 is not
    found = json.loads((tmp_path / "out" / "export.json").read_text())["gguf-q4_k_m"]
    assert "blk.0.ffn_down.weight" in found["fallen_back"]
    assert found["extra_bytes"] > 0
    assert "are no multiples of its" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [ggml.Q8_0, ggml.Q4_0])
def test_numpy_makes_the_same_bytes(kind: int) -> None:
    values = np.random.default_rng(0).standard_normal((16, 256)).astype(np.float32)
    wanted = gguf.quants.quantize(values, gguf.GGMLQuantizationType(kind))
    assert ggml.quantise(values, kind).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", [ggml.F16, ggml.BF16])
def test_narrow_floats_are_rounded_to_the_nearest(kind: int) -> None:
    draw = np.random.default_rng(0)
    values = (draw.standard_normal(4096) * 10.0 ** draw.integers(-7, 4, 4096)).astype(np.float32)
    found = ggml.narrow(values, kind)
    assert found is not None
    assert found.tobytes() == writer._narrowed(values, kind).tobytes()


def test_without_the_library_q8_0_is_numpys_and_k_quants_are_refused(wide: Path, tmp_path: Path, monkeypatch) -> None:
    whole = export(wide, tmp_path / "one", "gguf-q8_0", "gguf-f16")
    monkeypatch.setattr(ggml, "can_quantise", lambda: False)
    monkeypatch.setattr(ggml, "narrow", lambda *_: None)
    assert export(wide, tmp_path / "two", "gguf-q8_0", "gguf-f16")["gguf-q8_0"]["types"] == whole["gguf-q8_0"]["types"]
    for name in ("model-Q8_0.gguf", "model-F16.gguf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(RecipeError, match="gguf-q4_k_m needs llama.cpp's quantiser"):
        export(wide, tmp_path / "three", "gguf-q4_k_m")


def test_nonsense_is_no_result(wide: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ggml, "narrow", lambda values, kind: np.zeros(values.shape, dtype=np.uint16))
    with pytest.raises(ExportError, match=r"model-F16.gguf: KL to the model is"):
        export(wide, tmp_path / "out", "gguf-f16")


def test_agreement_by_its_formulas() -> None:
    draw = np.random.default_rng(0)
    ours, theirs = draw.standard_normal((2, 70, 11)).astype(np.float32)
    ids = draw.integers(0, 11, 70)
    found = Agreement()
    found.add(ids, ours, theirs)
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(-1, keepdims=True) for x in (ours, theirs))
    assert found.mean_kl == pytest.approx((p * np.log(p / q)).sum() / 70)
    figures = found.figures(is_text=True)
    assert figures["perplexity"] == pytest.approx(np.exp(-np.mean([np.log(q[i, ids[i + 1]]) for i in range(69)])))
    assert figures["top1"] == (p.argmax(-1) == q.argmax(-1)).mean()
    assert first_departure([0, 1], np.array([[1.0, 0.9], [1.0, 0.9]]), 0.05) == 1
    assert first_departure([0, 1], np.array([[1.0, 0.9], [1.0, 0.9]]), 0.2) is None


def test_rounding_is_that_of_the_model_itself() -> None:
    draw, ids = np.random.default_rng(0), np.arange(20) % 11
    logits, noise = draw.standard_normal((2, 20, 11)).astype(np.float32)

    def off_by(size: float) -> Agreement:
        found = Agreement()
        found.add(ids, logits, logits + size * noise)
        return found

    assert off_by(9e-3).is_within(off_by(1e-3), ENLARGED)
    assert not off_by(1.1e-2).is_within(off_by(1e-3), ENLARGED)
    one = Agreement()
    one.add(ids, logits, logits + 5e-2 * (noise == noise.max()))
    assert one.mean_square < off_by(1e-2).mean_square
    assert not one.is_within(off_by(1e-3), ENLARGED)  # a single one that is far off


def test_rounding_passes_the_proof_and_a_wrong_epsilon_fails_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(check, "TOLERANCE", 1e-7)  # so that its own rounding is more than is tolerated unseen
    sapling = locate_model("builtin:sapling", None, "test").folder.path
    found = export(sapling, tmp_path / "right", "gguf-f32", check_tokens=512, check_length=512)["gguf-f32"]
    assert found["max_logit_difference"] > check.TOLERANCE * found["logit_spread"]
    told = writer.model_keys
    monkeypatch.setattr(writer, "model_keys", lambda *args: told(*args) | {"attention.layer_norm_rms_epsilon": 2e-5})
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        export(sapling, tmp_path / "wrong", "gguf-f32", check_tokens=512, check_length=512)


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is absent")
def test_stories260k_generates_the_same_200_tokens(tmp_path: Path) -> None:
    model = DATA / "stories260K" / "hf"
    found = export(model, tmp_path / "out", "gguf-f32", "gguf-q8_0", new_tokens=200, check_length=256)
    assert found["gguf-f32"]["greedy_tokens_alike"] == 200
    assert found["gguf-f32"]["max_logit_difference"] < 1e-3
    assert found["gguf-f32"]["top1"] == 1.0
    assert found["gguf-q8_0"]["kl"] < 0.02
