"""Tasks from a recipe to the report."""

import json
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.errors import PrunusError
from prunus.pipeline.override import override
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe, load_recipe
from prunus.pipeline.run import run_plan
from prunus.report.records import load_run
from prunus.report.step import write_report
from prunus.report.tasks import MISSING, NOISE, differences, health, notes, scores, speed
from prunus.steps.evaluate import check
from prunus.steps.evaluate.tasks import HARNESS, base_tasks
from tests.fake import serving
from tests.pipeline.recipes import tiny_recipe
from tests.steps.generate.making import with_template
from tests.tiny import make_model

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _few(monkeypatch) -> None:
    """The harness's own list of tasks takes it many seconds to make, where it is installed."""
    monkeypatch.setattr(check, "harness_tasks", frozenset)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """A few items of each skill."""

    def write(name: str, checks: list[dict], **more) -> str:
        asks = ["a plum tree", "once upon", "a cherry that bore", "almond"]
        rows = [
            {"messages": [{"role": "user", "content": asks[i % 4]}], "check": check, **more}
            for i, check in enumerate(checks)
        ]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(file)

    lower = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    return {
        "instruction_following": write("follow", [lower] * 4),
        "rag": write("rag", [{"answers": ["plum"]}, {"answers": []}, {"answers": ["cherry"]}]),
        "function_calling": write("call", [{"calls": [{"f": {"x": ["y"]}}]}, {"calls": []}], tools=[FUNCTION]),
        "persona": write("persona", [{"facts": ["plum"]}, {"facts": [["once"]], "judge": True}], then=["and?"]),
    }


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path, data, tmp_path: Path):
    def make(folder: Path = teacher, **changes) -> dict:
        tasks = {name: {"data": path, "max_new_tokens": 8} for name, path in data.items()}
        tasks["persona"]["kind"] = "roleplay"
        made = tiny_recipe(folder, corpus, held_out, students={"width": {"prune": {"hidden_size": 16}}})
        evaluate = {**made.get("evaluate", {}), "chat_template": "plain", "tasks": tasks, "resamples": 100}
        untrained = {"correct": {}, "distill": {**made["distill"], "tokens": 0}}
        return {**made, **untrained, "evaluate": {**evaluate, **changes}}

    return make


def planned(recipe: dict, root: Path) -> Plan:
    return make_plan(parse(Recipe, recipe, "test"), root)


