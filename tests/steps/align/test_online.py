"""Online methods, where TRL is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from prunus.data.config import ChatSource
from prunus.data.template import PLAIN
from prunus.errors import RecipeError
from prunus.graph.hub import Hub
from prunus.graph.steps import Given
from prunus.models.pretrained import load_tokenizer
from prunus.pipeline.unpacking import find_model
from prunus.runtime import Runtime
from prunus.steps.align import online
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.plan import Alignment
from prunus.steps.align.step import Inputs, run
from tests.steps.align.making import QUIET, metrics, rows, write
from tests.tiny import load

CHECK = {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["plum"]}]}
needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")


@pytest.fixture
def sources(tmp_path: Path) -> tuple[ChatSource, ...]:
    given = [{**row, "check": CHECK} for row in rows(8, "answers")]
    return (ChatSource(path=str(write(tmp_path / "x.jsonl", given))),)


@needs_trl
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_model_learns_from_answers_that_it_samples(teacher, sources, tmp_path, monkeypatch, method: str) -> None:
    monkeypatch.setattr(online, "reward", lambda answer, *_: float(len(answer)))  # no two are alike
    config = AlignConfig(
        method=method, sequence_length=64, batch_size=4, epochs=2, learning_rate=1e-3, warmup=0,
        write={"answers": 4, "max_new_tokens": 8},
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    run(config, Inputs(teacher, sources=sources, template=PLAIN), out, Runtime(device_batch_size=8), QUIET)
    lines = metrics(out)
    assert lines[-1]["step"] == 4
    assert lines[0]["reward"] > 1
    before, after = (load(folder).state_dict() for folder in (teacher, out))
    assert any(not np.allclose(before[name], after[name]) for name in before)
    assert load_tokenizer(out).chat_template == PLAIN
    assert not (out / "checkpoints").exists()


def test_a_missing_trl_is_reported(teacher: Path, sources, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    stage = AlignConfig(method="grpo", sequence_length=128, write={"max_new_tokens": 8})
    stages = Alignment((stage,), sources, "builtin:plain", Hub(find_model))
    with pytest.raises(RecipeError, match=r"align.0.method: grpo needs TRL; `pip install 'prunus\[online\]'`"):
        stages.check(128, Given(teacher, ""))
