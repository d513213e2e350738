"""A student of a text model, back in the model of several parts, answers about images as it does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from prunus.cli.main import main
from prunus.console import Console
from prunus.errors import ModelError
from prunus.models.families.nested import OUTER, text_names
from prunus.models.folder import ModelFolder
from prunus.models.lineage import write_lineage
from prunus.runtime import Runtime
from prunus.steps.extract.config import ExtractConfig
from prunus.steps.extract.step import Inputs as ExtractInputs
from prunus.steps.extract.step import run as extract_step
from prunus.steps.insert.config import InsertConfig
from prunus.steps.insert.step import Inputs, run
from tests.cutting import prune, score
from tests.families import kill, square_cut
from tests.nested import CASES, config_of, make_nested, picture
from tests.tiny import make_model

QUIET = Console(quiet=True)
NARROWED = [case for case in CASES if OUTER[case.partition("-")[0]].projector is not None]


def extracted(whole: Path, out: Path) -> Path:
    out.mkdir()
    extract_step(ExtractConfig(), ExtractInputs(whole), out, Runtime(), QUIET)
    return out


def insert(student: Path, whole: Path, out: Path) -> dict[str, float]:
    out.mkdir()
    return run(InsertConfig(), Inputs(student, whole), out, Runtime(), QUIET)


def seen(folder: Path, case: str) -> torch.Tensor:
    """The logits about an image, as anyone computes them."""
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**picture(case)).logits
    return logits


def others(folder: Path) -> dict[str, bytes]:
    """The bytes of the parts other than the text model."""
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    inner = text_names(weights)
    return {name: value.numpy().tobytes() for name, value in weights.items() if name not in inner}


def with_text(whole: Path, text: Path) -> None:
    """Give the text model inside the weights of `text`."""
    inner = load_file(text / "model.safetensors")

    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = text_names(weights)
        return {name: inner[names[name]] if name in names else value for name, value in weights.items()}

    edit(whole, change)


def edit(whole: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = whole / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without_layer(text: Path, layer: int) -> None:
    """Make a layer add nothing to the stream."""
    writers = ("self_attn.o_proj", "linear_attn.out_proj", "mlp.down_proj")
    zeros = tuple(f"layers.{layer}.{name}.weight" for name in writers)
    edit(text, lambda weights: {n: v * (not n.endswith(zeros)) for n, v in weights.items()})


def without_channels(whole: Path, case: str, text: Path, dead: dict[str, Any]) -> None:
    """Kill units of the text model, and what the projector writes to its dead channels."""
    kill(text, dead)
    outer = OUTER[case.partition("-")[0]]

    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, value in weights.items():
            if (dim := outer.dimension(name)) is not None:
                value.index_fill_(dim, torch.tensor(dead["hidden"]), 0.0)
        return weights

    edit(whole, change)


@pytest.mark.parametrize("case", CASES)
def test_all_that_is_kept_answers_as_before(case: str, tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", case)
    student = prune(extracted(whole, tmp_path / "text"), tmp_path / "student")
    result = insert(student, whole, tmp_path / "out")
    assert result["embedding_cosine"] == pytest.approx(1)
    before, after = load_file(whole / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    # the weights are the same; their places in memory differ, and with them the order of sums
    torch.testing.assert_close(seen(tmp_path / "out", case), seen(whole, case), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_dead_neurons_and_layers_change_no_answer(case: str, tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", case, max_shard_size="1GB")
    text = extracted(whole, tmp_path / "text")
    layers = ModelFolder(text).shape.num_hidden_layers
    kill(text, {"mlp": [list(range(10, 26))] * layers})
    without_layer(text, layers - 2)
    with_text(whole, text)
    options = {"intermediate_size": 32, "drop_layers": (layers - 2,)}
    student = prune(text, tmp_path / "student", score(text, tmp_path), **options)
    result = insert(student, whole, tmp_path / "out")
    assert result["kept_nbytes"] == sum(map(len, others(whole).values()))
    assert others(tmp_path / "out") == others(whole)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1
    torch.testing.assert_close(seen(tmp_path / "out", case), seen(whole, case), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["minitron", "rotate"])
@pytest.mark.parametrize("case", NARROWED)
def test_dead_channels_change_no_answer(case: str, method: str, tmp_path: Path) -> None:
    if (case, method) == ("gemma3", "rotate"):
        pytest.skip("Gemma 3 cannot be rotated")
    whole = make_nested(tmp_path / "whole", case)
    text = extracted(whole, tmp_path / "text")
    dead: dict[str, Any] = {"hidden": [0, 3, 4, 11, 17, 18, 25, 30]}
    options = {"hidden_size": 24}
    if OUTER[case].square:
        heads, options = square_cut(ModelFolder(text).shape)
        dead = {"hidden": [*range(3, 11), *range(20, 28)], **heads}
    without_channels(whole, case, text, dead)
    with_text(whole, text)
    student = prune(text, tmp_path / "student", score(text, tmp_path), method=method, **options)
    assert (student / "basis.safetensors").exists() == (method == "rotate")
    insert(student, whole, tmp_path / "out")
    unchanged = {n: v for n, v in others(whole).items() if OUTER[case].dimension(n) is None}
    assert unchanged.items() <= others(tmp_path / "out").items()
    torch.testing.assert_close(seen(tmp_path / "out", case), seen(whole, case), rtol=1e-3, atol=1e-3)


def test_an_image_matters(tmp_path: Path) -> None:
    """The comparisons above can fail."""
    for case in CASES:
        whole = make_nested(tmp_path / case, case)
        before = seen(whole, case)
        edit(whole, lambda weights: {n: v if n in text_names(weights) else -v for n, v in weights.items()})
        assert (seen(whole, case) - before).abs().max() > 0.05, case


def test_heads_and_their_dimensions(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "smolvlm")
    text = extracted(whole, tmp_path / "text")
    student = prune(text, tmp_path / "student", num_key_value_heads=1, head_dim=4)
    insert(student, whole, tmp_path / "out")
    again = extracted(tmp_path / "out", tmp_path / "again")
    one, two = load_file(student / "model.safetensors"), load_file(again / "model.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    config, expected = ModelFolder(again).config, ModelFolder(student).config
    assert config["rope_parameters"] == expected["rope_parameters"]
    assert ModelFolder(again).shape == ModelFolder(student).shape


def with_image_token(folder: Path) -> None:
    """Make the token 10 a special one, which no cut of the vocabulary drops."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    word = next(word for word, number in tokenizer["model"]["vocab"].items() if number == 10)
    token = {"id": 10, "content": word, "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"] = sorted([*tokenizer["added_tokens"], {**token, **flags}], key=lambda one: one["id"])
    file.write_text(json.dumps(tokenizer))


