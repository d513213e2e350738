import json
import shutil
import sys
from pathlib import Path

import pytest

from prunus.config import parse
from prunus.errors import DataError, HubError, PrunusError, RecipeError
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe, load_recipe
from tests.pipeline.recipes import tiny_recipe


@pytest.fixture
def plan(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path):
    def make(**changes) -> Plan:
        recipe = tiny_recipe(teacher, corpus, held_out, **changes)
        return make_plan(parse(Recipe, recipe, "test"), tmp_path / "run")

    return make


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def keys(plan: Plan) -> dict[str, str]:
    return {step.name: step.artifact.key for step in plan.steps}


def test_steps_stand_after_what_they_need(plan) -> None:
    steps = plan().steps
    for number, step in enumerate(steps):
        needed = [given for given in step.inputs.values() if hasattr(given, "artifact")]
        assert all(given in steps[:number] for given in needed), step.name


def test_the_whole_list(plan) -> None:
    assert names(plan()) == [
        "data corpus",
        "data held_out",
        "teacher evaluate-original",
        "teacher correct",
        "teacher evaluate",
        "teacher score",
        "width prune",
        "width evaluate-pruned",
        "width distill",
        "width evaluate",
        "depth prune",
        "depth evaluate-pruned",
        "depth distill",
        "depth evaluate",
        "scratch prune",
        "scratch distill",
        "scratch evaluate",
    ]


def test_what_is_off_is_left_out(plan) -> None:
    steps = names(
        plan(correct={}, distill={"tokens": 0}, students={"r": {"prune": {"importance": "random", "hidden_size": 16}}})
    )
    assert steps == ["data corpus", "data held_out", "teacher evaluate", "r prune", "r evaluate"]


def test_a_late_option_changes_only_what_depends_on_it(plan, teacher) -> None:
    def changed(**changes) -> set[str]:
        before, after = keys(plan()), keys(plan(**changes))
        return {name for name in before if before[name] != after[name]}

    distill = tiny_recipe(teacher, teacher, teacher)["distill"]
    students = {f"{name} {step}" for name in ("width", "depth", "scratch") for step in ("distill", "evaluate")}
    assert changed(distill={**distill, "learning_rate": 2e-3}) == students
    assert changed(runtime={"device_batch_size": 2, "device": "cpu", "workers": 1}) == set()
    assert changed(score={"samples": 8, "sequence_length": 16}) >= {"teacher score", "width prune", "depth evaluate"}
    assert "scratch prune" not in changed(score={"samples": 8, "sequence_length": 16})
    evaluations = {name for name in keys(plan()) if "evaluate" in name}
    assert changed(evaluate={"sequence_length": 16}) == evaluations


def test_a_moved_teacher_redoes_nothing_and_another_redoes_all(plan, teacher, tmp_path) -> None:
    moved = shutil.copytree(teacher, tmp_path / "moved")
    assert keys(plan()) == keys(plan(teacher=str(moved)))
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    assert keys(plan())["width prune"] != keys(plan(teacher=str(moved)))["width prune"]


def test_like_takes_the_shape_and_nothing_else(plan) -> None:
    made = plan()
    assert made.students["scratch"] == made.students["width"]
    step = next(step for step in made.steps if step.name == "scratch prune")
    assert step.config.init == "random"
    assert step.config.like is None


