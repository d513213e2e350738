"""The command line, in a process of its own each time."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunus.cli.main import COMMANDS, main
from tests.pipeline.recipes import tiny_recipe, write
from tests.processes import prunus
from tests.tiny import make_model

pytestmark = pytest.mark.processes


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "small.yaml", tiny_recipe(teacher, corpus, held_out, correct={}))


def test_help_is_instant() -> None:
    """In seconds of CPU, since a busy machine takes longer by the clock."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "prunus", "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "usage: prunus" in done.stdout
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_wait_briefly_unless_set(given: dict[str, str], expected: str | None, monkeypatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is restored even if it was not set
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    main(["inspect", "no-such-model"])
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = prunus(command, "--help")
    assert result.returncode == 0
    assert f"prunus {command}" in result.stdout


def test_no_command_line_imports_torch(recipe: Path) -> None:
    code = (
        "import sys, contextlib\n"
        "from prunus.cli.main import main\n"
        "with contextlib.suppress(SystemExit): main(sys.argv[1:])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported'"
    )
    for arguments in (["--help"], ["score", "--help"], ["run", str(recipe), "--help"], ["run", "nowhere.yaml"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_cutting_needs_neither_torch_nor_transformers(teacher: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from prunus.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules), 'imported'"
    )
    by_chance = ["--importance.channels.criterion", "random"]
    arguments = ["prune", teacher, *by_chance, "--hidden-size", "16", "--out", tmp_path / "out"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True)


def test_the_options_of_a_recipe_show_its_values(recipe: Path) -> None:
    text = prunus("run", recipe, "--help", "students.width.distill").stdout
    assert "students.width.distill.learning_rate = 0.001" in text
    assert "--help students.width.distill.states" in text


def test_the_help_of_a_recipe_with_mistakes_names_them(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("tokens: 1024", "tokens: many"))
    result = prunus("run", recipe, "--help")
    assert result.returncode == 0
    assert "--help distill" in result.stdout
    assert "distill.tokens: expected a whole number" in result.stdout


def test_a_word_stands_for_a_section_on_the_command_line(recipe: Path) -> None:
    for flags in (["--distill.states", "none"], ["--students.width.distill.states=none"]):
        result = prunus("run", recipe, "--dry-run", *flags)
        assert result.returncode == 0, result.stderr
    assert "'nothing'; allowed: none, kept, paper" in prunus("plan", recipe, "--distill.states", "nothing").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown command 'rnu' (did you mean `run`?)"),
        (["run"], "no recipe given"),
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["inspect", "./nowhere"], "there is no folder ./nowhere"),
        (["report", "."], "it has no run.json"),
        (["prune", ".", "--out", "x"], "there is no config.json"),
        (["score"], "--out: missing; it has no default"),
        (
            ["score", "m", "--corpus", "c", "--out", "o", "--samples", "-1"],
            "error: --samples: expected at least 0 (found -1)",
        ),
        (["score", "m", "--corpus", "--out", "o"], "there is no folder m"),
        (["inspect", ".", "--context", "-1"], "--context: -1"),
        (["evaluate", "a", "--outt", "x"], "outt"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = prunus(*arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--students.width.prune.hidden-size", "20"], "students.width.prune.hidden_size: 20 is not a multiple"),
        (
            ["--students.width.prune.hidden-size", "many"],
            "error: --students.width.prune.hidden-size: expected a whole number, such as 1_000_000 (found 'many')",
        ),
        (["--students.widht.prune.hidden-size", "16"], "students.width.prune.hidden-size"),
        (["--distill.tokens", "3"], "error: --distill.tokens: 3 are less than one step"),
        (["--runtime.device", "cuda:7"], "runtime.device"),
        (["--seed", "-1"], "error: --seed: expected at least 0 (found -1)"),
    ],
)
def test_a_bad_flag_is_found_before_any_work(recipe: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    result = prunus("run", recipe, "--out", tmp_path / "run", *flags)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "run").glob("width/*"))


def test_a_teacher_that_reads_other_tokens_is_refused(teacher: Path, held_out: Path, tmp_path: Path) -> None:
    text = ("--corpus", held_out, "--sequence-length", "32", "--out", tmp_path / "result")
    result = prunus("evaluate", teacher, "--teacher", "builtin:sapling", *text)
    assert result.returncode == 2, result.stderr
    assert "tokens and the model 300, so they tokenise text" in result.stderr
    assert not (tmp_path / "result").exists()


def test_plan_shows_what_would_be_done_and_does_nothing(recipe: Path, tmp_path: Path) -> None:
    result = prunus("plan", recipe, "--out", tmp_path / "run", "--students.width.prune.hidden-size", "24")
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["width"][2] == "24"
    assert "width distill" in result.stdout
    assert not (tmp_path / "run").exists()
    assert prunus("run", recipe, "--out", tmp_path / "run", "--dry-run").returncode == 0
    assert not (tmp_path / "run").exists()


def test_plan_warns_of_too_little_memory(recipe: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    for memory, warned in ((2**60, False), (1, True)):
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: SimpleNamespace(total=memory))
        assert main(["plan", str(recipe), "--out", str(tmp_path / "run"), "--runtime.device", "cpu"]) == 0
        assert ("more memory than the" in capsys.readouterr().out) == warned


