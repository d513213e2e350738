"""Export in a recipe: planned, refused before any work where a target has not what it takes, done and recorded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.card import write_cards
from prunus.steps.export import plan as exporting
from prunus.steps.export.targets import FORMATS
from tests.families import make_teacher
from tests.pipeline.recipes import tiny_recipe

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")


def recipe_for(teacher: Path, corpus: Path, held_out: Path, *formats: str, **changes) -> Recipe:
    export = {"formats": list(formats), "check_tokens": 64, "check_length": 32, "new_tokens": 4}
    students = {"depth": {"prune": {"num_hidden_layers": 2, "importance": "random", "drop_layers": "single"}}}
    changes = {"correct": {}, "distill": {"tokens": 0}, "students": students, "export": export, **changes}
    return parse(Recipe, tiny_recipe(teacher, corpus, held_out, **changes), "test")


def test_a_student_is_exported_and_recorded(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> None:
    plan = make_plan(recipe_for(teacher, corpus, held_out, "gguf-q8_0"), tmp_path / "run")
    step = plan.steps[-1]
    assert step.name == "depth export"
    assert step.config.seed == 3
    cost = cost_of(step, plan)
    assert cost.disk_bytes > 5 * plan.students["depth"].parameters
    run_plan(plan, Console(quiet=True))
    record = json.loads((step.artifact.path / "artifact.json").read_text())
    assert set(record["files"]) >= {"model-Q8_0.gguf", "export.json"}
    assert record["metrics"]["gguf-q8_0.kl"] < 0.1
    cards = write_cards(plan.root)
    assert [card.parent.name.partition("-")[0] for card in cards] == ["prune", "export"]
    assert "model-Q8_0.gguf" in cards[0].read_text()
    assert step.artifact.is_done()  # a card takes nothing from what was recorded


def test_a_plan_tells_of_rows_that_fit_no_block(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> None:
    recipe = recipe_for(teacher, corpus, held_out, "gguf-f16", "gguf-q4_k_m")
    shape = make_plan(recipe, tmp_path / "run").students["depth"]
    note = exporting.block_warning(recipe.export, shape)
    assert note is not None
    assert note.startswith("rows of 32, 48 are no multiples of the block of gguf-q4_k_m (256 values)")
    wide = shape.with_dimensions({"hidden_size": 256, "intermediate_size": 512, "head_dim": 32})
    assert exporting.block_warning(recipe.export, wide) is None


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("qwen3", {}, "students.depth: attention_bias is true, but llama.cpp's qwen3 has no such biases"),
        (
            "olmo2",
            {"students": {"odd": {"prune": {"num_attention_heads": 2}}}},
            "students.odd: hidden_size is 32, but llama.cpp expects num_attention_heads x head_dim = 16",
        ),
        (
            "smollm3",
            {"students": {"thin": {"prune": {"intermediate_size": 16}}}},
            r"students.thin: no_rope_layers is \[1, 0, 1, 0\]",
        ),
    ],
)
def test_what_llama_cpp_has_not_is_refused_before_any_work(
    corpus: Path, held_out: Path, tmp_path: Path, model_type: str, changes: dict, message: str
) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    with pytest.raises(RecipeError, match=message):
        make_plan(recipe_for(teacher, corpus, held_out, "gguf-f16", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_llama_cpp_has_not_is_refused_before_any_work(
    corpus: Path, held_out: Path, tmp_path: Path
) -> None:
    teacher = make_teacher(tmp_path / "teacher", "llama")
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RecipeError, match="its normalizer is Lowercase"):
        make_plan(recipe_for(teacher, corpus, held_out, "gguf-f16"), tmp_path / "run")


def test_a_missing_package_is_named_with_the_extra_to_install(
    teacher: Path, corpus: Path, held_out: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(FORMATS, "gguf-f16", replace(FORMATS["gguf-f16"], needs=("no_such_module",)))
    with pytest.raises(RecipeError, match=r"gguf-f16 needs no_such_module.*pip install 'prunus\[gguf\]'"):
        make_plan(recipe_for(teacher, corpus, held_out, "gguf-f16"), tmp_path / "run")


def test_the_command(teacher: Path, held_out: Path, tmp_path: Path, capsys) -> None:
    options = ["--formats", "gguf-q8_0", "--check-tokens", "64", "--check-length", "32", "--out", str(tmp_path / "out")]
    assert main(["export", str(teacher), "--corpus", str(held_out), *options]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert (tmp_path / "out" / "model-Q8_0.gguf").is_file()
    assert main(["export", str(teacher), "--out", str(tmp_path / "none")]) == 2
    assert "--formats: empty" in capsys.readouterr().err


MATRIX = {"formats": ["gguf-q4_0"], "check_tokens": 64, "check_length": 32, "new_tokens": 4, "imatrix": True}


def test_an_importance_matrix_is_measured_on_the_corpus_and_read_from_its_file(
    teacher: Path, corpus: Path, held_out: Path, tmp_path: Path
) -> None:
    measured = {**MATRIX, "imatrix_tokens": 512}
    recipe = recipe_for(teacher, corpus, held_out, export=measured)
    plan = make_plan(recipe, tmp_path / "run")
    step = plan.steps[-1]
    assert step.inputs["calibration"] is not step.inputs["tokens"]
    assert step.inputs["calibration"].label == "corpus"
    plain = make_plan(recipe_for(teacher, corpus, held_out, "gguf-q4_0"), tmp_path / "run").steps[-1]
    assert step.fingerprint != plain.fingerprint
    assert cost_of(step, plan).tokens == cost_of(plain, plan).tokens + 512
    run_plan(plan, Console(quiet=True))
    folder = step.artifact.path
    assert json.loads((folder / "export.json").read_text())["gguf-q4_0"]["imatrix"] is True
    again = {**MATRIX, "imatrix": False, "imatrix_file": str(folder / "imatrix.gguf")}
    second = make_plan(recipe_for(teacher, corpus, held_out, export=again), tmp_path / "run")
    run_plan(second, Console(quiet=True))
    assert second.steps[-1].artifact.path != folder
    files = [one / "model-Q4_0.gguf" for one in (folder, second.steps[-1].artifact.path)]
    assert files[0].read_bytes() == files[1].read_bytes()
    run_plan(make_plan(recipe_for(teacher, corpus, held_out, "gguf-q4_0"), tmp_path / "run"), Console(quiet=True))
    assert (plain.artifact.path / "model-Q4_0.gguf").read_bytes() != files[0].read_bytes()
    wider = {"wide": {"prune": {"intermediate_size": 32, "importance": "random"}}}
    with pytest.raises(RecipeError, match=r"export.imatrix_file: .*imatrix.gguf: students.wide: blk.0.ffn_down.weight"):
        make_plan(recipe_for(teacher, corpus, held_out, export=again, students=wider), tmp_path / "run")


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({"formats": ["gguf-iq3_xxs", "gguf-iq2_m"]}, "gguf-iq3_xxs, gguf-iq2_m: llama.cpp needs an importance matrix"),
        ({**MATRIX, "imatrix_file": "some.gguf"}, "not with imatrix, which measures one"),
        ({**MATRIX, "formats": ["gguf-q8_0", "gguf-f16"]}, "imatrix: changes none of gguf-q8_0, gguf-f16"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    export: dict[str, object], message: str, teacher: Path, corpus: Path, held_out: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_for(teacher, corpus, held_out, export=export)


def test_a_file_that_is_no_matrix_is_refused(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> None:
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    export = {**MATRIX, "imatrix": False, "imatrix_file": str(tmp_path / "some.gguf")}
    with pytest.raises(RecipeError, match=r"export.imatrix_file: .*some.gguf: not a GGUF file"):
        make_plan(recipe_for(teacher, corpus, held_out, export=export), tmp_path / "run")


@pytest.mark.parametrize("step", ["distill", "qat"])
def test_training_for_a_file_has_no_importance_matrix(
    step: str, teacher: Path, corpus: Path, held_out: Path, tmp_path: Path
) -> None:
    trained = {step: {"tokens": 512, "quantise": "gguf-q4_0"}}
    with pytest.raises(RecipeError, match=rf"students.depth.{step}.quantise: gguf-q4_0; not with an importance matrix"):
        make_plan(recipe_for(teacher, corpus, held_out, export=MATRIX, **trained), tmp_path / "run")
    whole = {step: {"tokens": 512, "quantise": "gguf-q8_0"}}
    make_plan(
        recipe_for(teacher, corpus, held_out, export={**MATRIX, "formats": ["gguf-q8_0", "gguf-q4_0"]}, **whole),
        tmp_path,
    )


def test_the_commands_flags(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(teacher), "--formats", "gguf-q4_0", "--imatrix", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "--imatrix and --calibration: one without the other" in capsys.readouterr().err
