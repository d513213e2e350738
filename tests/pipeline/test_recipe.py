from pathlib import Path

import pytest

from prunus.errors import RecipeError
from prunus.pipeline.recipe import load_recipe
from tests.pipeline.recipes import tiny_recipe, write

ROOT = Path(__file__).parents[2]


def recipe(tmp_path: Path, **changes):
    raw = tiny_recipe(Path("teacher"), Path("a.jsonl"), Path("b.jsonl"), **changes)
    return load_recipe(write(tmp_path / "small.yaml", raw))


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_recipe_loads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRUNUS_DATA", "PRUNUS_MODELS"):
        monkeypatch.setenv(name, "somewhere")
    assert load_recipe(file).name == file.stem


def test_students_inherit_what_they_leave_out(tmp_path: Path) -> None:
    students = {"a": {"distill": {"learning_rate": 5e-4, "seed": 8}}, "b": None}
    loaded = recipe(tmp_path, students=students)
    a, b = loaded.students["a"].distill, loaded.students["b"].distill
    assert (a.learning_rate, a.seed, a.tokens) == (5e-4, 8, 1024)
    assert (b.learning_rate, b.seed) == (1e-3, 3)
    assert loaded.correct.seed == loaded.score.seed == loaded.students["a"].prune.seed == 3
    assert loaded.name == "small"


def test_tokens_of_all_students_are_enough(tmp_path: Path) -> None:
    students = {"a": {"distill": {"tokens": 2048}}, "b": {"merge": {"of": ["a", "a"]}}}
    loaded = recipe(tmp_path, students=students, distill={"learning_rate": 5e-4})
    assert {name: (one.distill.tokens, one.distill.learning_rate) for name, one in loaded.students.items()} == {
        "a": (2048, 5e-4),
        "b": (0, 5e-4),
    }
    with pytest.raises(RecipeError, match="distill.tokens: missing"):
        recipe(tmp_path, students=students | {"c": {}}, distill={"learning_rate": 5e-4})


def test_one_source_of_text_needs_no_list(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, data={"corpus": "a.jsonl", "chat": {"path": "c.jsonl"}, "held_out": "b.jsonl"})
    assert [[each.path for each in part] for part in (loaded.data.corpus, loaded.data.chat, loaded.data.held_out)] == [
        ["a.jsonl"],
        ["c.jsonl"],
        ["b.jsonl"],
    ]


def test_names_and_numbers_of_yaml_1_2(tmp_path: Path) -> None:
    """A student may be called by what YAML 1.1 takes for a date, a number or a truth value, and 1e-4 is a number."""
    names = ["2024-01-01", "12", "010", "1e4", "no", "true", "null", "a" * 100]
    raw = tiny_recipe(Path("teacher"), Path("a.jsonl"), Path("b.jsonl"), students={"x": None})
    text = write(tmp_path / "small.yaml", raw).read_text()
    text = text.replace("  x: null\n", "".join(f"  {name}: null\n" for name in names))
    text = text.replace("learning_rate: 0.001\n", "learning_rate: 1e-3\n")
    assert "1e-3" in text
    (tmp_path / "small.yaml").write_text(text)
    loaded = load_recipe(tmp_path / "small.yaml")
    assert list(loaded.students) == names
    assert loaded.students["no"].distill.learning_rate == 1e-3


