"""`${NAME}` in a recipe: its value is used, and neither it nor any key is in what is written down."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus import environment
from prunus.config import Config
from prunus.environment import as_used, as_written, expand
from prunus.errors import RecipeError
from prunus.graph.steps import Given, Step
from prunus.judging.config import JudgeConfig
from prunus.pipeline.recipe import Recipe, load_recipe
from prunus.steps.evaluate.config import EvaluateConfig
from tests.pipeline.recipes import tiny_recipe, write

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_written", {})
    monkeypatch.setattr(environment, "_values", {})


def test_a_variable_is_used_once_and_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "x${B}")
    monkeypatch.setenv("B", "y")
    assert expand("${A}-${B}-$B-${}", "w") == "x${B}-y-$B-${}"
    assert as_written("x${B}-y-$B-${}") == "${A}-${B}-$B-${}"
    monkeypatch.setenv("B", "a\nb")
    with pytest.raises(RecipeError, match="w: the environment variable B holds characters that cannot be printed"):
        expand("${B}", "w")
    with pytest.raises(RecipeError, match="w: the environment variable C is not set"):
        expand("${C}", "w")
    assert as_used("${C}/x") is None
    assert as_used("${A}/x") == "x${B}/x"


def test_long_values_are_put_back_inside_texts_and_short_words_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "hunter2hunter2")
    monkeypatch.setenv("SHORT", "data")
    expand("http://h/${LONG}/v1", "w")
    expand("${SHORT}/x", "w")
    assert as_written("http://h/hunter2hunter2/v1/chat is away") == "http://h/${LONG}/v1/chat is away"
    assert as_written("data/y") == "data/y"
    assert as_written("data/x") == "${SHORT}/x"


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.name)
def test_a_recipe_is_recorded_unchanged(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"PRUNUS_DATA": "/somewhere/else", "PRUNUS_MODELS": "/somewhere/quite/different"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    recipe = load_recipe(file)
    recorded = json.dumps(recipe.recorded())
    assert "/somewhere" not in recorded
    for name, value in values.items():
        recorded = recorded.replace(f"${{{name}}}", value)
    assert json.loads(recorded) == recipe.model_dump(mode="json")


def secret_recipe(tmp_path: Path) -> Recipe:
    raw = tiny_recipe(Path("${HOMEDIR}/teacher"), Path("a.jsonl"), Path("b.jsonl"))
    raw["evaluate"] = {
        **raw.get("evaluate", {}),
        "judge": {"url": "https://h.example/${HUNTER}/v1?key=${HUNTER}", "model": "grader"},
    }
    raw["generate"] = {"server": {"url": "https://${NAME}:${HUNTER}@h.example/v1", "model": "m"}}
    raw["distill"] |= {"loss": "${LOSS}"}
    return load_recipe(write(tmp_path / "small.yaml", raw))


def test_no_value_of_a_variable_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"HOMEDIR": "/h/me", "HUNTER": "hunter2hunter2", "NAME": "me", "LOSS": "reverse_kl"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    recipe = secret_recipe(tmp_path)
    assert recipe.evaluate.judge.url == "https://h.example/hunter2hunter2/v1?key=hunter2hunter2"
    assert recipe.generate.server.url == "https://me:hunter2hunter2@h.example/v1"
    recorded = recipe.recorded()
    assert "hunter2" not in json.dumps(recorded)
    assert "/h/me" not in json.dumps(recorded)
    assert recorded["teacher"]["path"] == "${HOMEDIR}/teacher"
    assert recorded["evaluate"]["judge"]["url"] == "https://h.example/${HUNTER}/v1?key=${HUNTER}"
    assert recorded["generate"]["server"]["url"] == "https://${NAME}:${HUNTER}@h.example/v1"
    assert recorded["distill"]["loss"] == "reverse_kl"  # one of a few words: records are read by it


def test_an_address_decides_no_result_and_another_value_is_another_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**values: str) -> str:
        for name, value in {"HOMEDIR": "/h/me", "HUNTER": "hunter2hunter2", "NAME": "me", "LOSS": "reverse_kl"}.items():
            monkeypatch.setenv(name, values.get(name, value))
        recipe = secret_recipe(tmp_path)
        return "".join(
            Step("s", "x", config, {"model": Given(None, "1")}, tmp_path).fingerprint
            for config in (recipe.evaluate, recipe.generate, recipe.students["width"].distill)
        )

    assert key() == key(HUNTER="another0another", HOMEDIR="/elsewhere", NAME="you")
    assert key() != key(LOSS="forward_kl")


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("https://me:hunter2@h.example/v1", "https://(hidden)@h.example/v1"),
        ("https://h.example/v1?api-key=abcdef123456&x=1", "https://h.example/v1?api-key=(hidden)&x=1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
    ],
)
def test_a_key_in_an_address_is_not_recorded(url: str, recorded: str) -> None:
    config = EvaluateConfig(judge=JudgeConfig(url=url, model="m"))
    assert config.recorded()["judge"]["url"] == recorded
    assert "url" not in config.recorded(places=False)["judge"]


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://h:99999", "http://h:x", "ftp://h", "http://h:0", "h"]
)
def test_what_is_no_address_is_refused_with_its_secret_hidden(url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HUNTER", "hunter2hunter2")
    raw = tiny_recipe(Path("t"), Path("a.jsonl"), Path("b.jsonl"))
    raw["evaluate"] = {"judge": {"url": f"{url} /${{HUNTER}}" if url == "h" else url, "model": "m"}}
    with pytest.raises(RecipeError, match=r"evaluate.judge.url: ") as caught:
        load_recipe(write(tmp_path / "small.yaml", raw))
    assert "hunter2" not in str(caught.value)


def test_plain_values_are_recorded_as_json_has_them() -> None:
    class Inner(Config):
        names: tuple[str, ...] = ("a",)

    class Outer(Config):
        inner: dict[str, Inner]
        number: float | None = None

    expected: dict[str, Any] = {"inner": {"x": {"names": ["a"]}}, "number": None}
    made = Outer(inner={"x": Inner()})
    assert made.recorded() == made.model_dump(mode="json") == expected