def test_a_model_that_is_not_there_is_named_by_its_flag(teacher: Path, corpus: Path, tmp_path: Path, capsys) -> None:
    text = ["--corpus", str(corpus), "--out", str(tmp_path / "out")]
    for flag, arguments in (
        ("STUDENT", ["distill", "./nowhere", "--teacher", str(teacher), "--tokens", "512", *text]),
        ("--teacher", ["distill", str(teacher), "--teacher", "./nowhere", "--tokens", "512", *text]),
        ("--teacher", ["evaluate", str(teacher), "--teacher", "./nowhere", *text]),
        ("MODEL", ["score", "./nowhere", *text]),
    ):
        assert main(arguments) == 2
        assert f"error: {flag}: there is no folder ./nowhere" in capsys.readouterr().err


def test_inspect_needs_no_weights(teacher: Path, tmp_path: Path) -> None:
    facts = json.loads(prunus("inspect", teacher, "--json").stdout)
    assert facts["parameters"] == facts["embedding_parameters"] + facts["non_embedding_parameters"]
    assert facts["bytes"] == 4 * facts["parameters"]
    assert facts["kv_cache_bytes_per_token"] == 2 * 4 * 4 * 4 * 4
    shutil.copy(teacher / "config.json", tmp_path)
    assert json.loads(prunus("inspect", tmp_path, "--json").stdout)["parameters"] == facts["parameters"]
    assert "non embedding parameters" in prunus("inspect", tmp_path).stdout


def test_each_step_runs_as_a_command(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path, capsys) -> None:
    def do(*arguments: str | Path) -> None:
        assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr()

    text = ["--corpus", corpus]
    training = ["--tokens", 512, "--sequence-length", 16, "--batch-size", 4, "--warmup-steps", 1]
    do("correct", teacher, *text, *training, "--out", tmp_path / "corrected")
    do("score", tmp_path / "corrected", *text, "--samples", 8, "--sequence-length", 16, "--out", tmp_path / "scores")
    assert main(["prune", str(tmp_path / "corrected"), "--hidden-size", "16", "--out", str(tmp_path / "cut")]) == 2
    assert (
        "--scores: missing; this cut needs covariance, gradient_covariance: give a folder written by `prunus score`"
        in capsys.readouterr().err
    )
    scores = ["--scores", tmp_path / "scores"]
    do("prune", tmp_path / "corrected", *scores, "--hidden-size", 16, "--out", tmp_path / "cut")
    student = [tmp_path / "cut", "--teacher", tmp_path / "corrected"]
    do("distill", *student, *text, *training, "--out", tmp_path / "student")
    beside = ["--teacher", tmp_path / "corrected", "--corpus", held_out, "--sequence-length", 32, "--max-new-tokens", 3]
    do("evaluate", tmp_path / "student", *beside, "--out", tmp_path / "result")
    assert json.loads((tmp_path / "result" / "results.json").read_text())["figures"]["kl"]["value"] > 0
    capsys.readouterr()
    do("prune", tmp_path / "corrected", *scores, "--hidden-size", 16, "--out", tmp_path / "cut")
    assert "done" in capsys.readouterr().out
    assert (
        main(
            [
                "prune",
                str(tmp_path / "corrected"),
                "--scores",
                str(tmp_path / "scores"),
                "--hidden-size",
                "24",
                "--out",
                str(tmp_path / "cut"),
            ]
        )
        == 2
    )
    assert "holds the result of other settings" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_reported(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        result = prunus("run", recipe, "--out", out)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr


def test_a_teacher_that_transformers_refuses_is_reported(
    teacher: Path, corpus: Path, held_out: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(teacher, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "nope"}))
    result = prunus(
        "run", write(tmp_path / "odd.yaml", tiny_recipe(folder, corpus, held_out)), "--out", tmp_path / "run"
    )
    assert result.returncode == 2
    assert "transformers does not load it" in result.stderr
    assert "Traceback" not in result.stderr
    (folder / "tokenizer.json").write_text("")
    result = prunus("run", tmp_path / "odd.yaml", "--out", tmp_path / "other")
    assert result.returncode == 2
    assert "tokenizer.json: the file is empty" in result.stderr


def test_a_vocabulary_can_be_cut_alone(corpus: Path, tmp_path: Path, capsys) -> None:
    teacher = make_model(tmp_path / "teacher", vocab_size=310)
    arguments = [
        "prune",
        str(teacher),
        "--vocab-size",
        "280",
        "--out",
        str(tmp_path / "small"),
    ]
    assert main(arguments) == 2
    assert "--corpus: missing" in capsys.readouterr().err
    assert main([*arguments, "--corpus", str(corpus)]) == 0
    assert json.loads((tmp_path / "small" / "config.json").read_text())["vocab_size"] == 280


def test_a_locale_that_is_not_utf8_changes_nothing_but_what_is_printed(
    teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    """Files are opened in a locale of ASCII alone, and the terminal takes nothing else."""
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    command = ["prune", str(teacher), "--vocab-size", "290", "--corpus", str(corpus), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "prunus", *command], env={**os.environ, **environment}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    raw = (tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8")
    assert "Ġ" in raw
