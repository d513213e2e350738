"""Generation in recipes and commands: `distill: {data: teacher}`."""

import json
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.errors import PrunusError
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.report.records import load_run
from prunus.report.table import comparison
from tests.pipeline.recipes import tiny_recipe, write
from tests.steps.generate.making import with_template, write_rows

pytestmark = pytest.mark.slow

GENERATE = {"samples": 40, "prompt_tokens": 8, "max_new_tokens": 16}
STUDENTS = {
    "own": {"prune": {"hidden_size": 16}, "distill": {"data": "teacher"}},
    "read": {"prune": {"hidden_size": 16}},
}


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path):
    def make(**changes) -> dict:
        return tiny_recipe(teacher, corpus, held_out, **{"students": STUDENTS, "generate": GENERATE, **changes})

    return make


def planned(recipe: dict, root: Path) -> Plan:
    return make_plan(parse(Recipe, recipe, "test"), root)


def test_a_student_trains_on_what_its_teacher_wrote(recipe, tmp_path: Path) -> None:
    plan = planned(recipe(), tmp_path / "run")
    run_plan(plan, Console(quiet=True))
    steps = {step.name: step for step in plan.steps}
    names = list(steps)
    assert names.index("teacher correct") < names.index("teacher generate") < names.index("own prune")
    written = steps["teacher generate"]
    assert written.inputs == {"model": steps["teacher correct"], "tokens": steps["data corpus"]}
    assert written.config.seed == 3
    assert steps["own distill"].inputs["tokens"] is written
    assert steps["read distill"].inputs["tokens"] is steps["data corpus"]
    tokens = Tokens.open(written.artifact.path)
    assert tokens.answers is not None
    assert set((tokens.answers[:, 0] - tokens.starts).tolist()) == {8}
    metrics = json.loads((written.artifact.path / "artifact.json").read_text())["metrics"]
    assert metrics["documents"] + metrics["dropped"] == 40
    assert metrics["prompt_tokens"] + metrics["answer_tokens"] == metrics["tokens"] == len(tokens.ids)
    rows = {row[0]: float(row[4].split()[0]) for row in comparison(load_run(plan.root))}
    assert rows["own: pruned + distilled"] < rows["own: pruned"]


def test_the_plan_shows_what_writing_costs(recipe, tmp_path: Path, capsys) -> None:
    plan = planned(recipe(), tmp_path / "run")
    step = next(step for step in plan.steps if step.name == "teacher generate")
    cost = cost_of(step, plan)
    assert cost.tokens == 40 * 24
    assert cost.flops == 40 * 24 * plan.teacher.flops_per_token(24)
    assert cost.memory_bytes == 4 * plan.teacher.parameters + 8 * 24 * plan.teacher.kv_cache_bytes(4)
    assert cost.disk_bytes > cost.tokens * 4
    served = planned(
        recipe(generate={**GENERATE, "server": {"url": "http://localhost:1", "model": "x"}}), tmp_path / "run"
    )
    step = next(step for step in served.steps if step.name == "teacher generate")
    assert (cost_of(step, served).flops, cost_of(step, served).memory_bytes) == (0, 0)
    assert main(["plan", str(write(tmp_path / "r.yaml", recipe()))]) == 0
    assert "teacher generate" in capsys.readouterr().out


def test_it_is_not_done_for_nobody(recipe, tmp_path: Path) -> None:
    for changes in ({"students": {"read": STUDENTS["read"]}}, {"distill": {"tokens": 0}}):
        assert "teacher generate" not in [step.name for step in planned(recipe(**changes), tmp_path / "run").steps]


def test_where_the_server_stands_is_no_part_of_the_name(recipe, tmp_path: Path) -> None:
    def key(**server) -> str:
        plan = planned(recipe(generate={**GENERATE, "server": server}), tmp_path / "run")
        return next(step.artifact.key for step in plan.steps if step.name == "teacher generate")

    first = key(url="http://a", model="x")
    assert key(url="https://b/v1", model="x", concurrency=3) == first
    assert first not in (key(), key(url="http://a", model="y"))


