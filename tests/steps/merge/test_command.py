"""`prunus merge`: by flags, with evolution, and refused with exit code 2."""

import json
from pathlib import Path

import pytest

from prunus.cli.main import main
from tests.tiny import load, make_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("models")
    for seed in range(2):
        folder = make_model(root / str(seed), seed=seed, max_position_embeddings=1024)
        template = "{% for m in messages %}{{ m.role + ': ' + (m.content or '') + ' ' }}{% endfor %}"
        (folder / "chat_template.jinja").write_text(template)
    return [str(root / "0"), str(root / "1")]


def test_it_merges_and_evolves(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--evolve.trials", "3", "--evolve.items", "2", "--evolve.max-new-tokens", "2", "--evolve.per", "module"]
    out = tmp_path / "out"
    assert main(["merge", *models, "--method", "slerp", "--tasks", "roleplay", *flags, "--out", str(out)]) == 0
    parts = json.loads((out / "merge.json").read_text())["parts"]
    assert [part["module"] for part in parts] == ["attention", "mlp", "other"]
    assert load(out).config.num_hidden_layers == 4
    assert "fitness_start" in capsys.readouterr().out
    assert main(["merge", str(out), models[1], "--method", "average", "--out", str(tmp_path / "more")]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "ties"], "merge.base: missing"),
        (["--weights", "1", "2", "3"], "merge.weights: 3 for 2 models"),
        (["--method", "flow", "--flow.layers", "0-3"], "'0-3'; expected MODEL:LAYERS"),
        (["--method", "flow"], "flow.layers: missing"),
        (["--evolve.trials", "3"], "merge.evolve.tasks: missing"),
        (["--evolve.trials", "3", "--tasks", "gsm8k=gsm8k_test.jsonl"], "i_am_tuning_on_the_test_set"),
        (["--evolve.trials", "3", "--tasks", "ragg"], "unknown skill 'ragg'"),
    ],
)
def test_bad_input_ends_with_2_before_any_work(
    flags: list[str], message: str, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", *models, *flags, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
