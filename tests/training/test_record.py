"""What is written of a training run: JSON that any reader takes, and nothing of what is not finite."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunus.console import Progress
from prunus.errors import TrainingError
from prunus.runtime import Runtime
from prunus.training.record import Recorder


def recorded(file: Path, **logs: object) -> None:
    recorder = Recorder(file, 8, Progress("train", None, "tokens"), Runtime(), "owner")
    recorder.on_log(None, SimpleNamespace(global_step=3), None, logs)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_what_is_not_finite_ends_the_run(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=r"is (nan|inf) at step 3"):
        recorded(tmp_path / "metrics.jsonl", **wrong)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_figure_without_a_value_is_left_out(tmp_path: Path) -> None:
    recorded(tmp_path / "metrics.jsonl", loss=1.0, reward=0.5, clipped=float("nan"))
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    line = json.loads(text, parse_constant=pytest.fail)
    assert line["reward"] == 0.5
    assert "clipped" not in line
