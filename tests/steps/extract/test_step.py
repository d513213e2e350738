"""The text model inside a model of several parts computes what the whole computes on text."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from prunus.cli.main import main
from prunus.console import Console
from prunus.errors import ModelError
from prunus.models.families.nested import OUTER
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.extract.config import ExtractConfig
from prunus.steps.extract.step import Inputs, run
from tests.nested import CASES, config_of, make_nested
from tests.tiny import load

IDS = torch.randint(14, 300, (2, 40), generator=torch.Generator().manual_seed(0))  # no token of an image


def extract(whole: Path, out: Path, **options: Any) -> Path:
    out.mkdir()
    run(ExtractConfig(**options), Inputs(whole), out, Runtime(), Console(quiet=True))
    return out


def test_every_known_type_is_tested() -> None:
    assert {case.partition("-")[0] for case in CASES} == set(OUTER)


@pytest.mark.parametrize("case", CASES)
def test_logits_on_text_are_those_of_the_whole_model(case: str, tmp_path: Path, several_pieces: None) -> None:
    whole = make_nested(tmp_path / "whole", case, max_shard_size="60KB")
    assert len(list(whole.glob("*.safetensors"))) > 1
    text = load(extract(whole, tmp_path / "text"))
    model = AutoModelForImageTextToText.from_pretrained(whole).eval()
    with torch.no_grad():
        torch.testing.assert_close(text(IDS).logits, model(input_ids=IDS).logits, rtol=0, atol=1e-6)
    kept, all_weights = ModelFolder(tmp_path / "text"), ModelFolder(whole)
    assert 0 < kept.nbytes < all_weights.nbytes
    assert AutoTokenizer.from_pretrained(tmp_path / "text")("once upon").input_ids


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("gemma3", "language_model.model.", "model.language_model."),
        ("qwen3_vl", "model.language_model.", "language_model.model."),
        ("smolvlm", "model.text_model.", "model.language_model."),
    ],
)
def test_names_of_other_versions(case: str, old: str, new: str, tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", case)
    expected = load_file(extract(whole, tmp_path / "one") / "model.safetensors")
    file = whole / "model.safetensors"
    before = load_file(file)
    assert any(name.startswith(old) for name in before)
    head = "language_model.lm_head." if new == "language_model.model." else "lm_head."
    names = (name.replace("language_model.lm_head.", "lm_head.").replace("lm_head.", head) for name in before)
    changed = [name.replace(old, new) for name in names]
    save_file(dict(zip(changed, before.values(), strict=True)), file, metadata={"format": "pt"})
    found = load_file(extract(whole, tmp_path / "two") / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_copy_of_a_tied_head_is_left_out_and_another_head_is_kept(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "gemma3")
    file = whole / "model.safetensors"
    weights = load_file(file)
    embedding = next(name for name in weights if name.endswith("embed_tokens.weight"))
    for number, (head, tied) in enumerate(((weights[embedding].clone(), True), (2 * weights[embedding], False))):
        save_file({**weights, "lm_head.weight": head}, file, metadata={"format": "pt"})
        text = extract(whole, tmp_path / str(number))
        assert ModelFolder(text).config["tie_word_embeddings"] == tied
        assert ("lm_head.weight" in load_file(text / "model.safetensors")) != tied


def test_the_template_of_the_processor_becomes_the_tokenizers(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "smolvlm")
    (whole / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}!"}))
    text = extract(whole, tmp_path / "text")
    assert not (text / "chat_template.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(text)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "plum"}], tokenize=False) == "plum!"


def edited(whole: Path, **changes: Any) -> None:
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, **changes}))


def without(whole: Path, ending: str) -> None:
    weights = {
        name: value for name, value in load_file(whole / "model.safetensors").items() if not name.endswith(ending)
    }
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})


def with_more(whole: Path) -> None:
    weights = load_file(whole / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    weights[name.replace("up_proj", "extra_proj")] = torch.zeros(2)
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda whole: without(whole, "layers.1.mlp.up_proj.weight"),
            r"the weight model.layers.1.mlp.up_proj.weight is missing",
        ),
        (with_more, r"model.layers.1.mlp.extra_proj.weight is not one that a Llama"),
        (lambda whole: edited(whole, model_type="paligemma"), r"'paligemma': the text model inside is not known"),
        (lambda whole: edited(whole, model_type="llama"), r"is a text model \(llama\), not a model of several parts"),
        (lambda whole: edited(whole, quantization_config={"quant_method": "fp8"}), r"a quantised checkpoint"),
        (lambda whole: edited(whole, text_config={"model_type": "mamba"}), r"its text model is of type 'mamba'"),
        (lambda whole: edited(whole, text_config={"model_type": "no such"}), r"cannot be read by transformers"),
        (
            lambda whole: edited(whole, text_config={**config_of("gemma3").text_config.to_dict(), "layer_types": []}),
            r"cannot be read by transformers: .*num_hidden_layers. \(7\) must be equal to .*layer_types. \(0\)",
        ),
        (lambda whole: (whole / "model.safetensors").unlink(), r"there are no weights"),
    ],
)
def test_what_cannot_be_extracted_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "llava")
    damage(whole)
    with pytest.raises(ModelError, match=message):
        extract(whole, tmp_path / "text")
    assert not list((tmp_path / "text").iterdir())


def test_a_preview_needs_no_weights(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "qwen3_vl")
    expected = ModelFolder(extract(whole, tmp_path / "with")).shape
    (whole / "model.safetensors").unlink()
    assert ModelFolder(extract(whole, tmp_path / "without", weights=False)).shape == expected


def test_the_command_says_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_nested(tmp_path / "whole", "gemma3")
    assert main(["extract", str(whole), "--out", str(tmp_path / "text")]) == 0
    assert "left out: multi_modal_projector (2.11 kB), vision_tower (53.7 kB)" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "text")]) == 0


def test_a_gguf_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for command in (["extract", f"{tmp_path}/model.gguf"], ["insert", "student", "--into", f"{tmp_path}/model.gguf"]):
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        assert "is a GGUF file, which holds a text model alone (`prunus convert`" in capsys.readouterr().err


def test_the_docs_list_every_known_type() -> None:
    text = (Path(__file__).parents[3] / "docs/families.md").read_text(encoding="utf-8")
    rows = [f"| `{name}` | {outer.models} | {'yes' if outer.projector else 'no'} |" for name, outer in OUTER.items()]
    assert "\n".join(rows) in text
