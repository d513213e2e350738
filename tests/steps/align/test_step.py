"""One stage of alignment: what it learns, that portions and kills do not matter, and what it leaves."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prunus.data.judged import Judged
from prunus.data.tokens import Tokens
from prunus.runtime import Runtime
from prunus.steps.align import step
from prunus.training.loop import ObjectiveTrainer
from tests.steps.align.making import align, metrics, read, rows, write
from tests.tiny import load, make_model

FAST = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 8}
PREFERENCES = ["rpo", "dpo", "cdpo", "ipo", "simpo", "orpo", "kto", "spin"]
WANTED = {"rpo": "rewards", "kto": "labels", "sft": "answers", "steerlm": "attributes"}


@pytest.fixture(scope="module")
def data(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """32 rows of each form, read."""
    folder = tmp_path_factory.mktemp("chat")
    return {
        wanted: read(teacher, write(folder / f"{wanted}.jsonl", rows(32, wanted)), folder / wanted, wanted=wanted)
        for wanted in ("answers", "pairs", "rewards", "labels", "attributes")
    }


def source(data: dict[str, Path], method: str) -> Path:
    return data[WANTED.get(method, "pairs")]


def log_prob(model: torch.nn.Module, ids: np.ndarray, counts: np.ndarray) -> float:
    """Of the tokens that count, by whole logits, one sequence at a time."""
    read = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        said = F.log_softmax(model(read).logits[0, :-1].double(), dim=-1)
    chosen = said.gather(-1, read[0, 1:, None]).squeeze(-1)
    return float(chosen[torch.from_numpy(counts[1:].copy())].sum())


def by_hand(model: torch.nn.Module, folder: Path) -> list[float]:
    tokens = Tokens.open(folder)
    return [
        log_prob(model, tokens.ids[a:b], tokens.loss_mask(a, b - a))
        for a, b in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("method", "pack"), [("sft", True), ("steerlm", False)])
def test_answers_become_likelier(teacher, data, tmp_path, method: str, pack: bool) -> None:
    align(teacher, source(data, method), tmp_path / "out", method=method, pack=pack, **{**FAST, "batch_size": 4})
    before, after = (np.mean(by_hand(load(model), source(data, method))) for model in (teacher, tmp_path / "out"))
    assert after > before + 5
    lines = metrics(tmp_path / "out")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5


@pytest.mark.parametrize("method", PREFERENCES)
def test_the_chosen_get_ahead(teacher, data, tmp_path, method: str) -> None:
    beta = {} if method in ("simpo", "orpo") else {"beta": 0.1}
    align(teacher, source(data, method), tmp_path / "out", method=method, **FAST, **beta)
    before, after = (np.asarray(by_hand(load(model), source(data, method))) for model in (teacher, tmp_path / "out"))
    judged = Judged.open(source(data, method))
    sign = np.where(judged.rewards > 0.5, 1, -1) if method == "kto" else np.tile([1, -1], 32)
    assert (sign * (after - before)).sum() > 20
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert "generation" in saved.chat_template


def test_the_reference_is_computed_from_whole_logits(teacher, data, tmp_path) -> None:
    for method in ("rpo", "kto"):
        align(teacher, source(data, method), tmp_path / method, method=method, batch_size=32)
        kept = np.load(tmp_path / method / "reference.npy")
        wanted = by_hand(load(teacher), source(data, method))
        np.testing.assert_allclose(kept[: len(wanted)], wanted, rtol=1e-5)


def test_the_first_step_is_taken_from_where_model_and_reference_agree(teacher, data, tmp_path) -> None:
    first = {}
    for method in ("dpo", "kto", "ipo", "rpo"):
        align(teacher, source(data, method), tmp_path / method, method=method, batch_size=32, learning_rate=1e-9)
        first[method] = metrics(tmp_path / method)[0]
    assert first["dpo"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["kto"]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert first["ipo"]["loss"] == pytest.approx(25, rel=1e-3)
    gaps = -np.diff(Judged.open(data["rewards"]).rewards.reshape(-1, 2), axis=1)
    p = 1 / (1 + np.exp(-gaps))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert first["rpo"]["loss"] == pytest.approx(float((math.log(2) - entropy).mean()), abs=1e-4)


@pytest.mark.parametrize("options", [{"per_token": True, "sft_weight": 0.3}, {"distance": "squared"}])
def test_a_step_of_rpo_by_hand(teacher, data, tmp_path, options: dict) -> None:
    """One whole step against autograd through whole logits, by the norm of its gradient and by its loss."""
    model = load(teacher)
    tokens, judged = Tokens.open(data["rewards"]), Judged.open(data["rewards"])
    total = torch.zeros((), dtype=torch.float64)
    reference = by_hand(model, data["rewards"])
    said, lengths = [], []
    for start, end in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
        ids = torch.from_numpy(tokens.ids[start:end].astype(np.int64))[None]
        counts = torch.from_numpy(tokens.loss_mask(start, end - start)[1:].copy())
        logs = F.log_softmax(model(ids).logits[0, :-1].double(), dim=-1).gather(-1, ids[0, 1:, None]).squeeze(-1)
        said.append(logs[counts].sum())
        lengths.append(int(counts.sum()))
    for i in range(0, 64, 2):
        scale = lengths[i : i + 2] if options.get("per_token") else (1, 1)
        chosen, rejected = said[i] / scale[0], said[i + 1] / scale[1]
        gap = 0.2 * ((chosen - reference[i] / scale[0]) - (rejected - reference[i + 1] / scale[1]))
        wanted = 1.5 * (judged.rewards[i] - judged.rewards[i + 1])
        p = 1 / (1 + math.exp(-wanted))
        soft = -p * F.logsigmoid(gap) - (1 - p) * F.logsigmoid(-gap) + p * math.log(p) + (1 - p) * math.log(1 - p)
        total = (
            total + ((gap - wanted) ** 2 if options.get("distance") else soft) - options.get("sft_weight", 0) * chosen
        )
    loss = total / 32
    loss.backward()
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm().item()
    align(teacher, data["rewards"], tmp_path / "out", method="rpo", batch_size=32, eta=1.5, **options)
    (line,) = metrics(tmp_path / "out")
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("method", ["rpo", "dpo", "cdpo", "ipo", "simpo", "orpo", "spin", "kto", "reward", "sft"])
def test_the_loss_is_the_sum_of_its_recorded_terms(teacher, data, tmp_path, method: str) -> None:
    text = {"sft_weight": 0.3} if method in ("rpo", "dpo", "cdpo", "ipo", "simpo", "spin") else {}
    align(teacher, source(data, method), tmp_path / "out", method=method, batch_size=8, **text)
    terms = {"orpo": {"sft": 1, "odds_ratio": 0.1}, "reward": {"bradley_terry": 1}, "sft": {"cross_entropy": 1}}
    weights = terms.get(method, {method: 1, **({"sft": 0.3} if text else {})})
    for line in metrics(tmp_path / "out"):
        found = sum(weight * line[name] for name, weight in weights.items())
        assert line["loss"] == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("method", ["sft", "rpo", "kto"])
def test_portions_do_not_matter(teacher, data, tmp_path, method: str) -> None:
    for portion in (1, 4):
        align(teacher, source(data, method), tmp_path / str(portion), portion, method=method, learning_rate=1e-3)
    one, four = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "4"))
    for name, weight in one.items():
        torch.testing.assert_close(weight, four[name], rtol=1e-3, atol=2e-4)


class Killed(BaseException):
    """Nothing that a step would catch."""


@pytest.mark.parametrize("method", ["sft", "rpo", "kto"])
def test_a_killed_stage_resumes_and_ends_the_same(teacher, data, tmp_path, monkeypatch, method: str) -> None:
    options = {"method": method, "learning_rate": 1e-3, "runtime": Runtime(device_batch_size=4, checkpoint_minutes=0)}
    if method == "sft":
        options["pack"] = False
    align(teacher, source(data, method), tmp_path / "whole", **options)
    loss, seen = ObjectiveTrainer.compute_loss, []

    def dying(self, *rest, **more):
        seen.append(1)
        if len(seen) == 6:
            raise Killed
        return loss(self, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectiveTrainer, "compute_loss", dying)
        with pytest.raises(Killed):
            align(teacher, source(data, method), tmp_path / "killed", **options)
    asked = []
    if step.AlignConfig(method=method).spec.refers:
        log_probs = step.Preference.log_probs
        monkeypatch.setattr(step.Preference, "log_probs", lambda self, *rest: asked.append(1) or log_probs(self, *rest))
    align(teacher, source(data, method), tmp_path / "killed", **options)
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all((whole[name] == killed[name]).all() for name in whole)
    assert metrics(tmp_path / "killed")[-1]["step"] == 8
    assert len(asked) <= 2 * 3  # the three steps that were left; the reference is not asked again
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_another_reference(teacher, data, tmp_path) -> None:
    align(teacher, data["answers"], tmp_path / "other", method="sft", pack=False, **FAST)
    options = {"method": "dpo", "batch_size": 32}
    align(teacher, data["pairs"], tmp_path / "out", reference=tmp_path / "other", **options)
    kept = np.load(tmp_path / "out" / "reference.npy")
    np.testing.assert_allclose(kept, by_hand(load(tmp_path / "other"), data["pairs"]), rtol=1e-4)


def test_a_best_answer_is_what_is_learnt(teacher, data, tmp_path) -> None:
    options = {"method": "best_of_n", "learning_rate": 1e-3, "batch_size": 8, "pack": False}
    align(teacher, data["rewards"], tmp_path / "out", **options)
    assert metrics(tmp_path / "out")[-1]["step"] == 4  # 32 best ones of 64


def test_a_reward_model_tells_plums_from_almonds(teacher, data, tmp_path) -> None:
    align(teacher, data["pairs"], tmp_path / "out", method="reward", **FAST)
    lines = metrics(tmp_path / "out")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[-1]["accuracy"] == 1
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    said = [
        model(**tokenizer(f"<s>User: once\nAssistant: {word} tree</s>", add_special_tokens=False, return_tensors="pt"))
        for word in ("plum", "almond")
    ]
    assert said[0].logits.item() > said[1].logits.item()


def test_distilling_draws_to_the_teacher_where_the_assistant_speaks(teacher, data, tmp_path) -> None:
    other = make_model(tmp_path / "other", seed=9)
    options = {"method": "distil", "pack": True, "batch_size": 2, "learning_rate": 6e-3, "epochs": 4}
    align(teacher, data["answers"], tmp_path / "out", teacher=other, **options)
    lines = metrics(tmp_path / "out")
    assert lines[-1]["forward_kl"] < 0.8 * lines[0]["forward_kl"]
    tokens = Tokens.open(data["answers"])
    before, wanted, after = (load(folder) for folder in (teacher, other, tmp_path / "out"))
    kls = {}
    for name, model in (("before", before), ("after", after)):
        found = []
        for start, end in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
            ids = torch.from_numpy(tokens.ids[start:end].astype(np.int64))[None]
            counts = torch.from_numpy(tokens.loss_mask(start, end - start)[1:].copy())
            with torch.no_grad():
                p, q = (F.log_softmax(each(ids).logits[0, :-1].double(), dim=-1)[counts] for each in (wanted, model))
            found.append((p.exp() * (p - q)).sum(dim=-1))
        kls[name] = torch.cat(found).mean().item()
    first = lines[0]["forward_kl"]  # of the first step's sequences alone
    assert kls["before"] == pytest.approx(first, rel=0.3)
    assert kls["after"] < 0.8 * kls["before"]
