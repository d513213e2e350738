"""Mistakes in arguments, for every kind of value, in the words of a recipe's mistakes."""

from pathlib import Path

import pytest

from prunus.cli import parse
from prunus.cli.main import COMMANDS, main
from tests.pipeline.recipes import tiny_recipe, write

NUMBER = "expected a whole number, such as 1_000_000"
PRUNE = ["prune", "model", "--out", "out"]
MERGE = ["merge", "a", "b", "--method", "linear", "--out", "out"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a call prints, without `error: `."""
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    return printed.err.removeprefix("error: ").rstrip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PRUNE, "--hidden-size", "wide"], f"--hidden-size: {NUMBER} (found 'wide')"),
        ([*PRUNE, "--hidden_size=wide"], f"--hidden-size: {NUMBER} (found 'wide')"),
        ([*PRUNE, "--hidden-size", "-3"], "--hidden-size: expected at least 1 (found -3)"),
        ([*PRUNE, "--hidden-size", "8", "9"], "--hidden-size: takes one value (also found '9')"),
        ([*PRUNE, "--hidden-size"], "--hidden-size: expected a value"),
        ([*PRUNE, "--init", "zeros"], "--init: expected 'teacher' or 'random' (found 'zeros')"),
        ([*PRUNE, "--drop-layers", "1", "x"], f"--drop-layers: expected 'contiguous' or 'single', or {NUMBER[9:]}"),
        ([*PRUNE, "--via", "tokens"], "--via: expected pairs of a name and a value (found 'tokens')"),
        ([*PRUNE, "--via", "tokens", "x"], f"--via: {NUMBER} (found 'x')"),
        ([*PRUNE, "--via", "depth", "3"], "--via: 'depth' is not a size of a first cut; allowed: num_hidden_layers"),
        ([*PRUNE, "--heal", "all2"], "--heal.refit: expected 'auto', 'none', 'outputs' or 'all' (did you mean `all`?)"),
        ([*PRUNE, "--runtime.shard=yes"], "--runtime.shard: takes no value (found 'yes')"),
        ([*PRUNE, "--runtime.no-shard", "yes"], "--runtime.no-shard: takes no value (also found 'yes')"),
        (
            [*PRUNE, "--runtime.compile", "maybe"],
            "--runtime.compile: expected true or false, or 'auto' (found 'maybe')",
        ),
        ([*PRUNE, "--runtime.workers", "-1"], "--runtime.workers: expected at least 0 (found -1)"),
        ([*PRUNE, "--runtime.device", "gpu"], "--runtime.device: expected text that matches ^(auto|cpu"),
        ([*PRUNE, "--runtime.trackers", "x"], "--runtime.trackers: expected 'tensorboard', 'trackio' or 'wandb' (fo"),
        (["prune", "model", "extra", "--out", "o"], "'extra': unexpected argument; see `prunus prune --help`"),
        ([*PRUNE, "-q"], "-q: unknown option; allowed: "),
        (["prune", "--out", "out"], "MODEL: missing; it has no default"),
        (["prune", "model"], "--out: missing; it has no default"),
        (["export", "m", "--out", "o", "--formats", "gguf-q9"], "--formats: expected 'gguf-f32', 'gguf-f16', "),
        ([*MERGE, "--weights", "1", "heavy"], "--weights: expected a number (found 'heavy')"),
        ([*MERGE, "--normalize", "maybe"], "--normalize: expected true or false (found 'maybe')"),
        ([*MERGE, "--evolve.bounds", "1"], "--evolve.bounds: too few values"),
        ([*MERGE, "--evolve.bounds", "1", "2", "3"], "--evolve.bounds: expected at most 2 values"),
        (["inspect", "--json", "a", "b"], "--json: takes no value (also found 'b')"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(arguments: list[str], message: str, capsys) -> None:
    line = refused(capsys, *arguments)
    assert line.startswith(message)
    assert "\n" not in line


def test_all_mistakes_of_a_call_are_in_one_message(capsys) -> None:
    text = refused(capsys, "distill", "--loss", "x", "--states.weight", "heavy", "--tokens", "few", "--zzz", "--out")
    first, *lines = text.splitlines()
    assert first == "prunus distill cannot be carried out; 7 mistakes:"
    named = {line.strip().partition(":")[0] for line in lines}
    assert named == {"--zzz", "--out", "STUDENT", "--teacher", "--loss", "--tokens", "--states.weight"}


def test_the_last_value_of_a_flag_counts(capsys) -> None:
    text = refused(capsys, *PRUNE, "--hidden-size", "wide", "--hidden-size", "8", "--vocab-size", "few")
    assert text.startswith("--vocab-size: ")
    assert "\n" not in text


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"run", "plan", "families", "bench", "merge"}))
def test_every_command_names_what_is_missing(command: str, capsys) -> None:
    text = refused(capsys, command)
    assert all(line.endswith((": missing; it has no default", "mistakes:")) for line in text.splitlines())


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> str:
    return str(write(tmp_path / "small.yaml", tiny_recipe(teacher, corpus, held_out, correct={})))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--correct.tokens", "6_048x"], f"--correct.tokens: {NUMBER} (found '6_048x')"),
        (["--distill.tokens", "few"], f"--distill.tokens: {NUMBER} (found 'few')"),  # students inherit it
        (["--students.width.distill.tokens", "few"], f"--students.width.distill.tokens: {NUMBER} (found 'few')"),
        (["--distill.learning-rate", "-1"], "--distill.learning-rate: expected at least 0 (found -1"),
        (["--export.formats", "x"], "--export.formats: expected 'gguf-f32', "),
        (["--distill.states", "x"], "--distill.states: 'x'; allowed: none, kept, paper"),
        (["--seed", "-1"], "--seed: expected at least 0 (found -1)"),
        (["--runtime.shard", "--runtime.deepspeed", "x"], "runtime: shard and deepspeed exclude each other"),
        (["--dry-run", "extra"], "--dry-run: takes no value (also found 'extra')"),
    ],
)
def test_a_mistake_over_a_recipe_is_one_line(recipe: str, flags: list[str], message: str, capsys) -> None:
    line = refused(capsys, "run", recipe, *flags)
    assert line.startswith(message)
    assert "\n" not in line


def test_a_mistake_that_only_the_parser_sees_is_one_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr(parse, "check_call", lambda *_: None)
    line = refused(capsys, *PRUNE, "--hidden-size", "wide")
    assert line.startswith("prunus prune: Value error Error parsing --hidden-size: ")
    assert "\n" not in line
