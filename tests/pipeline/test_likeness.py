"""A table tried on a model of another type: what cuts it exactly passes, what does not is told by the axis."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prunus.cli.main import main
from prunus.console import Console
from prunus.errors import ModelError
from prunus.models.alike import families_that_fit
from prunus.models.families.adopted import adopted_file
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from prunus.pipeline.likeness import check_likeness, trials_of
from tests.families import COMMON, config_of, make_teacher
from tests.tiny import made_once, save_tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_unknown(folder: Path, model_type: str = "ministral") -> Path:
    """A model of a type that transformers has and no table names."""
    assert model_type not in FAMILIES
    folder.mkdir(parents=True)

    def make() -> None:
        torch.manual_seed(0)
        options = {**COMMON, "sliding_window": 8} if model_type == "ministral" else COMMON
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **options))
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter) * 0.3
                parameter.copy_(noise + 1 if parameter.ndim == 1 else noise)
        model.save_pretrained(folder)
        save_tokenizer(folder, 300)

    return made_once(folder, model_type, make)


@pytest.mark.parametrize("like", ["llama", "mistral"])
def test_a_table_that_fits_cuts_exactly(like: str, tmp_path: Path) -> None:
    class_name, found = check_likeness(ModelFolder(make_unknown(tmp_path / "model")), FAMILIES[like], QUIET)
    assert class_name == "MinistralForCausalLM"
    assert list(found) == [
        "nothing", "rotation", "num_hidden_layers", "intermediate_size", "hidden_size", "num_attention_heads",
        "num_key_value_heads", "head_dim",
    ]  # fmt: skip
    assert found["nothing"] == 0
    assert max(found.values()) < 1e-3


@pytest.mark.parametrize("model_type", ["gemma2", "cohere", "gpt2", "phi3", "falcon", "olmo2", "qwen3", "gpt_neox"])
def test_every_structure_passes_its_own_table(model_type: str, tmp_path: Path) -> None:
    folder = ModelFolder(make_teacher(tmp_path / "model", model_type))
    _, found = check_likeness(folder, FAMILIES[model_type], QUIET)
    assert max(found.values()) < 1e-3
    assert {"nothing", "num_hidden_layers", "intermediate_size", "hidden_size"} <= set(found)


@pytest.mark.parametrize(
    ("model_type", "like", "message"),
    [
        (
            "gemma",
            "llama",
            r"though its weights fit: .* standard deviations \(rotation\), .*hidden_size",
        ),
        ("granite", "llama", r"changes its logits by [\d.]+ standard deviations \(head_dim\)$"),
        ("llama", "ernie4_5", r"changes its logits by [\d.]+ standard deviations \(head_dim\)$"),
        ("cohere", "llama", "post_attention_layernorm.weight is missing"),
        ("llama", "qwen3_moe", "Qwen3-MoE has experts; tables of such families cannot be tried"),
    ],
)
def test_a_table_that_is_not_the_models_own_is_refused(
    model_type: str, like: str, message: str, tmp_path: Path
) -> None:
    folder = make_teacher(tmp_path / "model", model_type)
    with pytest.raises(ModelError, match=message):
        check_likeness(ModelFolder(folder), FAMILIES[like], QUIET)


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.experts is None])
def test_every_trial_is_a_shape_that_loads(model_type: str) -> None:
    config = config_of(model_type).to_dict()
    shape = Shape.from_config(config, FAMILIES[model_type], "test")
    for trial in trials_of(shape):
        target = shape.with_dimensions(trial.sizes)
        target.check_loadable(trial.name)
        assert (target == shape) == (trial.name in ("nothing", "rotation"))
        units = {axis: getattr(shape, size) - getattr(target, size) for axis, size in AXES.items()}
        assert {axis: len(dead) for axis, dead in trial.dead.items()} == {a: n for a, n in units.items() if n}


AXES = {
    "mlp": "intermediate_size", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
    "hidden": "hidden_size", "head_dim": "head_dim",
}  # fmt: skip


def test_a_type_that_transformers_does_not_have(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "quince"}))
    with pytest.raises(ModelError, match="transformers has no causal LM of type 'quince'"):
        check_likeness(ModelFolder(folder), FAMILIES["llama"], QUIET)


def test_tables_that_fit_are_named(tmp_path: Path) -> None:
    names = {family.model_type for family in families_that_fit(ModelFolder(make_unknown(tmp_path / "model")))}
    assert {"llama", "mistral"} <= names
    assert not {"qwen2", "gemma2", "gpt2", "cohere"} & names


def test_inspect_says_which_to_try_and_a_try_lets_it_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(make_unknown(tmp_path / "model")), str(tmp_path / "out")
    prune = ["prune", model, "--intermediate-size", "12", "--importance", "random", "--out", out]
    assert main(prune) == 2
    assert "no axis table for model_type 'ministral'" in capsys.readouterr().err
    assert main(["inspect", model]) == 2
    told = capsys.readouterr().err
    assert f"To check whether one of them cuts it exactly: prunus inspect {model} --family NAME" in told
    assert main(["inspect", model, "--family", "llama"]) == 0
    shown = capsys.readouterr().out
    assert "ministral is cut by this table from now on, on this machine" in shown
    assert "ministral (by the table of Llama)" in shown
    assert main(prune) == 0
    student, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert type(student).__name__ == "MinistralForCausalLM"
    assert student.config.intermediate_size == 12
    adopted_file().unlink()
    capsys.readouterr()
    assert main(["inspect", model]) == 2


def test_nothing_is_adopted_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_unknown(tmp_path / "model")
    assert main(["inspect", str(model), "--family", "gemma"]) == 2
    assert "cannot be cut by the table of Gemma, though its weights fit" in capsys.readouterr().err
    assert not adopted_file().exists()
    for like, told in (("plum", "--family: 'plum' has no axis table"), ("llama", "llama has a table of its own")):
        other = make_teacher(tmp_path / like, "llama")
        assert main(["inspect", str(other), "--family", like]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", '{"ministral": 1}', '{"ministral": ["plum", "X"]}'])
def test_a_damaged_list_adopts_nothing(content: str, tmp_path: Path) -> None:
    adopted_file().parent.mkdir(parents=True)
    adopted_file().write_text(content)
    with pytest.raises(ModelError, match="no axis table"):
        _ = ModelFolder(make_unknown(tmp_path / "model")).shape