def test_what_the_prompts_hold_decides(recipe, tmp_path: Path) -> None:
    def step_for(*texts: str):
        file = write_rows(tmp_path / "x.jsonl", *texts, column="text")
        plan = planned(recipe(generate={**GENERATE, "prompts": [str(file)]}), tmp_path / "run")
        return next(step for step in plan.steps if step.name == "teacher generate")

    first, second = step_for("a plum"), step_for("a cherry")
    assert set(first.inputs) == {"model", "prompts"}
    assert first.artifact.key != second.artifact.key


CUT = {"prune": {"vocab_size": 280}, "distill": {"loss": "cross_entropy", "data": "teacher"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": {"w": CUT}}, r"students.w.distill.data: the teacher writes with its full vocabulary, .*: corpus"),
        ({"generate": {}}, r"generate.max_new_tokens: 512 after a prompt of 32 .* allowed: at most 96"),
        ({"generate": {"max_new_tokens": 4, "prompts": ["no.jsonl"]}}, r"generate.prompts.0: there is no file"),
        ({"generate": {"server": {"url": "http://a"}}}, r"generate.server: url and model: give both, or neither"),
        ({"generate": {"top_p": 0}}, r"generate.top_p"),
        ({"generate": {"prompts": ["a", {"path": "b", "weight": 1}]}}, r"prompts: either every source has a weight"),
    ],
)
def test_mistakes_are_found_before_any_work(recipe, tmp_path: Path, capsys, changes, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        planned(recipe(**changes), tmp_path / "run")
    file = write(tmp_path / "r.yaml", recipe(**changes))
    assert main(["run", str(file), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_conversations_need_a_template(recipe, teacher: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", [{"role": "user", "content": "a plum?"}])
    asks = {**GENERATE, "prompts": [{"path": str(file), "column": "messages"}]}
    with pytest.raises(PrunusError, match=r"generate.prompts.0.column: .* no chat template"):
        planned(recipe(generate=asks), tmp_path / "run")
    chat = with_template(teacher, tmp_path / "chat")
    assert planned(recipe(teacher=str(chat), generate=asks), tmp_path / "run").steps


def test_the_commands(teacher: Path, corpus: Path, tmp_path: Path, capsys) -> None:
    def do(*arguments: str | Path | int) -> str:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert code == (2 if printed.err else 0)
        return printed.err or printed.out

    written, out = tmp_path / "written", ["--out", tmp_path / "out"]
    options = ["--samples", 20, "--prompt-tokens", 8, "--max-new-tokens", 16]
    assert "answer_tokens" in do("generate", teacher, "--corpus", corpus, *options, "--out", written)
    assert "--corpus or --prompts: give exactly one" in do("generate", teacher, *out)
    asks = write_rows(tmp_path / "x.jsonl", [{"role": "user", "content": "a plum?"}])
    asks = ["--prompts", asks, "--column", "messages", *options]
    assert "no chat template" in do("generate", teacher, *asks, *out)
    chat = with_template(teacher, tmp_path / "chat")
    assert "answer_tokens" in do("generate", chat, *asks, "--out", tmp_path / "answers")
    assert "allowed: at most 96" in do("generate", teacher, "--corpus", corpus, *out)
    by_chance = ["--importance.channels.criterion", "random", "--method", "minitron"]
    do("prune", teacher, *by_chance, "--hidden-size", 16, "--out", tmp_path / "cut")
    student = ["distill", tmp_path / "cut", "--teacher", teacher, "--tokens", 256, "--sequence-length", 16]
    student += ["--batch-size", 4, "--warmup-steps", 1]
    do(*student, "--generated", written, "--out", tmp_path / "student")
    record = json.loads((tmp_path / "student" / "artifact.json").read_text())
    assert record["config"]["data"] == "teacher"
    assert record["inputs"]["tokens"] == json.loads((written / "artifact.json").read_text())["key"]
    assert "was written by another model" in do(*student[:3], chat, *student[4:], "--generated", written, *out)
    assert "--corpus or --generated: give exactly one" in do(*student, *out)
    assert "--data: teacher needs --generated" in do(*student, "--corpus", corpus, "--data", "teacher", *out)
    assert "is the result of `prunus prune`" in do(*student, "--generated", tmp_path / "cut", *out)
