"""Stages in a recipe and by command: in order, each from the one before, and mistakes found before any work."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.cli.main import main
from prunus.cli.render import show_plan
from prunus.console import Console
from prunus.data.judged import Judged
from prunus.errors import DataError, PrunusError
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import load_recipe
from prunus.pipeline.run import run_plan
from tests.pipeline.recipes import tiny_recipe, write
from tests.steps.align.making import rows
from tests.steps.align.making import write as write_rows
from tests.tiny import load

pytestmark = pytest.mark.slow

STAGE = {"sequence_length": 64, "batch_size": 4}
CHECK = {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["plum"]}]}


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> Any:
    """A recipe of one student without distillation, with conversations, pairs and checks in files."""
    for form in ("answers", "rewards", "labels"):
        write_rows(tmp_path / f"{form}.jsonl", rows(16, form))
    checked = [{**row, "check": CHECK} for row in rows(8, "answers")]
    write_rows(tmp_path / "checks.jsonl", checked)

    def made(*align: Any, **changes: Any) -> dict[str, Any]:
        given = tiny_recipe(teacher, corpus, held_out, **changes)
        given["data"] |= {"chat": [str(tmp_path / "answers.jsonl")], "template": "builtin:plain"}
        given["correct"] = {}
        given["students"] = {"one": {"prune": {"num_hidden_layers": 2}}}
        given["distill"]["tokens"] = 0
        return {**given, "align": list(align)}

    return made


def planned(recipe: dict[str, Any], root: Path) -> Plan:
    return make_plan(load_recipe(write(root.with_suffix(".yaml"), recipe)), root)


def test_a_plan_shows_what_is_learnt_and_what_nothing_reads(recipe, tmp_path: Path) -> None:
    given = recipe({"method": "sft", **STAGE}, {"method": "rpo", "data": [str(tmp_path / "rewards.jsonl")], **STAGE})
    rows = [{"question": "plum?", "answer": "Yes.", "category": "fruit"}] * 4
    write_rows(tmp_path / "answers.jsonl", rows)
    told = io.StringIO()
    show_plan(planned(given, tmp_path / "run"), Console(file=told))
    assert "<s>User: plum?\nAssistant:[[ Yes.</s>]]" in told.getvalue()
    assert "answers.jsonl: unused columns: category" in told.getvalue()
    assert told.getvalue().count("rewards.jsonl  row 1 as the model reads it") == 1
    del rows[0]["question"]
    write_rows(tmp_path / "answers.jsonl", rows)
    with pytest.raises(DataError, match="row 1 has the columns answer, category"):
        planned(given, tmp_path / "run")


def test_stages_follow_each_other(recipe, tmp_path: Path) -> None:
    pairs = [str(tmp_path / "rewards.jsonl")]
    checks = [str(tmp_path / "checks.jsonl")]
    writes = {"answers": 3, "max_new_tokens": 8}
    plan = planned(
        recipe(
            {"method": "sft", "learning_rate": 1e-3, **STAGE},
            {"method": "reward", "data": pairs, **STAGE},
            {"method": "rpo", "data": pairs, "rounds": 2, **STAGE},
            {"method": "best_of_n", "data": checks, "write": writes, **STAGE},
            {"method": "dpo", "data": checks, "write": {**writes, "reward": "stage"}, **STAGE, "batch_size": 2},
            {"method": "spin", "data": checks, "write": {"max_new_tokens": 8}, **STAGE},
        ),
        tmp_path / "run",
    )
    run_plan(plan, Console(quiet=True))
    labels = [step.label for step in plan.steps if step.subject == "one"]
    assert labels == [
        "prune", "evaluate-pruned", "conversations-1-sft", "align-1-sft", "conversations-2-reward", "align-2-reward",
        "conversations-3-rpo-round1", "align-3-rpo-round1", "conversations-3-rpo-round2", "align-3-rpo-round2",
        "candidates-4-best_of_n", "align-4-best_of_n", "candidates-5-dpo", "align-5-dpo", "candidates-6-spin",
        "align-6-spin", "evaluate",
    ]  # fmt: skip
    steps = {step.label: step for step in plan.steps if step.subject == "one"}
    order = ["prune", "align-1-sft", "align-3-rpo-round1", "align-3-rpo-round2", "align-4-best_of_n", "align-5-dpo",
             "align-6-spin"]  # fmt: skip
    for before, after in pairwise(order):
        assert steps[after].inputs["model"] is steps[before]
    assert steps["candidates-5-dpo"].inputs["reward"] is steps["align-2-reward"]
    assert steps["evaluate"].inputs["model"] is steps["align-6-spin"]
    for step in plan.steps:
        assert step.state() == "done"
    folder = steps["candidates-4-best_of_n"].artifact.path
    lines = [json.loads(line) for line in (folder / "candidates.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8 * 3
    judged = Judged.open(folder)
    assert judged.rewards.tolist() == [line["reward"] for line in lines]
    assert [line["reward"] for line in lines] == [float("plum" in line["answer"].lower()) for line in lines]
    rounds = [np.load(steps[f"align-3-rpo-round{i}"].artifact.path / "reference.npy") for i in (1, 2)]
    assert not np.allclose(rounds[0], rounds[1])
    assert load(steps["align-6-spin"].artifact.path).config.num_hidden_layers == 2


def test_a_late_change_redoes_only_what_depends_on_it(recipe, tmp_path: Path) -> None:
    def keys(**second: Any) -> list[str]:
        dpo = {"method": "dpo", "data": [str(tmp_path / "rewards.jsonl")], **STAGE, **second}
        plan = planned(recipe({"method": "sft", **STAGE}, dpo), tmp_path / "run")
        return [step.artifact.key for step in plan.steps if step.kind in ("conversations", "align")]

    first, same, other = keys(), keys(reference=None), keys(beta=0.3)
    assert first == same
    assert first[:3] == other[:3]
    assert first[3] != other[3]


def test_students_may_have_different_stages(recipe, tmp_path: Path) -> None:
    given = recipe({"method": "sft", **STAGE}, seed=7)
    given["students"]["two"] = {"prune": {"num_hidden_layers": 3}, "align": []}
    steps = planned(given, tmp_path / "run").steps
    assert [step.label for step in steps if step.subject == "two"][-1] == "evaluate"
    (stage,) = (step for step in steps if step.kind == "align")
    assert (stage.subject, stage.config.seed) == ("one", 7)


WRONG = [
    ({"method": "rlhf"}, r"align.0.method: .*(sft|'sft')"),
    ({"method": "sft", "eta": 2.0}, r"eta: not an option of sft; allowed with rpo"),
    ({"method": "sft", "write": {"answers": 2}}, r"write.answers: not an option of sft; allowed with .*rpo"),
    ({"method": "dpo", "sequence_length": 64}, r"answers.jsonl, row 1: chosen and rejected are missing"),
    ({"method": "kto", "sequence_length": 64}, r"answers.jsonl, row 1: label is missing"),
    ({"method": "rpo", "sequence_length": 64}, r"row 1: chosen_reward and rejected_reward are missing"),
    ({"method": "sft", "sequence_length": 4096}, r"align.0.sequence_length: 4096 is more than"),
    ({"method": "sft", "sequence_length": 64, "data": ["no.jsonl"]}, r"align.0.data.0: there is no"),
    ({"method": "best_of_n", "sequence_length": 64, "write": {"max_new_tokens": 64}},
     r"write.max_new_tokens: 64 leaves no room for a prompt in sequence_length: 64"),
    ({"method": "best_of_n", "sequence_length": 64, "write": {"max_new_tokens": 8}}, r"row 1: check is missing"),
    ({"method": "best_of_n", "sequence_length": 64, "write": {"max_new_tokens": 8, "reward": "stage"}},
     r"write.reward: stage needs an earlier stage with the method `reward`"),
    ({"method": "best_of_n", "write": {"temperature": 0}}, r"answers: 4 answers at temperature 0 would be identical"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "message"), WRONG)
def test_mistakes_are_found_before_any_work(recipe, tmp_path: Path, capsys, stage: dict, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        planned(recipe(stage), tmp_path / "run")
    assert main(["run", str(write(tmp_path / "r.yaml", recipe(stage))), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_conversations_need_a_template(recipe, tmp_path: Path) -> None:
    given = recipe({"method": "sft", **STAGE})
    del given["data"]["template"]
    with pytest.raises(PrunusError, match=r"data.template: missing, but the model's tokenizer has no chat template"):
        planned(given, tmp_path / "run")


def test_the_command(recipe, teacher: Path, tmp_path: Path, capsys) -> None:
    def do(*arguments: object) -> str:
        code = main(["align", str(teacher), *map(str, arguments)])
        printed = capsys.readouterr()
        assert code == (2 if printed.err else 0)
        return printed.out + printed.err

    recipe()  # for its files
    common = ["--template", "builtin:plain", "--sequence-length", 64, "--batch-size", 4]
    pairs = tmp_path / "rewards.jsonl"
    assert "reload_difference" in do(
        "--method", "rpo", "--data", pairs, "--rounds", 2, "--out", tmp_path / "o", *common
    )
    record = json.loads((tmp_path / "o" / "artifact.json").read_text())
    assert record["config"]["learning_rate"] == 9e-6
    assert record["config"]["beta"] == 0.2
    message = do("--method", "dpo", "--data", tmp_path / "answers.jsonl", "--out", tmp_path / "p", *common)
    assert "answers.jsonl, row 1: chosen and rejected are missing" in message
    assert not (tmp_path / "p").exists()
    message = do("--method", "distil", "--data", tmp_path / "answers.jsonl", "--out", tmp_path / "p", *common)
    assert "align.teacher: missing; distil needs an aligned teacher" in message