def test_costs_are_those_of_the_arithmetic(plan) -> None:
    made = plan()
    costs = {step.name: cost_of(step, made) for step in made.steps}
    width, teacher = made.students["width"], made.teacher
    expected = 1024 * (3 * width.flops_per_token(16) + teacher.flops_per_token(16))
    assert costs["width distill"].tokens == 1024
    assert costs["width distill"].flops == expected
    assert costs["teacher correct"].flops == 512 * 3 * teacher.flops_per_token(16)
    assert costs["width prune"].disk_bytes == 4 * width.parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "./nowhere"}, "teacher.path: there is no folder"),
        ({"teacher": {"create": {}}, "correct": {}}, "correct.tokens: 0, but teacher.create"),
        ({"teacher": {"create": {"hidden_size": 100, "num_attention_heads": 8}}}, "teacher.create.hidden_size: 100"),
        ({"students": {"w": {"prune": {"hidden_size": 20}}}}, r"students.w.prune.hidden_size: 20 .*16 and 24"),
        ({"students": {"w": {"prune": {"hidden_size": 64}}}}, "students.w.prune.hidden_size: 64 is more than"),
        ({"students": {"w": {"prune": {"num_hidden_layers": 9}}}}, "students.w.prune.num_hidden_layers: 9 is more"),
        ({"students": {"w": {"prune": {"hidden_size": 32}}}}, "students.w.prune: nothing is cut"),
        ({"score": {"sequence_length": 4096}}, "score.sequence_length: 4096 is more than the model's context of 128"),
        ({"data": {"corpus": ["nowhere.jsonl"]}}, "data.corpus.0: there is no file"),
    ],
)
def test_mistakes_are_found_before_any_work(plan, tmp_path, changes, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        plan(**changes)
    assert not (tmp_path / "run").exists()


def test_a_missing_column(plan, corpus) -> None:
    with pytest.raises(PrunusError, match=r"data.held_out.0.column: .*did you mean `text`"):
        plan(data={"corpus": [str(corpus)], "held_out": [{"path": str(corpus), "column": "texts"}]})


def test_trackers_that_are_not_installed(plan, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrunusError, match="pip install wandb"):
        plan(runtime={"trackers": ["wandb"]})


def test_what_the_harness_lacks_is_found_before_any_work(plan, monkeypatch) -> None:
    from prunus.steps.evaluate import check

    needed = ["numpy>=1", "no-such-package>=2", "another-one; extra == 'more'", "third; python_version < '3'"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needed)
    check._not_installed.cache_clear()
    with pytest.raises(RecipeError, match="installed without no-such-package, which it needs; `pip install"):
        plan(evaluate={"tasks": ["piqa"]})
    check._not_installed.cache_clear()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "there are no weights"),
        (lambda f: (f / "tokenizer.json").unlink() or (f / "tokenizer_config.json").unlink(), "there is no tokenizer"),
        (lambda f: (f / "config.json").write_text('{"model_type": "mamba"}'), "no axis table for model_type 'mamba'"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "not a safetensors file"),
    ],
)
def test_a_spoilt_teacher(plan, teacher, tmp_path, spoil, message: str) -> None:
    folder = shutil.copytree(teacher, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(PrunusError, match=message):
        plan(teacher=str(folder))


def test_a_recipe_can_be_planned_before_its_teacher_is_here(monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    recipe = load_recipe("recipes/llama-3.1-minitron-4b.yaml")
    made = make_plan(recipe, Path("runs/x"), preview=True)
    assert made.students["width"].parameters == 4_512_746_496
    assert made.students["depth"].parameters == 4_540_469_248
    assert len(made.missing) == 3
    with pytest.raises(HubError, match=r"teacher\.path"):
        make_plan(recipe, Path("runs/x"))


def test_a_cut_vocabulary_has_separate_tokens_and_measures(plan, teacher) -> None:
    students = {"words": {"prune": {"vocab_size": 280}, "distill": {"loss": "cross_entropy"}}}
    made = plan(students=students)
    steps = {step.name: step for step in made.steps}
    assert steps["words prune"].inputs["tokens"] is steps["data corpus"]
    assert steps["words distill"].inputs["tokens"] is steps["data corpus-words"]
    assert steps["data corpus-words"].inputs["tokenizer"] is steps["words prune"]
    assert "teacher" not in steps["words evaluate"].inputs
    made = plan(students={"words": {"prune": {"vocab_size": 280}}})
    assert step_of(made, "words distill").inputs["teacher"] is step_of(made, "teacher correct")


def step_of(plan: Plan, name: str):
    return next(step for step in plan.steps if step.name == name)


def test_scoring_collects_what_the_students_read(plan, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text(json.dumps({"context": "once upon", "continuation": "a time"}) + "\n")
    students = {
        "width": {"prune": {"hidden_size": 16, "intermediate_size": 24, "importance": {"neurons": "fisher"}}},
        "depth": {"prune": {"num_hidden_layers": 2, "importance": {"layers": "lm_loss"}}},
        "task": {"prune": {"num_hidden_layers": 3, "drop_layers": "single", "importance": {"layers": "accuracy"}}},
    }
    asked = {"samples": 8, "sequence_length": 16, "collect": ["mean"], "task": str(task), "blocks": [3]}
    made = plan(students=students, score=asked)
    config = step_of(made, "teacher score").config
    assert config.collect == ("mean", "gradients", "covariance", "gradient_covariance", "lm_loss", "accuracy")
    assert config.blocks == (1, 2, 3)  # what a cut reads, and what was asked for
    assert step_of(made, "teacher score").inputs["task"].value == task
    assert cost_of(step_of(made, "teacher score"), made).tokens > 8 * 16
    with pytest.raises(PrunusError, match="task: missing; `accuracy` needs a file of questions"):
        plan(students=students)
    task.write_text(json.dumps({"query": "?", "choices": ["a", "b"], "gold": "A"}) + "\n")
    with pytest.raises(PrunusError, match="line 1: gold is 'A'; expected a number from 0 to 1"):
        plan(students=students, score={"samples": 8, "sequence_length": 16, "task": str(task)})
    task.write_text(json.dumps({"question": "?"}) + "\n")
    with pytest.raises(PrunusError, match=r"line 1 has question; expected \{context, continuation\} or"):
        plan(students=students, score={"samples": 8, "sequence_length": 16, "task": str(task)})


def test_layers_named_by_number_need_no_scores(plan) -> None:
    assert "teacher score" not in names(plan(students={"d": {"prune": {"drop_layers": [1]}}}))


def test_healing_reads_the_corpus_and_costs_something(plan) -> None:
    made = plan(students={"d": {"prune": {"num_hidden_layers": 2, "heal": {"depth": "linear"}}}})
    assert step_of(made, "d prune").inputs["tokens"] is step_of(made, "data corpus")
    assert cost_of(step_of(made, "d prune"), made).flops > 0
    unread = plan(students={"d": {"prune": {"num_hidden_layers": 2, "check_samples": 0, "heal": "none"}}})
    assert "tokens" not in step_of(unread, "d prune").inputs
    checked = plan(students={"d": {"prune": {"num_hidden_layers": 2, "heal": "none"}}})
    assert "tokens" in step_of(checked, "d prune").inputs
    tried = plan(students={"d": {"prune": {"num_hidden_layers": 2, "check_samples": 0}}})
    assert cost_of(step_of(tried, "d prune"), tried).flops > 0  # a refit is tried where nobody says
    assert "tokens" not in step_of(plan(), "scratch prune").inputs
    refitted = plan(
        students={"d": {"prune": {"num_hidden_layers": 2, "importance": {"layers": "refit"}, "heal": "none"}}}
    )
    step = step_of(refitted, "d prune")
    assert step.inputs["tokens"] is step_of(refitted, "data corpus")
    assert "scores" not in step.inputs
    assert cost_of(step, refitted).flops == 1.5 * cost_of(step_of(made, "d prune"), made).flops  # three blocks, by half


def test_a_student_from_scratch_has_no_states_to_compare(plan) -> None:
    made = plan()
    assert step_of(made, "width distill").config.states.weight == 1
    assert step_of(made, "scratch distill").config.states.weight == 0


def test_like_takes_a_shape_and_nothing_else(plan) -> None:
    students = {
        "a": {"prune": {"hidden_size": 16, "drop_layers": [1], "method": "minitron", "importance": "taylor"}},
        "b": {"prune": {"like": "a"}},
    }
    made = plan(students=students)
    a, b = (step_of(made, f"{name} prune").config for name in "ab")
    assert (b.hidden_size, b.drop_layers) == (a.hidden_size, a.drop_layers)
    assert (b.method, b.importance.neurons.criterion) == ("auto", "activation")


def test_students_share_the_stages_that_they_have_in_common(plan, corpus: Path, held_out: Path) -> None:
    world = {"path": "builtin:world", "name": "chat", "world": {"conversations": 20}}
    stage = {"method": "sft", "data": [world], "sequence_length": 64, "longer": "drop", "batch_size": 2}
    other = {**stage, "seed": 5}
    students = {
        name: {"prune": {"num_hidden_layers": 2}, "align": stages}
        for name, stages in {"a": [stage, stage], "b": [stage, other], "c": [other, stage]}.items()
    }
    data = {"corpus": [str(corpus)], "held_out": [str(held_out)], "template": "builtin:plain"}
    made = plan(students=students, data=data)
    places = {step.name: step.artifact.path for step in made.steps}
    assert places["b align-1-sft"] == places["a align-1-sft"] != places["c align-1-sft"]
    assert places["b align-2-sft"] != places["a align-2-sft"]
    assert step_of(made, "b align-2-sft").inputs["model"].artifact.path == places["a align-1-sft"]


def test_a_teacher_is_aligned_before_anything_else(plan) -> None:
    world = {"path": "builtin:world", "name": "chat", "world": {"conversations": 20}}
    stage = {"method": "sft", "sequence_length": 64, "longer": "drop", "batch_size": 2}
    create = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 8}
    made = plan(
        teacher={"create": {**create, "vocab_size": 300, "chat": True}, "align": [{**stage, "data": [world]}]},
        evaluate={"sequence_length": 32, "tasks": {"rag": {"data": "builtin:world", "limit": 4}}},
    )
    names = [step.name for step in made.steps]
    assert names.index("teacher align-1-sft") < names.index("teacher evaluate") < names.index("teacher score")
    aligned = next(step for step in made.steps if step.name == "teacher align-1-sft")
    assert all(step.inputs["model"] is aligned for step in made.steps if step.label in ("score", "prune"))
    assert aligned.config.seed == 3  # the recipe's


def test_mistakes_in_a_teachers_stages_are_reported_by_their_path(plan) -> None:
    stage = {"method": "sft", "sequence_length": 64, "batch_size": 2}
    with pytest.raises(PrunusError, match=r"teacher.align.0.data: missing"):
        plan(teacher={"create": {"chat": True, "vocab_size": 300}, "align": [stage]})
    bad = {"path": "builtin:world", "name": "chatt"}
    with pytest.raises(PrunusError, match=r"teacher.align.0.data.0.name: .*did you mean `chat`"):
        plan(teacher={"create": {"chat": True, "vocab_size": 300}, "align": [{**stage, "data": [bad]}]})


def test_a_teacher_grows_before_it_is_corrected(plan, teacher) -> None:
    made = plan(teacher={"path": str(teacher), "expand": {"num_hidden_layers": 6}})
    steps = {step.name: step for step in made.steps}
    assert made.teacher.num_hidden_layers == 6
    assert steps["teacher correct"].inputs["model"] is steps["teacher expand"]
    assert steps["teacher evaluate-original"].inputs["model"] is steps["teacher expand"]
    assert steps["teacher expand"].config.seed == 3  # the recipe's


def test_a_teacher_that_cannot_grow(plan, teacher) -> None:
    with pytest.raises(PrunusError, match=r"teacher.expand.intermediate_size: 8 is less than the model's 48"):
        plan(teacher={"path": str(teacher), "expand": {"intermediate_size": 8}})
    with pytest.raises(PrunusError, match=r"correct.tokens: 0, but the weights that teacher.expand adds"):
        plan(teacher={"path": str(teacher), "expand": {"num_hidden_layers": 8}}, correct={})


@pytest.mark.parametrize(("count", "fraction", "side"), [(1, 0.02, "held_out"), (1, 0.999999, "train")])
def test_text_of_which_one_side_has_no_document_is_refused_before_any_work(
    plan, tmp_path: Path, count: int, fraction: float, side: str
) -> None:
    file = tmp_path / "one.txt"
    file.write_text("A plum.\n" * count, encoding="utf-8")
    data = {"corpus": [str(file)], "held_out_fraction": fraction}
    with pytest.raises(DataError, match=rf"data {'corpus' if side == 'train' else side}: no document .* side '{side}'"):
        plan(data=data)


def test_one_text_file_is_a_corpus_with_a_part_held_out(plan, tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("".join(f"{'plum ' * 250}{number}\n\n" for number in range(40)), encoding="utf-8")
    assert names(plan(data={"corpus": [str(file)], "held_out_fraction": 0.2}))[:2] == ["data corpus", "data held_out"]


def test_all_mistakes_are_reported_at_once(plan) -> None:
    with pytest.raises(RecipeError) as error:
        plan(
            data={"corpus": ["nowhere.jsonl"], "held_out": ["neither.jsonl"]},
            students={"a": {"prune": {"hidden_size": 999}}, "b": {"prune": {"num_hidden_layers": 77}}, "c": {}},
            score={"sequence_length": 4096},
            evaluate={"tasks": {"rag": "gone.jsonl"}},
        )
    text = str(error.value)
    assert "cannot be carried out; 8 mistakes:" in text
    parts = ["students.a.prune.hidden_size: 999", "students.b.prune.num_hidden_layers: 77", "nothing is cut"]
    parts += ["score.sequence_length: 4096", "nowhere.jsonl", "neither.jsonl", "gone.jsonl", "needs a chat template"]
    assert not [part for part in parts if part not in text]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": {"times": 2, "tasks": {"a": "nowhere.jsonl"}}}, "distill.validation.tasks: conversations need"),
        ({"validation": 2, "runtime": {"shard": True}}, "distill.validation: not with runtime.shard: true"),
    ],
)
def test_validation_that_cannot_work(plan, changes: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.distributed.is_group", lambda: True)
    monkeypatch.setattr("prunus.training.plan.version", lambda _: "5.23.0")  # earlier ones cannot shard at all
    runtime = {"runtime": changes.pop("runtime")} if "runtime" in changes else {}
    with pytest.raises(RecipeError, match=message):
        plan(distill={"tokens": 1024, "sequence_length": 16, "batch_size": 4, **changes}, **runtime)


def test_validation_reads_the_held_out_text_in_the_last_training_alone(plan) -> None:
    via = {"num_hidden_layers": 3, "tokens": 512}
    changes = {"students": {"w": {"prune": {"num_hidden_layers": 2, "via": via}}}}
    distill = {"tokens": 1024, "sequence_length": 16, "batch_size": 4}
    plans = [plan(**changes, distill={**distill, "validation": times}) for times in (0, 3)]
    made = [{step.name: step for step in one.steps} for one in plans]
    assert made[1]["w distill"].inputs["held_out"] == made[1]["data held_out"]
    assert "held_out" not in made[0]["w distill"].inputs
    for name in ("w distill-via", "w prune"):
        assert made[0][name].fingerprint == made[1][name].fingerprint
    costs = [cost_of(step["w distill"], one).flops for step, one in zip(made, plans, strict=True)]
    assert costs[0] < costs[1]
