"""One pass with hooks, compared with loops over samples, positions and units."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prunus.console import Console
from prunus.data.blocks import Blocks, calibration_set
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.runtime import Runtime
from prunus.steps.score.checkpoint import Checkpoint
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.importance import block_influence, head_norms, moments, over_sequence
from prunus.steps.score.statistics import Statistics
from prunus.steps.score.step import Inputs, run
from tests.tiny import load

LAYERS, HEAD_DIM = 4, 4


@pytest.fixture(scope="module")
def stream(teacher: Path, corpus: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tokens")
    tokenise(TokensConfig(), DataInputs((Source(path=str(corpus)),), teacher), out, Runtime(), Console(quiet=True))
    return out


def score(teacher: Path, stream: Path, out: Path, batch: int, **options: Any) -> dict[str, torch.Tensor]:
    out.mkdir()
    config = ScoreConfig(samples=10, sequence_length=16, seed=5, layer_samples=4, **options)
    run(config, Inputs(teacher, stream), out, Runtime(device_batch_size=batch), Console(quiet=True))
    return load_file(out / "scores.safetensors")


def activations(teacher: Path, sequence: np.ndarray) -> dict[str, list[np.ndarray]]:
    """The activations that scores are computed from, for one sequence, by hooks of this test."""
    model = load(teacher)
    seen: dict[str, list[np.ndarray]] = {"neurons": [], "heads": [], "channels": [], "stream": []}

    def keep(name: str):
        return lambda _, args, output=None: seen[name].append(
            (args[0] if output is None else output)[0].detach().double().numpy()
        )

    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(keep("neurons"))
        layer.self_attn.o_proj.register_forward_pre_hook(keep("heads"))
        layer.input_layernorm.register_forward_pre_hook(keep("stream"))
        layer.input_layernorm.register_forward_hook(keep("channels"))
        layer.post_attention_layernorm.register_forward_hook(keep("channels"))
    model.model.norm.register_forward_pre_hook(keep("stream"))
    model.model.norm.register_forward_hook(keep("channels"))
    with torch.no_grad():
        model(torch.from_numpy(sequence.astype(np.int64))[None])
    return seen


def test_scores_equal_the_papers_formula(teacher: Path, stream: Path, tmp_path: Path) -> None:
    actual = score(teacher, stream, tmp_path / "out", batch=4)
    blocks = Blocks(Tokens.open(stream), 16)
    drawn = np.random.default_rng(5).permutation(len(blocks))[:10]
    seen = [activations(teacher, blocks.ids(i)) for i in drawn]
    for layer in range(LAYERS):
        means = np.array([[np.mean([abs(t[i]) for t in s["neurons"][layer]]) for i in range(48)] for s in seen])
        np.testing.assert_allclose(actual["neurons.mean"][1, layer].sqrt(), np.sqrt((means**2).sum(axis=0)), rtol=1e-5)
        for head in range(8):
            part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            means = np.array([np.mean([np.sqrt((t[part] ** 2).sum()) for t in s["heads"][layer]]) for s in seen])
            expected = np.sqrt((means**2).sum())
            np.testing.assert_allclose(actual["heads.mean"][1, layer, head].sqrt(), expected, rtol=1e-5)
    for norm in range(2 * LAYERS + 1):
        means = np.array([np.abs(s["channels"][norm]).mean(axis=0) for s in seen])
        np.testing.assert_allclose(actual["channels.mean"][1, norm].sqrt(), np.sqrt((means**2).sum(axis=0)), rtol=1e-5)
    for i in range(LAYERS + 1):
        for j in range(LAYERS + 1):
            cosines = [
                a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                for s in seen
                for a, b in zip(s["stream"][i], s["stream"][j], strict=True)
            ]
            assert actual["cosines"][i, j].item() == pytest.approx(np.mean(cosines), abs=1e-5)


def test_scores_do_not_depend_on_the_micro_batch(teacher: Path, stream: Path, tmp_path: Path) -> None:
    one, all_at_once = (score(teacher, stream, tmp_path / str(n), batch=n) for n in (1, 10))
    for name in one:
        atol = 1e-4 if name.endswith("covariance") else 1e-7  # products of float32, summed in another order
        torch.testing.assert_close(one[name], all_at_once[name], rtol=1e-5, atol=atol)


def test_sums_over_batches_add_up() -> None:
    values = torch.randn(6, 5, 7)
    for how in ("mean", "l2", "variance"):
        whole = moments(over_sequence(values, how))
        parts = moments(over_sequence(values[:2], how)) + moments(over_sequence(values[2:], how))
        torch.testing.assert_close(whole, parts)


def test_gradients_are_those_of_autograd(teacher: Path, stream: Path, tmp_path: Path) -> None:
    actual = score(teacher, stream, tmp_path / "out", batch=4, collect=("mean", "gradients"))
    drawn = calibration_set(Tokens.open(stream), 10, 16, 5)
    totals: dict[str, torch.Tensor] = {}
    for sequence in drawn:
        for name, value in with_gradients(load(teacher), torch.from_numpy(sequence)[None]).items():
            product = (value * value.grad)[0].detach().double()
            product = product.unflatten(-1, (8, 4)).sum(-1) if name.startswith("heads") else product
            terms = torch.stack([product.abs().sum(0), product.square().sum(0)])
            totals[name] = totals.get(name, torch.zeros_like(terms)) + terms
    assert len(totals) == 9
    for name, terms in totals.items():
        axis, row = name.split()
        torch.testing.assert_close(actual[f"{axis}.gradients"][:, int(row)], terms, rtol=1e-4, atol=1e-12)


def with_gradients(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of the down and output projections and the output of the final norm, each with its gradient."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        value.retain_grad()
        kept[name] = value

    for i, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, args, i=i: keep(f"neurons {i}", args[0]))
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: keep(f"heads {i}", args[0]))
    model.model.norm.register_forward_hook(lambda *call: keep("channels 8", call[-1]))
    (model(ids, labels=ids).loss * (ids.numel() - 1)).backward()
    return kept


def test_the_covariance_is_of_the_norms_inputs(teacher: Path, stream: Path, tmp_path: Path) -> None:
    actual = score(teacher, stream, tmp_path / "out", batch=4, collect=("mean", "covariance"))["covariance"].numpy()
    expected = np.zeros((32, 32))
    model, seen = load(teacher), []
    norms = [n for layer in model.model.layers for n in (layer.input_layernorm, layer.post_attention_layernorm)]
    for norm in [*norms, model.model.norm]:
        norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(torch.from_numpy(calibration_set(Tokens.open(stream), 10, 16, 5)))
    for x in seen:
        for row in x[:, ::4].flatten(0, 1).double().numpy():  # every fourth position
            unit = row / np.sqrt(np.mean(row**2))
            expected += np.outer(unit, unit)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_covariance_is_of_gradients_by_the_norms_inputs(
    teacher: Path, stream: Path, tmp_path: Path
) -> None:
    actual = score(teacher, stream, tmp_path / "out", batch=4, collect=("gradient_covariance",))
    expected, model, seen = np.zeros((32, 32)), load(teacher), []
    norms = [n for layer in model.model.layers for n in (layer.input_layernorm, layer.post_attention_layernorm)]
    for norm in [*norms, model.model.norm]:
        norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ids = torch.from_numpy(calibration_set(Tokens.open(stream), 10, 16, 5))
    gradients = torch.autograd.grad(model(ids, labels=ids).loss * ids[:, 1:].numel(), seen)
    assert len(gradients) == 9
    for x, gradient in zip(seen, gradients, strict=True):
        size = x.detach().double().square().mean(dim=-1, keepdim=True).sqrt()
        for row in (gradient.double() * size)[:, ::4].flatten(0, 1).numpy():
            expected += np.outer(row, row)
    np.testing.assert_allclose(actual["gradient_covariance"], expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_a_killed_run_resumes(teacher: Path, stream: Path, tmp_path: Path, monkeypatch) -> None:
    collect = ("mean", "covariance", "gradient_covariance", "lm_loss", "logit_nmse")
    expected = score(teacher, stream, tmp_path / "whole", batch=2, collect=collect)
    (tmp_path / "out").mkdir()
    often = Runtime(device_batch_size=2, checkpoint_minutes=0)
    config = ScoreConfig(samples=10, sequence_length=16, seed=5, collect=collect, layer_samples=4)
    for stops_after in (3, 9):  # inside the pass, then among the layers
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", killed_after(stops_after))
            with pytest.raises(KeyboardInterrupt):
                run(config, Inputs(teacher, stream), tmp_path / "out", often, Console(quiet=True))
    passes = []
    with monkeypatch.context() as patch:
        patch.setattr(Statistics, "end_batch", lambda self: passes.append(1))
        run(config, Inputs(teacher, stream), tmp_path / "out", often, Console(quiet=True))
    assert not passes  # the pass was done
    actual = load_file(tmp_path / "out" / "scores.safetensors")
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name
    assert not (tmp_path / "out" / "checkpoints").exists()


def killed_after(count: int) -> Any:
    """A `Checkpoint.save` that ends the run after `count` saves."""
    calls: list[int] = []
    save = Checkpoint.save

    def then_die(self: Checkpoint, tensors: dict[str, torch.Tensor], now: bool = False) -> None:
        save(self, tensors, now=True)
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt

    return then_die


def test_head_norms_are_of_each_head() -> None:
    values = torch.randn(2, 3, 8)
    norms = head_norms(values, 4)
    assert norms.shape == (2, 3, 2)
    assert norms[1, 2, 1].item() == pytest.approx(values[1, 2, 4:].norm().item())


def test_block_influence_of_an_unchanged_stream_is_0() -> None:
    assert block_influence(torch.ones(4, 4), 1, 2) == 0.0
