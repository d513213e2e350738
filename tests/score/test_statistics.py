"""One pass with hooks against loops over samples, positions and members."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.runtime import Runtime
from prunus.score.config import ScoreConfig
from prunus.score.importance import batch_l2, block_influence, head_norms, squared_sequence_means
from prunus.score.step import Inputs, run
from tests.tiny import load

LAYERS, HEAD_DIM = 4, 4


@pytest.fixture(scope="module")
def stream(teacher: Path, corpus: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tokens")
    tokenise(TokensConfig(), DataInputs((Source(path=str(corpus)),), teacher), out, Runtime(), Console(quiet=True))
    return out


def score(teacher: Path, stream: Path, out: Path, batch: int) -> dict[str, torch.Tensor]:
    out.mkdir()
    config = ScoreConfig(samples=10, sequence_length=16, seed=5)
    run(config, Inputs(teacher, stream), out, Runtime(device_batch_size=batch), Console(quiet=True))
    return load_file(out / "scores.safetensors")


def activations(teacher: Path, sequence: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Everything that scores are made of, for one sequence, recomputed from the layers' parts by hand."""
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


def test_scores_are_the_papers_formula_spelt_out(teacher: Path, stream: Path, tmp_path: Path) -> None:
    found = score(teacher, stream, tmp_path / "out", batch=4)
    blocks = Tokens.open(stream).blocks(16)
    drawn = np.random.default_rng(5).permutation(len(blocks))[:10]
    seen = [activations(teacher, blocks[i]) for i in drawn]
    for layer in range(LAYERS):
        means = np.array([[np.mean([abs(t[i]) for t in s["neurons"][layer]]) for i in range(48)] for s in seen])
        np.testing.assert_allclose(found["neurons"][layer], np.sqrt((means**2).sum(axis=0)), rtol=1e-5)
        for head in range(8):
            part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            means = np.array([np.mean([np.sqrt((t[part] ** 2).sum()) for t in s["heads"][layer]]) for s in seen])
            np.testing.assert_allclose(found["heads"][layer, head], np.sqrt((means**2).sum()), rtol=1e-5)
    for norm in range(2 * LAYERS + 1):
        means = np.array([np.abs(s["channels"][norm]).mean(axis=0) for s in seen])
        np.testing.assert_allclose(found["channels"][norm], np.sqrt((means**2).sum(axis=0)), rtol=1e-5)
    for i in range(LAYERS + 1):
        for j in range(LAYERS + 1):
            cosines = [
                a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                for s in seen
                for a, b in zip(s["stream"][i], s["stream"][j], strict=True)
            ]
            assert found["cosines"][i, j].item() == pytest.approx(np.mean(cosines), abs=1e-5)


def test_portions_do_not_matter(teacher: Path, stream: Path, tmp_path: Path) -> None:
    one, all_at_once = (score(teacher, stream, tmp_path / str(n), batch=n) for n in (1, 10))
    for name in one:
        torch.testing.assert_close(one[name], all_at_once[name], rtol=1e-5, atol=1e-7)


def test_sums_over_batches_add_up() -> None:
    values = torch.randn(6, 5, 7)
    whole = batch_l2(squared_sequence_means(values))
    parts = batch_l2(squared_sequence_means(values[:2]) + squared_sequence_means(values[2:]))
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole, values.abs().mean(1).double().norm(dim=0), rtol=1e-6, atol=0)


def test_head_norms_are_of_each_head() -> None:
    values = torch.randn(2, 3, 8)
    norms = head_norms(values, 4)
    assert norms.shape == (2, 3, 2)
    assert norms[1, 2, 1].item() == pytest.approx(values[1, 2, 4:].norm().item())


def test_influence_of_what_changes_nothing_is_none() -> None:
    assert block_influence(torch.ones(4, 4), 1, 2) == 0.0
