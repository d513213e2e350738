"""A nest in training: every size has the loss and the gradients that it has alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from prunus.cli.main import main
from prunus.errors import RecipeError
from prunus.models.folder import NEST, NORMS
from prunus.models.lineage import read_lineage
from prunus.models.nest import read_nest
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.nest_config import NestConfig
from prunus.steps.distill.nest_plan import check_nest
from prunus.steps.distill.nested import make_nested
from prunus.steps.distill.objective import make_objective
from prunus.training.loop import ObjectiveTrainer
from prunus.training.record import Recorder
from tests.cutting import TEXT, score
from tests.nests import cut, sizes_of, written
from tests.processes import together
from tests.tiny import load

STEPS = 12


@pytest.fixture(scope="module")
def nest(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nest")
    return cut(teacher, folder / "out", score(teacher, folder), nest=sizes_of(teacher))


def options(**changes: object) -> DistillConfig:
    base = {"tokens": 1000, "batch_size": 2, "sequence_length": 20, "warmup_steps": 0, "learning_rate": 1e-3}
    return DistillConfig.model_validate({**base, **changes})


@pytest.mark.parametrize("states", ["none", "kept"])
def test_loss_and_gradients_are_the_weighted_mean_of_the_sizes(nest, teacher, tmp_path, states) -> None:
    found, above = read_nest(nest), load(teacher).requires_grad_(False)
    config = options(states=states, nest={"schedule": "all", "weights": {"small": 2.0}})
    model = load(nest)
    lineage = read_lineage(nest, above.config.hidden_size, above.config.num_hidden_layers)
    objective = make_nested(make_objective(config, model, above, lineage), found, config, above, lineage, None)
    loss = objective(TEXT)
    loss.backward()
    expected, gradients = 0.0, {}
    for size in found.sizes:
        alone = load(written(nest, size, tmp_path / size.name))
        own = read_lineage(tmp_path / size.name, above.config.hidden_size, above.config.num_hidden_layers)
        share = (2.0 if size.name == "small" else 1.0) / 4
        one = share * make_objective(config, alone, above, own)(TEXT)
        one.backward()
        expected += one.item()
        gradients[size.name] = {name: p.grad for name, p in alone.named_parameters()}
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert objective.figures.keys() >= {"forward_kl", "small_loss", "medium_loss"}
    embedding = torch.zeros_like(model.model.embed_tokens.weight)
    for of in gradients.values():
        part = of["model.embed_tokens.weight"]
        embedding[:, : part.shape[1]] += part
    torch.testing.assert_close(model.model.embed_tokens.weight.grad, embedding, rtol=1e-4, atol=1e-6)
    first = found.sizes[0].layers.index(found.sizes[-1].layers[0])  # a layer that all sizes have
    down = torch.zeros_like(model.model.layers[first].mlp.down_proj.weight)
    for size in found.sizes:
        part = gradients[size.name][f"model.layers.{size.layers.index(first)}.mlp.down_proj.weight"]
        down[: part.shape[0], : part.shape[1]] += part
    torch.testing.assert_close(model.model.layers[first].mlp.down_proj.weight.grad, down, rtol=1e-4, atol=1e-6)
    norms = dict(zip(objective.norms(), objective.own_norm, strict=True))
    for name, gain in norms.items():
        size, _, own_name = name.partition("/")
        torch.testing.assert_close(gain.grad, gradients[size][own_name], rtol=1e-4, atol=1e-6)


def test_the_teacher_is_asked_once_for_all_sizes(nest, teacher, monkeypatch) -> None:
    found, above = read_nest(nest), load(teacher).requires_grad_(False)
    config = options(states="none", nest={"schedule": "all"})
    objective = make_nested(make_objective(config, load(nest), above, None), found, config, above, None, None)
    asked = []
    above.base_model.register_forward_hook(lambda *_: asked.append(1))
    objective(TEXT)
    objective(TEXT.clone())
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("schedule", "expected", "shares"),
    [
        ("alternate", [["b"], ["c"], ["d"], ["b"]], [1 / 3, 1 / 3, 1 / 3]),
        ("sandwich", [["b", "d"], ["c", "d"], ["b", "d"], ["c", "d"]], [0.5, 0.5, 1]),
        ("all", [["b", "c", "d"]] * 4, [1, 1, 1]),
    ],
)
def test_schedules(schedule, expected, shares) -> None:
    config = NestConfig(schedule=schedule)
    assert [config.drawn(["b", "c", "d"], step) for step in range(4)] == expected
    assert config.shares(["b", "c", "d"]) == pytest.approx(shares)
    assert config.drawn(["b"], 5) == ["b"]
    assert config.shares(["b"]) == [1]


def distil(nest: Path, teacher: Path, corpus: Path, out: Path, *more: object) -> list[str]:
    words = ["distill", nest, "--teacher", teacher, "--corpus", corpus, "--out", out, "--tokens", STEPS * 4 * 16]
    words += ["--sequence-length", 16, "--batch-size", 4, "--warmup-steps", 1, "--learning-rate", 1e-3, *more]
    return [str(word) for word in words]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_trained_nest_is_a_nest_whose_every_size_learned_and_a_killed_run_resumes_to_the_bit(
    nest, teacher, corpus, tmp_path, optimizer, monkeypatch
) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    more = ["--optimizer", optimizer, "--runtime.checkpoint-minutes", 0]
    assert main(distil(nest, teacher, corpus, one, *more)) == 0
    lines = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert [set(line) & {"medium_loss", "small_loss"} for line in lines[:2]] == [{"medium_loss"}, {"small_loss"}]
    before, after = (load_file(folder / NORMS) for folder in (nest, one))
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)
    assert (one / NEST).read_bytes() == (nest / NEST).read_bytes()

    def killed(self, *arguments, **options):
        if self.state.global_step == STEPS // 2:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    step = ObjectiveTrainer.training_step
    with monkeypatch.context() as patch:
        patch.setattr(ObjectiveTrainer, "training_step", killed)
        assert main(distil(nest, teacher, corpus, two, *more)) == 130
    assert list(tmp_path.rglob("checkpoint-6/complete"))
    resumed = []
    go_on = Recorder.resume

    def resume(self, step: int) -> None:
        resumed.append(step)
        go_on(self, step)

    monkeypatch.setattr(Recorder, "resume", resume)
    assert main(distil(nest, teacher, corpus, two, *more)) == 0
    assert resumed == [STEPS // 2]
    for name in ("model.safetensors", NORMS, NEST):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.processes
def test_two_processes_train_a_nest_as_one_does(nest, teacher, corpus, tmp_path) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(distil(nest, teacher, corpus, one, "--optimizer", "adamw")) == 0
    together(distil(nest, teacher, corpus, two, "--optimizer", "adamw"))
    for name in ("model.safetensors", NORMS):
        first, second = load_file(one / name), load_file(two / name)
        for key, value in first.items():
            torch.testing.assert_close(torch.from_numpy(second[key]), torch.from_numpy(value), rtol=1e-4, atol=1e-5)


def test_recomputed_activations_give_the_same(nest, teacher, corpus, tmp_path) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(distil(nest, teacher, corpus, one, "--optimizer", "adamw")) == 0
    again = ["--runtime.gradient-checkpointing"]
    assert main(distil(nest, teacher, corpus, two, "--optimizer", "adamw", *again)) == 0
    for key, value in load_file(one / NORMS).items():
        torch.testing.assert_close(torch.from_numpy(load_file(two / NORMS)[key]), torch.from_numpy(value))


REFUSED = {
    "lora": ({"lora": 2}, {}),
    "data: student": ({"data": "student"}, {}),
    "states.projection: learned": ({"states": {"projection": "learned"}}, {}),
    "states.layers with pairs": ({"states": {"layers": ["1:1"]}}, {}),
    "nest.weights: other is not a size": ({"nest": {"weights": {"other": 2.0}}}, {}),
    "runtime.deepspeed": ({}, {"deepspeed": "file.json"}),
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_a_nest_cannot_be_trained_with_is_refused(option) -> None:
    changes, runtime = REFUSED[option]
    length = {"sequence_length": 64} if "data" in changes else {}
    with pytest.raises(RecipeError, match=f"students.f.distill: {option}.*: not for a nest; allowed: "):
        check_nest(options(**changes, **length), ["large", "small"], Runtime(**runtime), "students.f.distill")


def test_options_of_a_nest_are_refused_for_one_size() -> None:
    with pytest.raises(RecipeError, match="one size"):
        check_nest(options(nest={"schedule": "all"}), [], Runtime(), "distill")
    check_nest(options(), [], Runtime(), "distill")