def test_a_cut_vocabulary_keeps_the_tokens_of_images(corpus: Path, tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "smolvlm")
    for name, special in (("without", False), ("with", True)):
        if special:
            with_image_token(whole)
        text = extracted(whole, tmp_path / f"text-{name}")
        arguments = [str(text), "--corpus", str(corpus), "--vocab-size", "280", "--importance", "random"]
        student = tmp_path / f"student-{name}"
        assert main(["prune", *arguments, "--out", str(student)]) == 0
        kept = json.loads((student / "kept.json").read_text())["vocab"]
        if 10 not in kept:
            with pytest.raises(ModelError, match="its vocabulary lacks tokens of images: image_token_id 10"):
                insert(student, whole, tmp_path / f"out-{name}")
            continue
        insert(student, whole, tmp_path / f"out-{name}")
        config = json.loads((tmp_path / f"out-{name}/config.json").read_text())
        assert config["image_token_id"] == kept.index(10)
        assert config["text_config"]["vocab_size"] == 280
        assert (tmp_path / f"out-{name}/tokenizer.json").read_bytes() == (student / "tokenizer.json").read_bytes()
        inputs = picture("smolvlm")
        old = torch.tensor(kept)
        inputs["input_ids"] = old[torch.randint(14, 280, (1, 13))]
        inputs["input_ids"][:, 5] = 10
        model = AutoModelForImageTextToText.from_pretrained(whole).eval()
        other = AutoModelForImageTextToText.from_pretrained(tmp_path / f"out-{name}").eval()
        with torch.no_grad():
            expected = model(**inputs).logits[..., old]
            inputs["input_ids"] = torch.searchsorted(old, inputs["input_ids"])
            torch.testing.assert_close(other(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
    assert special


def test_files_of_processors_stay(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "smolvlm")
    files = {name: json.dumps({"of": name}) for name in ("preprocessor_config.json", "processor_config.json")}
    files["chat_template.json"] = json.dumps({"chat_template": "{{ messages[0].content }}!"})
    for name, content in files.items():
        (whole / name).write_text(content)
    student = prune(extracted(whole, tmp_path / "text"), tmp_path / "student", intermediate_size=32)
    insert(student, whole, tmp_path / "out")
    for name, content in files.items():
        assert (tmp_path / "out" / name).read_text() == content


def test_the_first_qwen2_vl_has_the_text_models_keys_in_the_whole_config(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "qwen2_vl")
    config = json.loads((whole / "config.json").read_text())
    inner = config.pop("text_config")
    (whole / "config.json").write_text(json.dumps({**inner, **config}))
    before = seen(whole, "qwen2_vl")
    student = prune(extracted(whole, tmp_path / "text"), tmp_path / "same")
    insert(student, whole, tmp_path / "one")
    torch.testing.assert_close(seen(tmp_path / "one", "qwen2_vl"), before, rtol=1e-5, atol=1e-5)
    narrow = prune(tmp_path / "text", tmp_path / "narrow", intermediate_size=32)
    insert(narrow, whole, tmp_path / "two")
    config = json.loads((tmp_path / "two/config.json").read_text())
    assert "intermediate_size" not in config
    assert config["text_config"]["intermediate_size"] == 32


def test_a_student_without_lineage_has_all_channels(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "smolvlm")
    text = extracted(whole, tmp_path / "text")
    edit(text, lambda weights: {n: v * 1.5 for n, v in weights.items()})
    insert(text, whole, tmp_path / "out")
    assert not torch.equal(seen(tmp_path / "out", "smolvlm"), seen(whole, "smolvlm"))


def of_another(whole: Path, text: Path) -> Path:
    """A student whose embeddings have nothing to do with the text model's."""
    edit(text, lambda weights: {n: v.flip(-1) if "embed" in n else v for n, v in weights.items()})
    return text


def pruned(**options: Any) -> Callable[[Path, Path], Path]:
    return lambda whole, text: prune(text, text.parent / "student", **options)


def narrow_without_lineage(whole: Path, text: Path) -> Path:
    student = prune(text, text.parent / "student", hidden_size=24)
    (student / "kept.json").unlink()
    return student


def cut_twice(whole: Path, text: Path) -> Path:
    """A student whose lineage lists no tokens."""
    student = prune(text, text.parent / "student")
    edit(student, lambda weights: {n: v[:280] if len(v) == 300 else v for n, v in weights.items()})
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**config, "vocab_size": 280}))
    write_lineage(student, {"layers": [0, 1, 2], "hidden": list(range(32))}, np.eye(32))
    return student


