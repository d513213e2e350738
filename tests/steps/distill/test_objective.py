"""The loss of distillation, compared with its terms computed separately."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from prunus.errors import ModelError, RecipeError
from prunus.kd.losses import cosine_distance, forward_kl, relative_error, reverse_kl
from prunus.models.lineage import Lineage, copy_lineage, read_lineage, write_lineage
from prunus.steps.distill.config import DistillConfig, StatesConfig
from prunus.steps.distill.objective import Distillation, make_objective
from prunus.steps.distill.states import StatesLoss
from prunus.training.objectives import next_tokens
from tests.tiny import load, make_model

IDS = torch.arange(2 * 20).reshape(2, 20) % 300


@pytest.fixture
def pair(tmp_path: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student and its teacher, in float64."""
    teacher = load(make_model(tmp_path / "teacher")).double().requires_grad_(False)
    return load(make_model(tmp_path / "student", seed=1, hidden_size=16, num_hidden_layers=2)).double(), teacher


def options(**changes: object) -> DistillConfig:
    return DistillConfig.model_validate({"tokens": 0, "states": "none", **changes})


def test_loss_and_gradients_equal_those_of_full_logits(pair) -> None:
    student, teacher = pair
    expected_loss = forward_kl(student(IDS).logits, teacher(IDS).logits, 2.0).mean()
    expected_loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}
    student.zero_grad()
    loss = make_objective(options(temperature=2.0), student, teacher, None)(IDS)
    loss.backward()
    torch.testing.assert_close(loss, expected_loss)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name, rtol=1e-5, atol=1e-8)


def test_weights_entropy_and_cross_entropy_combine(pair) -> None:
    student, teacher = pair
    weights = torch.rand(2, 20)
    weights[0, :7] = 0
    config = options(cross_entropy_weight=0.3, token_weights="teacher_entropy")
    loss = make_objective(config, student, teacher, None)(IDS, weights)
    with torch.no_grad():
        s, t = student(IDS).logits, teacher(IDS).logits
        entropy = -(t.softmax(-1) * t.log_softmax(-1)).sum(-1)
        text = torch.nn.functional.cross_entropy(s.transpose(1, 2), next_tokens(IDS), reduction="none")
        share = weights * entropy
        expected = (share * (forward_kl(s, t) + 0.3 * text)).sum() / share.sum() * weights.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_micro_batches_add_up_to_the_batch(pair) -> None:
    student, teacher = pair
    objective = make_objective(options(), student, teacher, None)
    whole = objective(IDS).item()
    assert (objective(IDS[:1]) + objective(IDS[1:])).item() / 2 == pytest.approx(whole, rel=1e-6)
    assert objective.figures["forward_kl"].item() > 0


def test_one_huge_state_does_not_dominate_the_loss() -> None:
    basis = torch.eye(32)[:, :16]
    plain, normalised = (StatesLoss(StatesConfig(normalize=way), [(0, 0)], basis, (32, 16)) for way in (False, True))
    theirs = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    ours = theirs @ basis
    ours[1, 4] *= 100
    assert plain([ours], [theirs]).item() > 100
    assert normalised([ours], [theirs]).item() < 0.01


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("decay", "share"), [("linear", 0.75), ("none", 1.0)])
def test_states_are_compared_in_the_basis_of_the_cut(pair, decay: str, share: float, normalize: bool) -> None:
    student, teacher = pair
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 16)))[0].astype(np.float32)
    config = options(states={"weight": 2.0, "decay": decay, **({} if normalize else {"normalize": False})})

    def scaled(state: torch.Tensor) -> torch.Tensor:
        return state / state.square().mean(-1, keepdim=True).sqrt() if normalize else state

    objective = make_objective(config, student, teacher, Lineage([0, 3], basis))
    with torch.no_grad():
        actual = objective(IDS, progress=0.25).item()
        t, s = (model(IDS, output_hidden_states=True) for model in (teacher, student))
        # the stream before layers 0 and 1 of the student, which were the teacher's 0 and 3
        errors = [
            relative_error(
                scaled(s.hidden_states[j].float()), scaled(t.hidden_states[i].float() @ torch.from_numpy(basis))
            ).mean()
            for j, i in ((0, 0), (1, 3))
        ]
        expected = forward_kl(s.logits, t.logits).mean() + 2.0 * share * sum(errors) / 2
    assert actual == pytest.approx(expected.item(), rel=1e-5)


