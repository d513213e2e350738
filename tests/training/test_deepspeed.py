"""DeepSpeed by a configuration of the user's own: what is refused, and that two processes train as one does."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunus.cli.main import main
from prunus.errors import ArtifactError, RecipeError
from prunus.runtime import Runtime
from prunus.training.deepspeed import check_shares, completed, read_settings
from tests.training.launching import arguments, assert_same, finish, launch, make_pair

INSTALLED = importlib.util.find_spec("deepspeed") is not None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace() if name == "deepspeed" else found(name)
    )


@pytest.mark.parametrize(
    ("text", "optimizer", "message"),
    [
        ("{", "adamw", "not a DeepSpeed configuration in JSON"),
        ("[1]", "adamw", "not a DeepSpeed configuration in JSON"),
        ('{"zero_optimization": {"stage": 3}}', "adamw", "stage: 3; allowed: 0, 1 or 2; or runtime.shard"),
        (
            '{"train_batch_size": 32, "fp16": {"enabled": true}}',
            "adamw",
            "train_batch_size, fp16: set by the recipe",
        ),
        ('{"zero_optimization": {"stage": 1}}', "muon", "muon needs whole matrices; allowed: optimizer: adamw"),
    ],
)
def test_what_is_refused(installed: None, tmp_path: Path, text: str, optimizer: str, message: str) -> None:
    file = tmp_path / "ds.json"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_settings(str(file), optimizer)


@pytest.mark.skipif(INSTALLED, reason="DeepSpeed is installed")
def test_without_deepspeed_it_is_refused_before_any_work(
    teacher: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments((teacher, teacher), corpus, tmp_path / "out", "--runtime.deepspeed", "ds.json")
    assert main(words) == 2
    assert "DeepSpeed is not installed: pip install deepspeed" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_two_ways_of_sharing_out_are_refused() -> None:
    with pytest.raises(ValueError, match="shard and deepspeed exclude each other"):
        Runtime(shard=True, deepspeed="ds.json")


def test_the_recipe_decides_what_both_could(installed: None, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"optimizer": "auto", "zero_optimization": {"stage": 2}, "wall_clock_breakdown": true}')
    settings = completed(read_settings(str(file), "adamw"), bfloat16=True)
    assert settings["bf16"] == {"enabled": True}
    assert settings["gradient_clipping"] == "auto"
    assert settings["zero_optimization"] == {"stage": 2}
    assert settings["wall_clock_breakdown"] is True
    assert "optimizer" not in settings


def test_shares_of_other_processes_are_refused(tmp_path: Path) -> None:
    check_shares(None)
    check_shares(str(tmp_path))
    folder = tmp_path / "global_step4"
    folder.mkdir()
    (folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    check_shares(str(tmp_path))
    (folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").touch()
    with pytest.raises(ArtifactError, match="written by 2 processes under DeepSpeed, and only as many .* there are 1"):
        check_shares(str(tmp_path))


@pytest.mark.processes
@pytest.mark.skipif(not INSTALLED or sys.platform != "linux", reason="needs DeepSpeed")
@pytest.mark.parametrize("stage", [0, 2])
def test_two_processes_under_deepspeed_train_as_one_does(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    pair, file = make_pair(tmp_path), tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(arguments(pair, corpus, one, "--optimizer", "adamw")) == 0
    finish(launch(arguments(pair, corpus, two, "--optimizer", "adamw", "--runtime.deepspeed", file), 29531))
    assert_same(one, two, 1e-5)