@pytest.mark.parametrize(
    ("case", "make", "message"),
    [
        ("llava", pruned(hidden_size=24), "it is also a width inside the projector"),
        ("qwen3_vl", pruned(drop_layers=(0,)), r"features of images are added after layers \[0\], which must stay"),
        ("qwen2_vl", pruned(head_dim=4), r"head_dim was cut from 8 to 4; rotary positions of images divide"),
        ("qwen2_vl", pruned(hidden_size=24), r"hidden_size is 24, and num_attention_heads x head_dim is 4 x 8"),
        ("smolvlm", of_another, r"mean cosine of -?0\.\d\d .* expected 0.5 or more: a student of another teacher"),
        ("smolvlm", narrow_without_lineage, "there is no kept.json, which `prunus prune` writes"),
        ("smolvlm", cut_twice, "does not list its tokens, as after two cuts"),
        ("mistral3", lambda whole, text: make_model(text.parent / "llama"), "a Llama; the text model is a Ministral 3"),
    ],
)
def test_what_cannot_be_inserted_is_refused(
    case: str, make: Callable[[Path, Path], Path], message: str, tmp_path: Path
) -> None:
    whole = make_nested(tmp_path / "whole", case)
    student = make(whole, extracted(whole, tmp_path / "text"))
    with pytest.raises(ModelError, match=message):
        insert(student, whole, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_all_reasons_are_in_one_message(tmp_path: Path) -> None:
    whole = make_nested(tmp_path / "whole", "llava")
    text = extracted(whole, tmp_path / "text")
    student = prune(text, tmp_path / "student", hidden_size=24)
    with pytest.raises(ModelError, match=r"(?s)inside the projector.*\n.*mean cosine"):
        insert(of_another(whole, student), whole, tmp_path / "out")


@pytest.mark.parametrize("case", CASES)
def test_no_part_shares_weights_with_the_text_model(case: str) -> None:
    """Otherwise a trained text model would change a part that was to stay as it was."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_of(case))
    model.tie_weights()
    named = dict(model.named_parameters(remove_duplicate=False))
    shared = {id(value) for value in named.values() if sum(other is value for other in named.values()) > 1}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name, value in named.items() if id(value) in shared} <= {
        "embed_tokens", "lm_head",
    }  # fmt: skip


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_nested(tmp_path / "whole", "gemma3")
    text, student = str(tmp_path / "text"), str(tmp_path / "student")
    assert main(["extract", str(whole), "--out", text]) == 0
    options = ["--intermediate-size", "32", "--importance", "random"]
    assert main(["prune", text, *options, "--out", student]) == 0
    assert main(["insert", student, "--into", str(whole), "--out", str(tmp_path / "out")]) == 0
    assert "of other parts unchanged" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert main(["inspect", str(tmp_path / "out"), "--json"]) == 0
    assert '"intermediate_size": 32' in capsys.readouterr().out
    assert main(["insert", student, "--into", text, "--out", str(tmp_path / "none")]) == 2
    assert "is a text model (gemma3_text), not a model of several parts" in capsys.readouterr().err
