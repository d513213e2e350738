"""Commands as functions: the same results as on the command line, and the same refusals."""

import json
import re
from pathlib import Path

import pytest

import prunus
from prunus import Console, PrunusError
from prunus.cli.main import main

QUIET = Console(quiet=True)
SCORING = {"samples": 8, "sequence_length": 32}


def record(folder: Path) -> dict:
    return json.loads((folder / "artifact.json").read_text())


def test_a_chain_of_verbs_makes_what_commands_make(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> None:
    scores = prunus.score(teacher, corpus=corpus, out=tmp_path / "scores", console=QUIET, **SCORING)
    student = prunus.prune(
        teacher,
        scores=scores,
        corpus=(corpus,),
        hidden_size=16,
        heal={"refit": "none"},
        out=tmp_path / "a",
        console=QUIET,
    )
    result = prunus.evaluate(
        str(student),
        teacher=teacher,
        corpus=held_out,
        sequence_length=32,
        prompt_count=0,
        out=tmp_path / "r",
        console=QUIET,
    )
    assert (student / "model.safetensors").is_file()
    assert json.loads((result / "results.json").read_text())["figures"]["kl"]["value"] > 0
    options = ["--scores", str(scores), "--corpus", str(corpus), "--hidden-size", "16", "--heal.refit", "none"]
    assert main(["prune", str(teacher), *options, "--out", str(tmp_path / "b")]) == 0
    assert record(tmp_path / "b")["key"] == record(student)["key"]
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (student / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("prune", {"hiden_size": 16, "out": "x"}, "unknown option 'hiden_size' (did you mean `hidden_size`?)"),
        ("score", {"corpsu": "x", "out": "x"}, "unknown option 'corpsu' (did you mean `corpus`?)"),
        ("score", {"out": "x"}, "missing 1 required keyword-only argument: 'corpus'"),
        ("prune", {"hidden_size": 16}, "missing 1 required keyword-only argument: 'out'"),
        ("prune", {"hidden_size": "many", "out": "x"}, "hidden_size: expected a whole number"),
        ("score", {"corpus": "no.jsonl", "runtime": {"device": "gpu"}, "out": "x"}, "prunus.score: runtime"),
        ("convert", {"out": "x"}, "there is no file"),
        ("prune", {"model": "twice", "out": "x"}, "model is given twice"),
        ("score", {"corpus": 5, "out": "x"}, "corpus is 5"),
        ("evaluate", {"corpus": "a.jsonl", "limit": "many", "out": "x"}, "limit is 'many'"),
    ],
)
def test_mistakes_are_reported_before_work(
    verb: str, options: dict, message: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrunusError) as caught:
        getattr(prunus, verb)(tmp_path / "none.gguf" if verb == "convert" else teacher, console=QUIET, **options)
    assert message in str(caught.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("models", [(5,), ("a", "b")])
def test_what_is_no_model_is_refused(models: tuple, tmp_path: Path) -> None:
    with pytest.raises(PrunusError, match=r"prunus.prune: model is .*valid string"):
        prunus.prune(*models, hidden_size=8, out=tmp_path / "x", console=QUIET)


def test_models_to_merge_are_given_one_after_the_other(teacher: Path, tmp_path: Path) -> None:
    merged = prunus.merge(teacher, teacher, method="linear", out=tmp_path / "m", console=QUIET)
    assert record(merged)["config"]["method"] == "linear"


def test_exactly_the_verbs_are_documented() -> None:
    page = Path("docs/start.md").read_text()
    for name in re.findall(r"prunus\.(\w+)\(", page):
        assert callable(getattr(prunus, name))
    for name in prunus._VERBS:
        assert f"prunus {name} --help" in getattr(prunus, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = prunus.prun
