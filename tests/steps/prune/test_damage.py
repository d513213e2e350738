"""The check after a cut: its figures compared with float64 from full logits, and the refusal of destroyed students."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.console import Console
from prunus.data.tokens import ENDS, FACTS, IDS, SIZES
from prunus.errors import ModelError
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.damage import Damage, measure_damage, unigram_nll
from prunus.steps.prune.step import Inputs, run
from tests.families import make_teacher
from tests.tiny import load, make_model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A model whose predictions are as confident as those of a trained one."""
    folder = make_model(tmp_path_factory.mktemp("sure") / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def tokens(teacher: Path, tmp_path_factory) -> Path:
    """Text sampled from the teacher: 20 sequences of 128 tokens."""
    torch.manual_seed(0)
    model = load(teacher)
    written = model.generate(torch.full((20, 1), 5), do_sample=True, min_new_tokens=127, max_new_tokens=127, top_k=0)
    folder = tmp_path_factory.mktemp("tokens")
    written.numpy().astype(np.uint16).tofile(folder / IDS)
    for name in (ENDS, SIZES):
        np.save(folder / name, np.arange(128, 128 * 21, 128))
    (folder / FACTS).write_text('{"dtype": "uint16"}', encoding="utf-8")
    return folder


def prune(teacher: Path, tokens: Path, out: Path, **options) -> dict[str, float]:
    out.mkdir()
    config = PruneConfig(importance="random", **options)
    return run(config, Inputs(teacher, None, tokens), out, Runtime(), Console(quiet=True))


def log_softmax(folder: Path, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return load(folder).double()(torch.from_numpy(ids)).logits[:, :-1].log_softmax(-1).numpy()


def test_figures_are_those_of_whole_logits(teacher: Path, tokens: Path, tmp_path: Path) -> None:
    prune(teacher, tokens, tmp_path / "out", intermediate_size=20, check_samples=0)
    stream = np.fromfile(tokens / IDS, np.uint16)
    ids = stream.reshape(20, 128)[:3].astype(np.int64)
    actual = measure_damage(teacher, tmp_path / "out", ids, stream, None, Runtime())
    log_t, log_s = (log_softmax(folder, ids) for folder in (teacher, tmp_path / "out"))
    labels = ids[:, 1:, None]
    assert actual is not None
    assert actual.kl == pytest.approx((np.exp(log_t) * (log_t - log_s)).sum(-1).mean(), rel=1e-4)
    assert actual.nll == pytest.approx(-np.take_along_axis(log_s, labels, -1).mean(), rel=1e-5)
    assert actual.teacher_nll == pytest.approx(-np.take_along_axis(log_t, labels, -1).mean(), rel=1e-5)
    assert actual.uniform_nll == pytest.approx(np.log(300))


def test_word_counts_are_those_of_the_corpus() -> None:
    stream = np.array([0, 0, 0, 1], dtype=np.uint16)
    expected = -np.log([4 / 7, 1 / 7]).mean()  # each of the three tokens is counted once more
    assert unigram_nll(stream, np.array([[0, 2]]), 3) == pytest.approx(expected)


def test_a_student_that_is_its_teacher_has_no_damage(teacher: Path, tokens: Path, tmp_path: Path) -> None:
    figures = prune(teacher, tokens, tmp_path / "out", check_samples=3)
    assert figures["kl"] == pytest.approx(0, abs=1e-6)
    assert figures["nll"] == figures["teacher_nll"]
    assert "kl" not in prune(teacher, tokens, tmp_path / "unchecked", check_samples=0)
    assert "kl" not in prune(teacher, tokens, tmp_path / "drawn", init="random")


def test_a_cut_vocabulary_is_compared_over_the_tokens_that_are_kept(teacher: Path, tokens: Path, tmp_path) -> None:
    stream = np.fromfile(tokens / IDS, np.uint16)
    kept = np.unique(np.concatenate([stream[:640], np.arange(50)]))
    ids = stream.reshape(20, 128)[[2, 4]].astype(np.int64)
    prune(teacher, tokens, tmp_path / "out", intermediate_size=20, check_samples=0)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][torch.from_numpy(kept.astype(int))]
    save_file(weights, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "out" / "config.json").write_text(json.dumps({**config, "vocab_size": len(kept)}), encoding="utf-8")
    actual = measure_damage(teacher, tmp_path / "out", ids, stream, kept, Runtime())
    log_t = log_softmax(teacher, ids)[..., kept]
    log_t -= np.log(np.exp(log_t).sum(-1, keepdims=True))
    log_s = log_softmax(tmp_path / "out", np.searchsorted(kept, ids))
    assert actual is not None
    assert actual.kl == pytest.approx((np.exp(log_t) * (log_t - log_s)).sum(-1).mean(), rel=1e-4)
    assert measure_damage(teacher, tmp_path / "out", ids, stream, kept[:20], Runtime()) is None


def test_a_destroyed_student_is_refused_and_named(teacher: Path, tokens: Path, tmp_path: Path, monkeypatch) -> None:
    from prunus.models import checkpoint

    write = checkpoint.write_tensors

    def damaged(folder: Path, plans, **options) -> None:  # what a reader does that hands out memory it writes again
        write(folder, plans, **options)
        weights = load_file(folder / "model.safetensors")
        for name, value in weights.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weights[name] = value[-1:].expand_as(value).contiguous()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr("prunus.steps.prune.step.write_tensors", damaged)
    with pytest.raises(ModelError, match=r"this cut destroys the model: NLL .* worse than guessing \(5\.704\)"):
        prune(teacher, tokens, tmp_path / "out", hidden_size=24)
    prune(teacher, tokens, tmp_path / "kept", hidden_size=24, check_samples=0)


@pytest.mark.parametrize(
    ("nll", "teacher", "kept", "word"),
    [
        (4.0, 3.0, 0.9, None),
        (5.5, 3.0, 0.9, "before training"),
        (6.9, 3.0, 0.9, "before training"),  # worse than guessing, as deep cuts are
        (7.1, 3.0, 0.5, "raises"),
        (7.1, 3.0, 0.4, "before training"),
        (9.0, 5.5, 0.9, "on this text the teacher"),
        (float("nan"), 3.0, 0.1, "raises"),
    ],
)
def test_the_message_about_damage_follows_its_size(nll: float, teacher: float, kept: float, word: str | None) -> None:
    damage = Damage(kl=1.0, nll=nll, teacher_nll=teacher, unigram_nll=5.0, uniform_nll=6.0)
    if word == "raises":
        with pytest.raises(ModelError, match="destroys the model"):
            damage.check(kept, "prune")
    else:
        assert (damage.check(kept, "prune") or "None").startswith(str(word))


def test_models_that_do_not_fit_are_not_compared(teacher: Path, tokens: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", type("Memory", (), {"available": 1000}))
    assert "kl" not in prune(teacher, tokens, tmp_path / "out")


def test_a_text_too_short_for_one_sequence_is_no_mistake(tmp_path: Path, tokens: Path) -> None:
    folder = make_model(tmp_path / "teacher", max_position_embeddings=4096)
    assert len(np.fromfile(tokens / IDS, np.uint16)) > 256
    assert "kl" in prune(folder, tokens, tmp_path / "out")
    short = tmp_path / "short"
    short.mkdir()
    np.arange(100, dtype=np.uint16).tofile(short / IDS)
    for name in (ENDS, SIZES):
        np.save(short / name, np.array([100]))
    (short / FACTS).write_text('{"dtype": "uint16"}', encoding="utf-8")
    assert "kl" not in prune(folder, short, tmp_path / "unchecked")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "olmoe"])
def test_experts_whose_rows_are_no_whole_16_bytes_run(model_type: str, tokens: Path, tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "teacher", model_type)
    assert "kl" in prune(folder, tokens, tmp_path / "out", intermediate_size=14, heal="none")
    shape = ModelFolder(tmp_path / "out").shape
    assert "rows of 14 values" in str(shape.odd_experts())
    assert ModelFolder(folder).shape.odd_experts() is None