def test_variables_are_filled_in_or_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHERS", "/models")
    assert recipe(tmp_path, teacher="${TEACHERS}/big").teacher.path == "/models/big"
    monkeypatch.delenv("TEACHERS")
    with pytest.raises(RecipeError, match=r"teacher: the environment variable TEACHERS is not set"):
        recipe(tmp_path, teacher="${TEACHERS}/big")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"studnets": {}}, r"studnets: unknown key \(did you mean `students`\?\)"),
        (
            {"students": {"w": {"prune": {"hiden_size": 3}}}},
            r"students.w.prune.hiden_size: unknown key \(did you mean `hidden_size`\?\); allowed here: hidden_size, .*"
            r" and \d+ more \(all: `--help students.w.prune`\)$",
        ),
        (
            {"distill": {"tokens": 9000, "loss": "forwrd_kl"}},
            r"distill.loss: .*\(did you mean `forward_kl`\?\) \(found",
        ),
        ({"students": {}}, "students: expected at least 1"),
        ({"students": {"data": {}}}, "'data' is not a valid student name"),
        ({"students": {"a/b": {}}}, "not a valid student name"),
        ({"students": {"a": {"prune": {"like": "b"}}}}, "a.prune.like: 'b' is not another student with sizes"),
        ({"students": {"a" * 101: {}}}, "101 characters; allowed: 100, since the name becomes part of folder names"),
        ({"students": {"x" * 300: {}}}, "300 characters"),
        ({"name": "x" * 101}, "name: .*at most 100"),
        ({"evaluate": {"tasks": {"ü" * 51: "builtin:world"}}}, "too long for file names; allowed: 100"),
        ({"teacher": 5}, "teacher"),
        ({"teacher": {"path": 5}}, r"teacher.path: expected text; put it in quotes \(found 5\)"),
        ({"teacher": {"path": "x" * 999, "revision": []}}, "teacher.revision: expected text"),
        ({"distill": {"tokens": "9" * 5000}}, r"distill.tokens: .*\.\.\.\)"),
        ({"distill": {"tokens": "many"}}, r"distill.tokens: .*\(found 'many'\)"),
        ({"distill": {}}, "distill.tokens: missing"),
        ({"distill": {"tokens": 10, "sequence_length": 16, "batch_size": 4}}, "10 are less than one step"),
        (
            {"distill": {"tokens": 9000, "learning_rate": 1e-6, "min_learning_rate": 1e-5}},
            "min_learning_rate: 1e-05 is above",
        ),
        ({"distill": {"tokens": 9000, "learning_rate": float("nan")}}, "learning_rate"),
        (
            {"distill": {"tokens": 9000, "batch_size": 1, "sequence_length": 8192, "warmup_steps": 40}},
            "warmup_steps: 40 leaves nothing of 1 steps",
        ),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"name": "../up"}, "name: expected text that matches"),
        ({"runtime": {"device": "gpu"}}, "runtime.device: .*cuda"),
        (
            {"students": {"a": {"prune": {"hidden_size": True}}}},
            "a.prune.hidden_size: expected a number, got a boolean",
        ),
        ({"students": {"a": {"prune": {"drop_layers": 3.5}}}}, r"students.a.prune.drop_layers: "),
        (
            {"students": {"a": {"prune": {"hidden_size": 8}}, "b": {"prune": {"like": "a", "hidden_size": 4}}}},
            "b.prune: hidden_size and like cannot both be given",
        ),
        ({"students": {"a": {"prune": {"like": "a"}}}}, r"'a' is not another student with sizes; allowed: \[\]"),
        ({"teacher": {}}, "give either path or create"),
        ({"students": {"d": {"prune": {"drop_layers": "single", "importance": {"layers": "refit"}}}}}, "ranks blocks"),
        ({"teacher": {"path": "a", "create": {}}}, "give either path or create"),
        ({"teacher": {"create": {}, "expand": {"num_hidden_layers": 9}}}, "expand: cannot be combined with create"),
        ({"teacher": {"path": "a", "expand": {}}}, "teacher.expand: nothing to expand"),
        ({"data": {"corpus": []}}, "data.corpus: expected at least 1"),
        ({"runtime": {"trackers": ["mlflow"]}}, "runtime.trackers.0: .*'tensorboard'"),
        ({"score": 3}, "score"),
        ({"students": [1]}, "students"),
    ],
)
def test_mistakes_are_reported_where_they_are(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        recipe(tmp_path, **changes)
    assert "small.yaml" in str(error.value)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(tmp_path, studnets=1, distill={"tokens": -1})
    assert "studnets" in str(error.value)
    assert "distill.tokens" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("seed: 1\nseed: 2\n", "duplicate key 'seed'"),
        ("- 1\n", "expected a mapping with teacher, data"),
        ("", "the file is empty"),
        ("# nothing", "expected a mapping with teacher, data"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "r.yaml")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_an_inherited_mistake_is_reported_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(tmp_path, distill={"tokenz": 5})
    assert str(error.value).count("tokenz") == 1
    assert "found {" not in str(error.value)