def test_the_papers_states_are_a_late_layer_and_the_embeddings_weighted_like_the_logits(pair) -> None:
    student, teacher = pair
    student, teacher = student.float(), teacher.float()
    torch.manual_seed(0)
    objective = make_objective(options(states="paper"), student, teacher, None)
    assert isinstance(objective, Distillation)
    assert objective.states is not None
    assert objective.states.pairs == [(0, 0), (4, 2)]  # layers 3 of 4 and 1 of 2
    actual = objective(IDS, progress=0.9)
    t, s = (model(IDS, output_hidden_states=True) for model in (teacher, student))
    logits = forward_kl(s.logits, t.logits).mean()
    assert actual.item() == pytest.approx(2 * logits.item(), rel=1e-5)  # alpha makes both terms equal
    ours = objective.states.projection(s.hidden_states[0])
    errors = [cosine_distance(ours, t.hidden_states[0]).mean()]
    errors.append(cosine_distance(objective.states.projection(s.hidden_states[2]), t.hidden_states[4]).mean())
    assert objective.figures["states"].item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    actual.backward()
    assert objective.states.projection.weight.grad.abs().max().item() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_papers_layers_scale_and_pairs_are_checked() -> None:
    paper = StatesConfig.model_validate("paper")
    assert paper.pairs(32, 16, []) == [(0, 0), (30, 14)]  # the outputs of layers 29 and 13
    assert StatesConfig(layers=("3:1",)).pairs(4, 2, []) == [(4, 2)]
    with pytest.raises(RecipeError, match=r"distill.states.layers: 3:2 does not exist.*the student's 0 to 1"):
        StatesConfig(layers=("3:2",)).pairs(4, 2, [])
    with pytest.raises(ValueError, match="'3-2' is not a pair of layers"):
        StatesConfig(layers=("3-2",))
    with pytest.raises(ValueError, match="allowed: none, kept, paper"):
        StatesConfig.model_validate("papers")


def test_a_student_equal_to_its_teacher_has_no_loss(tmp_path: Path) -> None:
    teacher = load(make_model(tmp_path / "teacher"))
    whole = Lineage([0, 1, 2, 3], np.eye(32, dtype=np.float32))
    objective = make_objective(DistillConfig(tokens=0), teacher, teacher, whole)
    with torch.no_grad():
        assert objective(IDS).item() == pytest.approx(0, abs=1e-6)