def test_a_run_compares_student_teacher_and_reference(recipe, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=9)
    speedy = {"prompt_tokens": 8, "new_tokens": 2, "rounds": 1}
    plan = planned(recipe(references=[str(other)], efficiency=speedy), tmp_path / "run")
    steps = {step.name: step for step in plan.steps}
    assert steps["width evaluate"].inputs["beside"] is steps["teacher evaluate"]
    assert steps["other evaluate"].inputs["beside"] is steps["teacher evaluate"]
    assert "teacher" not in steps["other evaluate"].inputs
    run_plan(plan, QUIET)
    run = load_run(plan.root)
    table = scores(run)
    names = ["teacher", "other: reference", "width: pruned"]
    assert [row[0] for row in table.rows] == names
    assert table.header == (
        "model", "instruction_following (prompt_strict)", "rag (f1)", "function_calling (right)", "persona (consistent)"
    )  # fmt: skip
    assert all("±" in cell for row in table.rows for cell in row[1:])
    beside = {row[0]: row[1:] for row in differences(run).rows}
    assert list(beside) == names[1:]
    assert all(NOISE in cell or not cell.startswith("+0.0") for cells in beside.values() for cell in cells)
    assert len(health(run).rows) == len(table.rows)
    assert "×" in speed(run).rows[-1][-2]
    assert any("no judge is given" in note for note in notes(run))
    page = write_report(plan.root, tmp_path / "report.html").read_text()
    for part in ("Tasks: difference to the teacher", "Written answers", "Speed", "no judge is given", "a plum tree"):
        assert part in page
    folder = steps["width evaluate"].artifact.path
    results = json.loads((folder / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert len(lines) == 4 + 3 + 2 + 2
    told = results["tasks"]["instruction_following"]["metrics"]["instruction_strict"]
    pairs = [line["scores"]["instruction_strict"] for line in lines if line["task"] == "instruction_following"]
    assert told["value"] == pytest.approx(sum(a for a, _ in pairs) / sum(b for _, b in pairs))
    answers = [json.loads(line) for line in (folder / "answers" / "persona.jsonl").read_text().splitlines()]
    assert [len(line["answers"][0]) for line in answers] == [2, 2]
    assert not (folder / "checkpoints").exists()


def test_a_killed_evaluation_resumes_by_item(recipe, tmp_path: Path, monkeypatch) -> None:
    from prunus.inference import local

    write = local.generate
    every: list[int] = []
    monkeypatch.setattr(local, "generate", lambda m, b, *rest: every.extend(b) or write(m, b, *rest))
    whole = planned(recipe(), tmp_path / "whole")
    run_plan(whole, QUIET)
    asked: list[int] = []

    def killed(model, batch, *rest):
        if len(asked) > 5:
            raise KeyboardInterrupt
        asked.extend(prompt.number for prompt in batch)
        return write(model, batch, *rest)

    monkeypatch.setattr(local, "generate", killed)
    plan = planned(recipe(), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, QUIET)
    before = len(asked)
    later: list[int] = []
    monkeypatch.setattr(local, "generate", lambda m, b, *rest: later.extend(b) or write(m, b, *rest))
    run_plan(planned(recipe(), tmp_path / "run"), QUIET)
    ways = [step for step in plan.steps if step.kind == "evaluate"]
    assert len(every) > before > 0
    assert before + len(later) == len(every)
    for step, same in zip(ways, [s for s in whole.steps if s.kind == "evaluate"], strict=True):
        for name in ("items.jsonl", "answers/rag.jsonl"):
            assert (step.artifact.path / name).read_bytes() == (same.artifact.path / name).read_bytes()


def test_a_task_that_cannot_be_done_is_a_hole(recipe, tmp_path: Path, data) -> None:
    plan = planned(recipe(), tmp_path / "run")
    rows = [json.loads(line) for line in Path(data["rag"]).read_text().splitlines()]
    rows[1]["check"] = {"answers": 3}
    Path(data["rag"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_plan(plan, QUIET)
    run = load_run(plan.root)
    column = scores(run).header.index("rag")
    assert {row[column] for row in scores(run).rows} == {MISSING}
    assert all("±" in row[column - 1] for row in scores(run).rows)
    assert any("rag has no score: tasks.rag: item 2: its check cannot be read" in note for note in notes(run))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"chat_template": "own"},
            r"evaluate.tasks.instruction_following: needs a chat template, and the teacher has none",
        ),
        ({"tasks": {"rag": "no.jsonl"}}, r"evaluate.tasks.rag.data: no.jsonl: expected a file"),
        ({"tasks": ["hellaswog"]}, r"evaluate.tasks.hellaswog: unknown task .*did you mean `hellaswag`"),
        ({"references": ["./nowhere"]}, r"evaluate.references.0"),
        ({"judge": {"url": "http://a"}}, r"evaluate.judge: url and model: give both, or neither"),
        ({"tasks": {"rag": {"data": "x", "limt": 3}}}, r"evaluate.tasks.rag.limt: unknown key \(did you mean `limit`"),
    ],
)
def test_mistakes_are_found_before_any_work(recipe, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        planned(recipe(**changes), tmp_path / "run")


def test_the_models_chat_template_is_used(recipe, teacher: Path, tmp_path: Path) -> None:
    chat = with_template(teacher, tmp_path / "chat")
    names = [step.name for step in planned(recipe(chat, chat_template="own"), tmp_path / "run").steps]
    assert "width evaluate" in names


def test_a_reference_or_the_judges_address_redoes_nothing(recipe, tmp_path: Path, teacher: Path) -> None:
    def keys(**changes) -> dict[str, str]:
        return {s.name: s.artifact.key for s in planned(recipe(**changes), tmp_path / "run").steps}

    first = keys()
    more = keys(references=[str(teacher)])
    assert {name: key for name, key in more.items() if name in first} == first
    assert keys(judge={"url": "http://a", "model": "x"}) == keys(judge={"url": "http://b", "model": "x"}) != first


def test_the_command_takes_tasks_and_pairs_them(teacher: Path, held_out: Path, data, tmp_path: Path, capsys) -> None:
    words = ["evaluate", str(teacher), "--corpus", str(held_out), "--sequence-length", "24", "--chat-template", "plain"]
    words += ["--tasks", f"rag={data['rag']}", "--limit", "2"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--out", str(tmp_path / "two"), "--beside", str(tmp_path / "one")]) == 0
    found = json.loads((tmp_path / "two" / "results.json").read_text())["tasks"]["rag"]
    assert found["items"] == 2
    assert found["metrics"]["f1"]["difference"]["value"] == 0
    assert main([*words[:-4], "--tasks", "rga", "--out", str(tmp_path / "three")]) == 2
    assert "unknown task 'rga' (did you mean `rag`?)" in capsys.readouterr().err


@pytest.mark.parametrize("tasks", [{"rag": "builtin:world"}, {"rag": {"data": "builtin:world"}}, {"rag": None}])
def test_a_flag_sets_an_option_of_a_task_however_it_is_written(tasks: dict) -> None:
    raw = {"evaluate": {"tasks": tasks}}
    values = {"evaluate": {"tasks": {"rag": {"data": "builtin:world", "limit": 3}}}}
    override(raw, values, ["evaluate.tasks.rag.limit", "evaluate.tasks.rag.data"])
    assert raw == values


def test_a_flag_sets_an_option_of_a_task_that_is_only_named() -> None:
    raw = {"evaluate": {"tasks": ["base", "piqa"]}}
    override(
        raw, {"evaluate": {"tasks": {"base": {"limit": 3}, "piqa": {"limit": None}}}}, ["evaluate.tasks.base.limit"]
    )
    assert raw == {"evaluate": {"tasks": {"base": {"limit": 3}, "piqa": {}}}}


def test_a_judge_grades_answers_to_a_command(teacher: Path, held_out: Path, data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    words = ["evaluate", str(teacher), "--corpus", str(held_out), "--sequence-length", "24", "--chat-template", "plain"]
    words += ["--tasks", f"roleplay={data['persona']}", "--judge.model", "judge", "--out", str(tmp_path / "out")]
    with serving() as fake:
        fake.reply = lambda body: {
            "message": {"content": f"[[{3 if 'and?' in body['messages'][1]['content'] else 6}]]"}
        }
        assert main([*words, "--judge.url", fake.url]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]["roleplay"]
    assert found["first"] == "judge"
    assert found["judge"] == {
        "asked": 2, "graded": 2, "malformed": 0, "missing": 0, "refused": 0, "failed": 0, "hole": None
    }  # fmt: skip
    values = {name: figure["value"] for name, figure in found["metrics"].items() if name.startswith("judge")}
    assert values == {"judge": 4.5, "judge_turn_1": 6.0, "judge_turn_2": 3.0}
    assert found["metrics"]["judge"]["items"] == 1  # the other is judged by rule
    assert len((tmp_path / "out" / "judgements.jsonl").read_text().splitlines()) == 2


def test_the_shipped_recipe_has_the_papers_counts() -> None:
    """Each written out, and none other than what the task's name alone stands for."""
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "minitron-base-tasks.yaml")
    asked = recipe.evaluate.all_tasks()
    assert list(asked) == base_tasks(run_code=True)
    assert {name: task.num_fewshot for name, task in asked.items()} == {
        name: HARNESS[name].num_fewshot for name in asked
    }
