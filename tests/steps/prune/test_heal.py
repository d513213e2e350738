"""Healing against slow references, and weights that it must not change."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prunus.console import Console
from prunus.data.blocks import calibration_set
from prunus.data.tokens import ENDS, FACTS, IDS, SIZES, Tokens
from prunus.errors import ShapeError
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.prune.step import Inputs, run
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as run_score
from tests.families import kill, make_teacher
from tests.steps.prune.test_families import logits
from tests.tiny import load

QUIET = Console(quiet=True)
DENSE = ["llama", "qwen3", "phi3", "granite", "gpt_neox", "gpt2", "opt"]
HEALED = [(name, method) for name in (*DENSE, "mixtral") for method in ("minitron", "rotate")]
for tied in ("gpt2", "opt"):
    HEALED.remove((tied, "rotate"))  # and so refused
HEALED += [("gemma", "minitron"), ("cohere", "minitron")]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    """Random tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    np.random.default_rng(1).integers(3, 300, 64 * 24).astype(np.uint16).tofile(folder / IDS)
    for name in (ENDS, SIZES):
        np.save(folder / name, np.array([64 * 24]))
    (folder / FACTS).write_text('{"dtype": "uint16"}')
    return folder


@pytest.fixture(scope="module")
def teacher_of(tmp_path_factory) -> Callable[[str], Path]:
    """Makes one teacher for each family, next to which `healed` stores its scores; nothing may change it."""
    return cache(lambda model_type: make_teacher(tmp_path_factory.mktemp(model_type) / "teacher", model_type))


def healed(teacher: Path, tokens: Path, out: Path, heal: dict[str, Any], **options: Any) -> Path:
    only_depth = options.keys() == {"drop_layers"}  # needs no scores
    scores = None if only_depth else teacher.with_name(f"{teacher.name}-scores")
    if scores is not None and not scores.exists():
        scores.mkdir()
        config = ScoreConfig(samples=32, sequence_length=24)
        run_score(config, ScoreInputs(teacher, tokens), scores, Runtime(), QUIET)
    out.mkdir()
    heal_options = {"refit": "none", "samples": 64, "sequence_length": 24, **heal}
    config = PruneConfig.model_validate({"method": "minitron", **options, "heal": heal_options})
    run(config, Inputs(teacher, scores, tokens), out, Runtime(), QUIET)
    return out


@cache
def log_probabilities(folder: Path) -> torch.Tensor:
    """What a model, which nothing changes, predicts on text that healing has not seen."""
    return F.log_softmax(logits(folder), dim=-1)


def error(student: Path, teacher: Path) -> float:
    """KL(teacher ‖ student) on text that healing has not seen."""
    log_t, log_s = log_probabilities(teacher), log_probabilities(student)
    return float(F.kl_div(log_s, log_t, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("model_type", DENSE)
def test_dropping_dead_neurons_changes_no_logit(tmp_path: Path, tokens: Path, model_type: str) -> None:
    folder = make_teacher(tmp_path / "teacher", model_type)
    kill(folder, {"mlp": [[0, 5, 9, 23]] * 4})
    out = healed(folder, tokens, tmp_path / "out", {"norms": True, "refit": "all"}, intermediate_size=20)
    torch.testing.assert_close(logits(out), logits(folder), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("model_type", "method"), HEALED)
def test_a_healed_width_cut_is_nearer_to_its_teacher(
    tmp_path: Path, tokens: Path, teacher_of, model_type: str, method: str
) -> None:
    folder = teacher_of(model_type)
    options: dict[str, Any] = {"method": method, "hidden_size": 24, "intermediate_size": 16}
    if ModelFolder(folder).family.square:
        options["num_attention_heads"] = 3
    variants: dict[str, dict[str, Any]] = {"plain": {}, "all": {"norms": True, "refit": "all"}}
    if method == "minitron" or model_type in {
        "llama",
        "gpt2",
    }:  # with rotation, which takes longer, for two kinds of norm
        variants["outputs"] = {"norms": True, "refit": "outputs"}
    plain, *refitted = (
        error(healed(folder, tokens, tmp_path / name, heal, **options), folder) for name, heal in variants.items()
    )
    assert max(refitted) < plain


@pytest.mark.parametrize("options", [{"hidden_size": 24, "intermediate_size": 16}, {"drop_layers": [1, 2]}])
def test_auto_keeps_a_refit_that_helps(tmp_path: Path, tokens: Path, teacher_of, options: dict[str, Any]) -> None:
    folder = teacher_of("llama")
    variants = {
        "plain": {},
        "auto": {"refit": "auto", "samples": 56},
        "all": {"norms": True, "refit": "all", "samples": 56},
    }
    students = {
        name: healed(folder, tokens, tmp_path / name, heal, **{"method": "auto", **options})
        for name, heal in variants.items()
    }
    assert error(students["auto"], folder) < error(students["plain"], folder)
    torch.testing.assert_close(logits(students["auto"]), logits(students["all"]), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"hidden_size": 24, "intermediate_size": 16}, {"drop_layers": [1, 2]}])
