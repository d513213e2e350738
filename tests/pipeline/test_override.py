import copy

from prunus.config import parse
from prunus.pipeline.override import override
from prunus.pipeline.recipe import Recipe

RAW = {
    "teacher": "folder",
    "data": {"corpus": ["a.jsonl", {"path": "b.jsonl"}]},
    "students": {"my-width": {"prune": {"hidden_size": 16}}, "depth": None},
    "distill": {"tokens": 4096, "sequence_length": 16, "batch_size": 4},
}


def overridden(**values) -> Recipe:
    """RAW with dotted names set, as flags would."""
    raw = copy.deepcopy(RAW)
    parsed = parse(Recipe, raw, "test").model_dump(mode="json")
    for flag, value in values.items():
        target = parsed
        *path, last = flag.split("__")
        for key in path:
            target = target[int(key) if isinstance(target, list) else key.replace("my_width", "my-width")]
        target[last] = value
    override(raw, parsed, [flag.replace("__", ".").replace("_", "-") for flag in values])
    return parse(Recipe, raw, "test")


def test_a_flag_is_inherited_as_its_line_would_be() -> None:
    recipe = overridden(distill__learning_rate=3e-4, seed=9)
    assert recipe.students["my-width"].distill.learning_rate == 3e-4
    assert recipe.students["depth"].distill.seed == 9


def test_a_students_flag_does_not_change_the_others() -> None:
    recipe = overridden(students__my_width__prune__hidden_size=8, students__depth__distill__tokens=8192)
    assert recipe.students["my-width"].prune.hidden_size == 8
    assert recipe.students["my-width"].distill.tokens == 4096
    assert recipe.students["depth"].distill.tokens == 8192


def test_shorthands_are_written_out() -> None:
    recipe = overridden(teacher__path="other", data__corpus__0__column="story", data__corpus__1__column="tale")
    assert recipe.teacher.path == "other"
    assert [source.column for source in recipe.data.corpus] == ["story", "tale"]
    assert recipe.data.corpus[0].path == "a.jsonl"


def test_flags_of_no_option_are_passed_over() -> None:
    raw = copy.deepcopy(RAW)
    override(raw, parse(Recipe, raw, "test").model_dump(mode="json"), ["out", "no-dry-run"])
    assert raw == RAW
