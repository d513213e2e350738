"""The command `cutout`, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from prunus.cli.main import main
from prunus.models.folder import ModelFolder
from prunus.models.lineage import read_lineage
from prunus.models.nest import read_nest
from tests.cutting import logits, score
from tests.nests import cut, sizes_of, written


@pytest.fixture(scope="module")
def nest(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nest")
    return cut(teacher, folder / "out", score(teacher, folder), nest=sizes_of(teacher))


def test_a_size_is_cut_out_with_its_lineage(nest, teacher, tmp_path) -> None:
    out = tmp_path / "out"
    assert main(["cutout", str(nest), "--shape", "small", "--out", str(out)]) == 0
    small = read_nest(nest).sizes[-1]
    torch.testing.assert_close(logits(out), logits(written(nest, small, tmp_path / "written")))
    whole = ModelFolder(teacher).shape
    lineages = [read_lineage(folder, whole.hidden_size, whole.num_hidden_layers) for folder in (nest, out)]
    assert lineages[1].layers == [lineages[0].layers[layer] for layer in small.layers]
    assert (lineages[1].basis == lineages[0].basis[:, :16]).all()
    assert json.loads((out / "artifact.json").read_text())["metrics"]["parameters"] == small.shape.parameters


def test_the_largest_size_within_a_budget_is_cut_out(nest, tmp_path) -> None:
    sizes = read_nest(nest).sizes
    limit = (sizes[0].shape.parameters + sizes[1].shape.parameters) // 2
    out = tmp_path / "out"
    assert main(["cutout", str(nest), "--budget", f"parameters <= {limit}", "--out", str(out)]) == 0
    assert sizes[1].shape.parameters < ModelFolder(out).shape.parameters <= limit


REFUSED = {
    "no such size": (["--shape", "tiny"], "cutout.shape: 'tiny' is not a size of"),
    "outside": (["--hidden-size", "64"], "does not nest in large"),
    "both": (["--shape", "small", "--budget", "parameters <= 1M"], "cannot be combined"),
    "no budget": (["--budget", "as small as possible"], "is not a limit"),
    "too small": (["--budget", "parameters <= 10"], "small, the smallest size, has"),
    "latency": (["--budget", "decode <= 20 ms"], "only `prunus search` does"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_cut_out_is_refused(nest, tmp_path, capsys, what) -> None:
    words, message = REFUSED[what]
    assert main(["cutout", str(nest), *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["align", "correct"])
def test_training_that_would_change_the_largest_size_alone_is_refused(nest, corpus, tmp_path, capsys, command) -> None:
    words = (
        ["--data", str(corpus), "--method", "sft"]
        if command == "align"
        else ["--corpus", str(corpus), "--tokens", "1000"]
    )
    assert main([command, str(nest), *words, "--out", str(tmp_path / "out")]) == 2
    assert "is a nest, whose sizes only `distill` trains together" in capsys.readouterr().err


def test_an_ordinary_folder_is_refused(teacher, tmp_path, capsys) -> None:
    assert main(["cutout", str(teacher), "--shape", "small", "--out", str(tmp_path / "out")]) == 2
    assert "is not a nest" in capsys.readouterr().err