def test_the_size_of_the_activation_cache_changes_no_weight(
    tmp_path: Path, tokens: Path, teacher_of, monkeypatch, options: dict[str, Any]
) -> None:
    folder = teacher_of("llama")
    weights = []
    for kept in (0, 40_000, 2**30):  # nothing, at most the first micro-batches of a layer, everything
        monkeypatch.setattr("prunus.steps.prune.activations.CACHE_BYTES", kept)
        student = healed(folder, tokens, tmp_path / str(kept), {"norms": True, "refit": "all"}, **options)
        weights.append((student / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


def test_a_refit_that_does_harm_is_undone(tmp_path: Path, tokens: Path, teacher_of) -> None:
    """Fitted on 48 tokens and nothing else."""
    folder = teacher_of("llama")
    students = {
        name: healed(
            folder, tokens, tmp_path / name, {**heal, "samples": 2, "ridge": 1e-9}, method="auto", hidden_size=24
        )
        for name, heal in (("none", {}), ("all", {"norms": True, "refit": "all"}), ("auto", {"refit": "auto"}))
    }
    assert error(students["all"], folder) > error(students["none"], folder)
    weights = {name: (student / "model.safetensors").read_bytes() for name, student in students.items()}
    assert weights["auto"] == weights["none"]


@pytest.mark.parametrize("options", [{"method": "minitron"}, {"method": "auto", "init": "random"}])
def test_the_papers_cut_and_random_weights_are_not_refitted(
    tmp_path: Path, tokens: Path, teacher_of, options: dict[str, Any]
) -> None:
    folder = teacher_of("llama")
    students = [
        healed(folder, tokens, tmp_path / refit, {"refit": refit}, hidden_size=24, **options)
        for refit in ("none", "auto")
    ]
    weights = [(student / "model.safetensors").read_bytes() for student in students]
    assert weights[0] == weights[1]


def test_too_little_text_leaves_the_student_as_cut(tmp_path: Path, tokens: Path, teacher_of, capsys) -> None:
    folder = teacher_of("llama")
    config = PruneConfig.model_validate({"drop_layers": [1], "heal": {"sequence_length": 64 * 8}})
    (tmp_path / "out").mkdir()
    assert run(config, Inputs(folder, None, tokens), tmp_path / "out", Runtime(), Console())["refitted"] == 0
    assert "not refitted: the corpus has fewer than 4 sequences of 512 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("model_type", DENSE)
def test_a_depth_cut_is_folded_into_the_layer_before(tmp_path: Path, tokens: Path, teacher_of, model_type: str) -> None:
    folder = teacher_of(model_type)
    plain, magnitude, linear, refitted = (
        error(healed(folder, tokens, tmp_path / name, heal, drop_layers=[1, 2]), folder)
        for name, heal in (
            ("none", {}),
            ("magnitude", {"depth": "magnitude"}),
            ("linear", {"depth": "linear"}),
            ("refit", {"norms": True, "refit": "outputs"}),
        )
    )
    assert linear < plain
    assert refitted < plain
    assert magnitude != plain


def test_magnitudes_are_those_of_the_stream(tmp_path: Path, tokens: Path, teacher_of) -> None:
    folder = teacher_of("llama")
    options = {"depth": "magnitude", "samples": 8}
    out = healed(folder, tokens, tmp_path / "out", options, drop_layers=[1, 2])
    teacher, student = load(folder), load(out)
    ids = torch.from_numpy(np.fromfile(tokens / IDS, dtype=np.uint16).reshape(64, 24).astype(np.int64))
    ids = ids[np.random.default_rng(0).permutation(64)[:8]]
    with torch.no_grad():
        stream = teacher(ids, output_hidden_states=True).hidden_states
    growth = stream[3].abs().mean() / stream[1].abs().mean()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        before, after = teacher.model.layers[3].get_submodule(name), student.model.layers[1].get_submodule(name)
        torch.testing.assert_close(after.weight, before.weight / growth, rtol=1e-4, atol=1e-6)
        first = student.model.layers[0].get_submodule(name)
        torch.testing.assert_close(first.weight, teacher.model.layers[0].get_submodule(name).weight)


def test_norms_alone_change_norms_alone(tmp_path: Path, tokens: Path, teacher_of) -> None:
    folder = teacher_of("llama")
    plain = load(healed(folder, tokens, tmp_path / "plain", {}, hidden_size=16))
    scaled = load(healed(folder, tokens, tmp_path / "scaled", {"norms": True}, hidden_size=16))
    for (name, before), after in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        if "norm" in name:
            ratio = after / before
            torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
            assert abs(ratio[0].item() - 1) > 1e-3
        else:
            assert torch.equal(before, after)


def test_what_cannot_be_healed_is_refused(tmp_path: Path) -> None:
    gemma = ModelFolder(make_teacher(tmp_path / "gemma", "gemma2")).shape
    with pytest.raises(ShapeError, match="students.w.prune.heal: Gemma 2 normalises what its layers write"):
        PruneConfig(hidden_size=16, heal=HealConfig(norms=True)).target(gemma, "students.w.prune")
    refit = PruneConfig.model_validate({"num_hidden_layers": 3, "importance": {"layers": "refit"}})
    with pytest.raises(
        ShapeError, match="students.w.prune.importance.layers: Gemma 2 normalises what its layers write"
    ):
        refit.target(gemma, "students.w.prune")
    llama = ModelFolder(make_teacher(tmp_path / "llama", "llama")).shape
    with pytest.raises(ShapeError, match="a cut vocabulary reads other tokens"):
        PruneConfig(vocab_size=290, heal=HealConfig(norms=True)).target(llama, "students.w.prune")


def test_a_teacher_in_bfloat16_heals_too(tmp_path: Path, tokens: Path, teacher_of) -> None:
    folder = teacher_of("llama")
    (tmp_path / "out").mkdir()
    config = PruneConfig(drop_layers=(1, 2), heal=HealConfig(norms=True, refit="all", samples=16, sequence_length=24))
    run(config, Inputs(folder, None, tokens), tmp_path / "out", Runtime(precision="bfloat16"), QUIET)
    assert torch.isfinite(logits(tmp_path / "out")).all()


@torch.no_grad()
def test_the_dropped_block_is_the_one_that_a_refit_replaces_best(tmp_path: Path, tokens: Path, teacher_of) -> None:
    """Compared with a slow reference: each block is cut and healed separately, and the students' KL compared."""
    teacher = teacher_of("llama")
    calibration = {"samples": 32, "sequence_length": 24}

    def cut(name: str, **options: Any) -> Path:
        out = tmp_path / name
        out.mkdir()
        config = PruneConfig.model_validate({"num_hidden_layers": 3, **options})
        run(config, Inputs(teacher, tokens=tokens), out, Runtime(), QUIET)
        return out

    ids = torch.from_numpy(calibration_set(Tokens.open(tokens), 32, 24, 0))
    expected = F.log_softmax(load(teacher)(ids).logits, dim=-1)
    losses = []
    for layer in range(4):
        healed = cut(f"without-{layer}", drop_layers=[layer], heal={**calibration, "refit": "all"})
        actual = F.log_softmax(load(healed)(ids).logits, dim=-1)
        losses.append(float(F.kl_div(actual, expected, log_target=True, reduction="batchmean")))
    chosen = cut("chosen", importance={"layers": "refit"}, heal={**calibration, "refit": "none"})
    gone = set(range(4)) - set(json.loads((chosen / "kept.json").read_text())["layers"])
    assert gone == {int(np.argmin(losses))}
    plain = cut("plain", drop_layers=list(gone), heal="none")
    assert all(torch.equal(a, b) for a, b in zip(load(chosen).parameters(), load(plain).parameters(), strict=True))
    assert sorted(file.name for file in chosen.iterdir()) == sorted(file.name for file in plain.iterdir())
