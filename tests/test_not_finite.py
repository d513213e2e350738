"""NaN and infinity in a model: every step that asks it refuses, and says where they begin; nothing of it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.errors import ModelError
from prunus.inference.heldout import check_sums
from prunus.models.finite import finite_logits, not_finite
from prunus.runtime import Runtime
from prunus.steps.evaluate import step as evaluate
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.generate import step as generate
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.score import step as score
from prunus.steps.score.config import ScoreConfig
from prunus.steps.targets import step as targets
from prunus.steps.targets.config import TargetsConfig
from tests.tiny import load, make_model

UP = "model.layers.2.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def stream(teacher: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokens")
    tokenise(TokensConfig(), DataInputs((Source(path=str(held_out)),), teacher), out, Runtime(), Console(quiet=True))
    return out


def broken(folder: Path, **values: float) -> Path:
    """A model with one value of a weight replaced, given as `name=value` with __ for dots."""
    make_model(folder)
    model = load(folder)
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name.replace("__", "."))[0].fill_(value)
    model.save_pretrained(folder)
    return folder


def scored(model: Path, stream: Path, out: Path, *collect: str) -> Any:
    options = {"collect": collect} if collect else {}
    config = ScoreConfig(samples=6, sequence_length=16, layer_samples=2, **options)
    return score.run(config, score.Inputs(model, stream), out, Runtime(), Console(quiet=True))


def evaluated(model: Path, stream: Path, out: Path, **options: Any) -> Any:
    config = EvaluateConfig(sequence_length=24, max_new_tokens=4, prompt_tokens=4, **options)
    return evaluate.run(config, evaluate.Inputs(model, stream), out, Runtime(), Console(quiet=True))


def kept(model: Path, stream: Path, out: Path, keep: str) -> Any:
    config = TargetsConfig.model_validate({"keep": keep, "count": 4, "sequence_length": 16, "sequences": 20})
    return targets.run(config, targets.Inputs(model, stream), out, Runtime(), Console(quiet=True))


def written(model: Path, stream: Path, out: Path, temperature: float) -> Any:
    config = GenerateConfig.model_validate({"samples": 4, "max_new_tokens": 4, "temperature": temperature})
    return generate.run(config, generate.Inputs(model, stream), out, Runtime(), Console(quiet=True))


STEPS: dict[str, Callable[[Path, Path, Path], Any]] = {
    "score": scored,
    "score by gradients": lambda *paths: scored(*paths, "mean", "gradients", "gradient_covariance"),
    "score by removal": lambda *paths: scored(*paths, "lm_loss", "logit_nmse"),
    "evaluate": evaluated,
    "targets, the likeliest": lambda *paths: kept(*paths, "top_k"),
    "targets, drawn": lambda *paths: kept(*paths, "samples"),
    "generate, greedily": lambda *paths: written(*paths, 0.0),
    "generate, drawn": lambda *paths: written(*paths, 1.0),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(name: str, value: float, stream: Path, tmp_path: Path) -> None:
    model = broken(tmp_path / "model", **{UP.replace(".", "__"): value})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ModelError, match=f"{model}: .*weights that hold NaN or infinity in float32: {UP}"):
        STEPS[name](model, stream, out)
    for file in out.rglob("*.json*"):
        assert "NaN" not in file.read_text()
        assert "Infinity" not in file.read_text()


@pytest.mark.parametrize("name", STEPS)
def test_values_that_overflow_on_the_way_are_placed(name: str, stream: Path, tmp_path: Path) -> None:
    model = broken(tmp_path / "model", **{UP.replace(".", "__"): 3e38})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ModelError, match=r"its weights are finite; they first appear in .*`model.layers.2.mlp"):
        STEPS[name](model, stream, out)


def test_the_sequence_is_named(stream: Path, tmp_path: Path) -> None:
    model = load(broken(tmp_path / "model"))
    ids = torch.tensor([[2, 3, 4], [5, 6, 7]])
    sums = np.zeros((2, 4))
    check_sums(sums, [8, 9], ids, model, None)
    sums[1, 2] = np.inf
    with pytest.raises(ModelError, match="the figure `kl` of window 9 of the held-out text"):
        check_sums(sums, [8, 9], ids, model, None)


def test_the_model_with_nan_weights_is_named_also_if_it_is_the_teacher(
    stream: Path, teacher: Path, tmp_path: Path
) -> None:
    worse = broken(tmp_path / "model", model__norm__weight=np.nan)
    config = EvaluateConfig(sequence_length=24)
    for model, beside in ((teacher, worse), (worse, teacher)):
        with pytest.raises(ModelError, match=f"{worse}: .*model.norm.weight"):
            evaluate.run(config, evaluate.Inputs(model, stream, beside), tmp_path, Runtime(), Console(quiet=True))


def test_one_token_is_enough(tmp_path: Path) -> None:
    model = load(make_model(tmp_path / "model", tie_word_embeddings=False))
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[7] = np.nan
    with finite_logits(model, "text"), torch.no_grad():
        model(torch.tensor([[5, 6]]))
        with pytest.raises(ModelError, match=r"its logits on text: .*model\.embed_tokens\.weight"):
            model(torch.tensor([[5, 7]]))
    model(torch.tensor([[5, 7]]))  # not watched any more


def test_a_ruled_out_token_is_no_fault(tmp_path: Path) -> None:
    model = load(make_model(tmp_path / "model"))

    def rule_out(*call: Any) -> None:
        call[-1].logits[..., 3] = -torch.inf

    model.register_forward_hook(rule_out)
    with finite_logits(model, "text"), torch.no_grad():
        model(torch.tensor([[5, 6]]))


def test_without_tokens_at_hand_weights_are_named_all_the_same(tmp_path: Path) -> None:
    model = load(broken(tmp_path / "model", **{UP.replace(".", "__"): np.nan}))
    assert UP in str(not_finite(model, "this"))


def test_a_likelihood_that_no_perplexity_fits_is_left_out(stream: Path, tmp_path: Path) -> None:
    model = load(make_model(tmp_path / "model", tie_word_embeddings=False))
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)
    model.save_pretrained(tmp_path / "model")
    figures = evaluated(tmp_path / "model", stream, tmp_path)
    assert figures["nll"] > 1000
    assert "perplexity" not in figures
    assert "Infinity" not in (tmp_path / "results.json").read_text()