def test_weight_0_and_cross_entropy_compare_no_states() -> None:
    assert DistillConfig(tokens=0).reads_lineage
    assert not options().compares_states
    assert not DistillConfig(tokens=0, loss="cross_entropy").compares_states
    assert not options(states="paper").reads_lineage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "reverse_kl", "top_k": 3}, "top_k: 3 is for loss: forward_kl"),
        ({"loss": "cross_entropy", "cross_entropy_weight": 0.5}, "the loss is cross_entropy already"),
        ({"loss": "cross_entropy", "token_weights": "teacher_entropy"}, "needs a teacher"),
        ({"states": {"weight": -1}}, "must be at least 0"),
        ({"rollouts": {"share": 0.5}}, "rollouts: not an option with data: corpus"),
        ({"data": "student", "loss": "cross_entropy"}, "the teacher grades what the student generates"),
        (
            {"data": "student", "sequence_length": 32},
            "prompt_tokens: 32 leaves no tokens to generate with sequence_length: 32",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_the_teacher_is_not_part_of_the_module(pair) -> None:
    student, teacher = pair
    objective = make_objective(options(), student, teacher, None)
    assert {id(p) for p in objective.parameters()} == {id(p) for p in student.parameters()}
    assert objective.companions[0].model is teacher


def test_lineage_is_written_and_copied(tmp_path: Path) -> None:
    plain, turned, later = (tmp_path / name for name in ("plain", "turned", "later"))
    for folder in (plain, turned, later):
        folder.mkdir()
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 3)))[0]
    write_lineage(plain, {"layers": [0, 2], "hidden": [1, 4, 6]}, None)
    write_lineage(turned, {"layers": [1], "hidden": list(range(8))}, basis)
    assert read_lineage(plain, 8).layers == [0, 2]
    np.testing.assert_array_equal(read_lineage(plain, 8).basis, np.eye(8)[:, [1, 4, 6]])
    copy_lineage(turned, later)
    np.testing.assert_allclose(read_lineage(later, 8).basis, basis, atol=1e-7)
    with pytest.raises(ModelError, match=r"there is no kept.json.*distill.states must be `none`"):
        read_lineage(tmp_path, 8)
    with pytest.raises(ModelError, match="it has channel 6 of its teacher, but this teacher has 5"):
        read_lineage(plain, 5)
    with pytest.raises(ModelError, match="it was pruned from 8 channels, but this teacher has 16"):
        read_lineage(turned, 16)
    with pytest.raises(ModelError, match="it has layer 2 of its teacher, but this teacher has 2"):
        read_lineage(plain, 8, layers=2)


@pytest.mark.parametrize("token_weights", ["uniform", "teacher_entropy"])
def test_a_micro_batch_of_weight_0_has_no_loss(pair, token_weights: str) -> None:
    student, teacher = pair
    objective = make_objective(options(token_weights=token_weights), student, teacher, None)
    loss = objective(IDS, torch.zeros(2, 20))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad.abs().max() == 0 for parameter in student.parameters())


def test_an_empty_list_of_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="names no pair; to compare no states, set `states: none`"):
        StatesConfig(layers=())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "mse"])
def test_each_term_is_recorded(pair, loss: str, weighted: bool) -> None:
    """Unweighted, not scaled by the temperature, each averaged over the weighted tokens; the loss is their sum."""
    student, teacher = pair
    weights = None
    if weighted:
        weights = torch.rand(2, 20, dtype=torch.float64)
        weights[:, -1] = weights[0, :7] = 0
        weights /= weights.mean()
    config = options(
        loss=loss, temperature=2.0, cross_entropy_weight=0.3, token_weights="teacher_entropy",
        states={"weight": 2.0, "decay": "none", "layers": ["3:1"], "projection": "learned"},
    )  # fmt: skip
    objective = make_objective(config, student.float(), teacher.float(), None)
    with torch.no_grad():
        objective(IDS, weights)
        s, t = student(IDS).logits, teacher(IDS).logits
        count = torch.ones(2, 20) if weights is None else weights
        of = {
            "forward_kl": lambda: forward_kl(s / 2, t / 2),
            "reverse_kl": lambda: reverse_kl(s / 2, t / 2),
            "mse": lambda: (s - t).square().mean(-1),
        }
        text = torch.nn.functional.cross_entropy(s[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none")
        expected = {
            loss: (of[loss]() * count).sum() / count.sum(),
            "cross_entropy": (text * count[:, :-1]).sum() / count[:, :-1].sum(),
        }
    for name, value in expected.items():
        assert objective.figures[name].item() == pytest.approx(value.item(), rel=1e-5)
    assert list(objective.figures) == [loss, "cross_entropy", "states"]


def test_the_only_term_is_the_loss(pair) -> None:
    student, teacher = pair
    for config, model in ((options(), teacher), (options(loss="cross_entropy"), None)):
        objective = make_objective(config, student, model, None)
        loss = objective(IDS)
        assert [figure.item() for figure in objective.figures.values()] == [pytest.approx(loss.item(), rel=1e-6)]
