import json
from pathlib import Path

import pytest
import torch

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.data.windows import windows
from prunus.runtime import Runtime
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.step import Inputs, run
from tests.tiny import load, make_model


@pytest.fixture(scope="module")
def stream(teacher: Path, held_out: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tokens")
    tokenise(TokensConfig(), DataInputs((Source(path=str(held_out)),), teacher), out, Runtime(), Console(quiet=True))
    return out


def evaluate(model: Path, teacher: Path | None, stream: Path, out: Path, batch: int = 7, **options) -> dict:
    out.mkdir()
    config = EvaluateConfig(**{"sequence_length": 24, "max_new_tokens": 5, "prompt_tokens": 6, **options})
    run(config, Inputs(model, stream, teacher), out, Runtime(device_batch_size=batch), Console(quiet=True))
    return json.loads((out / "results.json").read_text())


def test_figures_are_those_of_one_window_at_a_time(teacher: Path, stream: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=9)
    found = evaluate(other, teacher, stream, tmp_path / "out")["figures"]
    tokens, student, guide = Tokens.open(stream), load(other), load(teacher)
    nll = nll_teacher = kl = size = 0.0
    agreed = count = 0
    for window in windows(tokens, 24):
        ids = torch.tensor(window.ids.astype("int64"))[None]
        with torch.no_grad():
            log_s = student(ids).logits[0, :-1].double().log_softmax(-1)
            log_t = guide(ids).logits[0, :-1].double().log_softmax(-1)
        for i, target in list(enumerate(ids[0, 1:]))[window.context - 1 :]:
            nll -= log_s[i, target].item()
            nll_teacher -= log_t[i, target].item()
            kl += (log_t[i].exp() * (log_t[i] - log_s[i])).sum().item()
            agreed += int(log_s[i].argmax() == log_t[i].argmax())
            count += 1
        size += window.size
    assert found["nll"]["value"] == pytest.approx(nll / count, rel=1e-5)
    assert found["perplexity"]["value"] == pytest.approx(torch.tensor(nll / count).exp().item(), rel=1e-5)
    assert found["bits_per_byte"]["value"] == pytest.approx(nll / 0.6931471805599453 / size, rel=1e-5)
    assert found["kl"]["value"] == pytest.approx(kl / count, rel=1e-5)
    assert found["agreement"]["value"] == pytest.approx(agreed / count)
    assert found["nll_increase"]["value"] == pytest.approx((nll - nll_teacher) / count, rel=1e-4)
    for figure in found.values():
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_a_model_compared_with_itself_has_no_distance(teacher: Path, stream: Path, tmp_path: Path) -> None:
    found = evaluate(teacher, teacher, stream, tmp_path / "out")["figures"]
    assert abs(found["kl"]["value"]) < 1e-6
    assert found["agreement"]["value"] == 1.0
    assert found["nll_increase"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_portions_do_not_matter(teacher: Path, stream: Path, tmp_path: Path) -> None:
    one, many = (evaluate(teacher, None, stream, tmp_path / str(n), batch=n)["figures"]["nll"] for n in (1, 32))
    assert one["value"] == pytest.approx(many["value"], rel=1e-6)


def test_answers_are_greedy_and_kept(teacher: Path, stream: Path, tmp_path: Path) -> None:
    evaluate(teacher, None, stream, tmp_path / "out", prompts=("plum tree",))
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["plum tree"]
    assert lines[0]["answer"]
    evaluate(teacher, None, stream, tmp_path / "openings", prompt_count=2)
    assert len((tmp_path / "openings" / "answers.jsonl").read_text().splitlines()) == 2


def test_tokens_are_limited(teacher: Path, stream: Path, tmp_path: Path) -> None:
    assert evaluate(teacher, None, stream, tmp_path / "out", max_tokens=50)["windows"] == 3
