"""Evolution on fitness that is known: it finds the best, goes on from its journal, and says what it did."""

from pathlib import Path

import numpy as np
import pytest

from prunus.errors import ArtifactError, DataError, RecipeError
from prunus.steps.merge.config import EvolveConfig, MergeConfig
from prunus.steps.merge.evolve import Journal, Trial, evolve
from prunus.steps.merge.genome import Genome
from prunus.steps.merge.questions import check_not_reported, conversation_key, read_tasks

CHAT = {"path": "builtin:world", "name": "chat"}


def genome(**evolution) -> Genome:
    given = {"method": "task_arithmetic", "evolve": {"trials": 60, "tasks": {"rag": CHAT}, "groups": 2, **evolution}}
    return Genome(MergeConfig.model_validate(given), models=2, layers=4)


def weights_of(config: MergeConfig) -> np.ndarray:
    return np.array([part.weights for part in config.parts])


def toy(config: MergeConfig, part: int) -> dict[str, float]:
    """Best where the first model's weights are 0.3 and the second's 1.1, wherever they stand."""
    off = weights_of(config) - np.array([0.3, 1.1])
    return {"one": float(1 - (off[:, 0] ** 2).mean()), "two": float(1 - (off[:, 1] ** 2).mean())}


def test_it_finds_what_is_best(tmp_path: Path) -> None:
    found, figures = evolve(genome(trials=300), toy, Journal(tmp_path))
    np.testing.assert_allclose(weights_of(found).mean(axis=0), [0.3, 1.1], atol=0.1)
    assert figures["fitness"] > 0.97 > figures["fitness_start"]
    assert not found.evolve.trials


def test_a_killed_one_resumes_and_ends_the_same(tmp_path: Path) -> None:
    whole, figures = evolve(genome(), toy, Journal(tmp_path / "whole"))
    made = []

    def dies(config: MergeConfig, part: int) -> dict[str, float]:
        if len(made) == 25:
            raise KeyboardInterrupt
        made.append(config)
        return toy(config, part)

    with pytest.raises(KeyboardInterrupt):
        evolve(genome(), dies, Journal(tmp_path / "killed"))
    with (tmp_path / "killed" / "journal.jsonl").open("a") as file:
        file.write('{"number": 25, "par')  # the line that it was writing
    asked_again = []

    def counts(config: MergeConfig, part: int) -> dict[str, float]:
        asked_again.append(config)
        return toy(config, part)

    again, same = evolve(genome(), counts, Journal(tmp_path / "killed"))
    assert (again, same) == (whole, figures)
    assert len(asked_again) == 60 + 1 + genome().evolve.finalists - 25
    files = [tmp_path / name / "journal.jsonl" for name in ("whole", "killed")]
    assert files[0].read_text() == files[1].read_text()


def test_luck_does_not_win(tmp_path: Path) -> None:
    """A trial that is good on the first conversations alone is not taken; the start stands where nothing beats it."""
    start = genome().decode(genome().start())

    def lucky(config: MergeConfig, part: int) -> dict[str, float]:
        return {"task": 0.5 if config == start else (0.6 if part == 0 else 0.3)}

    found, figures = evolve(genome(trials=10), lucky, Journal(tmp_path))
    assert found == start
    assert figures["chosen_trial"] == 0


def test_vectors_are_within_bounds_and_cover_every_part(tmp_path: Path) -> None:
    given = genome(densities=True, bounds=[-0.5, 2])
    assert len(given.start()) == 7 * 2  # no densities in task arithmetic
    seen = []
    evolve(given, lambda config, part: seen.append(weights_of(config)) or {"x": 0.0}, Journal(tmp_path))
    assert np.stack(seen).min() >= -0.5
    assert np.stack(seen).max() <= 2
    parts = [(part.layers, part.module) for part in given.decode(given.start()).parts]
    modules = ["attention", "mlp", "other"]
    assert parts == [(None, None), *[("0-1", name) for name in modules], *[("2-3", name) for name in modules]]


def test_paths_keep_an_order_and_a_length() -> None:
    config = MergeConfig.model_validate(
        {"method": "flow", "evolve": {"trials": 9, "space": "flow", "tasks": {"rag": CHAT}, "max_layers": 3}}
    )
    given = Genome(config, models=2, layers=2)
    assert given.decode(given.start()).flow.path() == [(0, 0), (0, 1)]
    vector = np.array([0.1, 0.4, 0.3, 0.2, 1, 2, 0.5, 1])
    flow = given.decode(vector).flow
    assert (flow.path(), flow.scales) == ([(0, 1), (1, 0), (1, 1)], (2, 0.5, 1))
    vector[:4] = [-3, -2, -1, -2]
    assert given.decode(vector).flow.path() == [(1, 0)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({**CHAT, "split": "held_out"}, "split 'held_out'"),
        ({"path": "data/GSM8K-test.jsonl"}, "its name has 'gsm8k'"),
        ({"path": "openai/gsm8k", "split": "test"}, "split 'test'"),
    ],
)
def test_a_test_set_is_refused_unless_one_is_shameless(source: dict, message: str) -> None:
    config = EvolveConfig.model_validate({"trials": 5, "tasks": {"mine": source}})
    with pytest.raises(RecipeError, match=message):
        config.check_public("merge.evolve")
    config.model_copy(update={"i_am_tuning_on_the_test_set": True}).check_public("merge.evolve")


def test_conversations_that_are_reported_are_refused() -> None:
    config = EvolveConfig.model_validate({"trials": 5, "items": 3, "tasks": {"rag": CHAT}})
    tasks = read_tasks(config, "merge.evolve")
    assert [len(rows) for rows in tasks.values()] == [6]
    check_not_reported(tasks, {"other"}, config, "merge.evolve")
    reported = {conversation_key(tasks["rag"][4].prompt_turns())}
    with pytest.raises(RecipeError, match=r"1 of 6 conversations.*row 5"):
        check_not_reported(tasks, reported, config, "merge.evolve")
    shameless = config.model_copy(update={"i_am_tuning_on_the_test_set": True})
    check_not_reported(tasks, reported, shameless, "merge.evolve")
    few = EvolveConfig.model_validate({"trials": 5, "tasks": {"rag": {**CHAT, "limit": 9}}})
    with pytest.raises(DataError, match="has 9 conversations, expected at least 64"):
        read_tasks(few, "merge.evolve")


@pytest.mark.parametrize(
    "line", ["[]", "1", "{}", '{"number": 0, "part": 0, "vector": "x", "scores": {}}', "{", "\0\0"]
)
def test_a_damaged_journal_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "journal.jsonl").write_text(line + "\n")
    with pytest.raises(ArtifactError, match=r"journal\.jsonl"):
        Journal(tmp_path)


def test_a_separator_in_a_tasks_name_is_no_end_of_a_line(tmp_path: Path) -> None:
    trial = Trial(0, 0, [0.5], {"a\u2028b\x85c": 1.0})
    Journal(tmp_path).add(trial)
    assert Journal(tmp_path).trials == {(0, 0): trial}
