"""What fits in a GPU, and that the flags that are proposed give the memory that is shown."""

from pathlib import Path
from typing import Any

import pytest

from prunus.cli.commands.plan import Plan as PlanCommand
from prunus.cli.main import main
from prunus.cli.recipe import with_recipe
from prunus.pipeline import fitting
from prunus.pipeline.estimate import cost_of
from prunus.pipeline.fitting import Fit, fits
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import load_recipe
from prunus.training import plan as training_plan
from tests.pipeline.recipes import tiny_recipe, write

MINITRON = Path("recipes/llama-3.1-minitron-4b.yaml")
SMALL = "device_batch_size: 1, gradient_checkpointing"


@pytest.fixture(scope="module")
def of_8b(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fit]:
    """The width student of Llama-3.1-8B, by the options that differ."""
    plan = make_plan(load_recipe(MINITRON), tmp_path_factory.mktemp("plan"), preview=True)
    return {fit.changes: fit for fit in fits(plan) if fit.student == "width"}


CACHED, LORA, STATE = f"{SMALL}, targets: cached", f"{SMALL}, lora: 64", f"{SMALL}, optimizer: adamw_8bit"
STATE_8_BITS, STATE_CACHED = f"{STATE}, teacher_bits: 8", f"{STATE}, targets: cached"
LORA_8_BITS, LORA_CACHED = f"{LORA}, teacher_bits: 8", f"{LORA}, targets: cached"


@pytest.mark.parametrize(
    ("gigabytes", "fitting"),
    [
        (24, [LORA_CACHED]),
        (32, [LORA_8_BITS, LORA_CACHED]),
        (48, [LORA, LORA_8_BITS, LORA_CACHED]),
        (80, [STATE, STATE_8_BITS, CACHED, STATE_CACHED, LORA, LORA_8_BITS, LORA_CACHED]),
    ],
)
def test_half_of_8b_on_cards_of_three_sizes(of_8b: dict[str, Fit], gigabytes: int, fitting: list[str]) -> None:
    assert list(of_8b)[:2] == ["", SMALL]
    assert [name for name, fit in of_8b.items() if fit.memory <= gigabytes * 1e9] == fitting


def test_a_trained_model_takes_16_bytes_per_parameter_and_a_frozen_one_two(of_8b: dict[str, Fit]) -> None:
    student, teacher = 4_512_746_496, 8_030_261_248
    logits, stream = 4 * 2048 * 128_256 * 2, 8192 * 3072 * (4 * 32 + 34)
    assert of_8b[SMALL].memory == 16 * student + 2 * teacher + logits + stream
    assert of_8b[CACHED].memory == 16 * student + logits + stream
    assert of_8b[STATE].memory == 10 * student + 2 * teacher + logits + stream


@pytest.fixture
def recipe(teacher: Path, corpus: Path, held_out: Path, tmp_path: Path) -> Path:
    distill = {"tokens": 1024, "sequence_length": 16, "batch_size": 4}
    changes: dict[str, Any] = {"students": {"w": {"prune": {"intermediate_size": 24}}}, "distill": distill}
    return write(tmp_path / "recipe.yaml", tiny_recipe(teacher, corpus, held_out, **changes))


def test_the_flags_give_the_memory_that_is_shown(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fitting.LORA, "lora", 4)  # 64 is wider than this model
    monkeypatch.setattr(training_plan, "_check_limit", lambda *_: None)  # torchao need not be installed

    def planned(*flags: str) -> Any:
        command = with_recipe(PlanCommand, "plan", [str(recipe), "--runtime.precision", "bfloat16", *flags])
        return make_plan(command.recipe, tmp_path / "run")

    found = list(fits(planned()))
    assert len({fit.memory for fit in found}) == len(found) == 10
    for fit in found:
        plan = planned(*fit.flags.split())
        (step,) = (step for step in plan.steps if step.label == "distill")
        assert cost_of(step, plan).memory_bytes == fit.memory, fit.changes


def test_what_is_not_allowed_is_not_proposed(recipe: Path, tmp_path: Path) -> None:
    """Stored targets are for forward KL."""
    command = with_recipe(PlanCommand, "plan", [str(recipe), "--distill.loss", "reverse_kl"])
    found = [fit.changes for fit in fits(make_plan(command.recipe, tmp_path / "run"))]
    assert found == ["", SMALL, f"{SMALL}, teacher_bits: 8", STATE, STATE_8_BITS]


def test_the_command_names_the_first_options_that_fit(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(recipe), "--memory", "1GB"]) == 0
    assert "students.w fits as in the recipe" in capsys.readouterr().out
    assert main(["plan", str(recipe), "--memory", "1kB"]) == 0
    assert "students.w: none of these fits in 1 kB" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("memory", ["24XB", "half", "50%"])
def test_what_is_no_memory_is_refused(recipe: Path, memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(recipe), "--memory", memory]) == 2
    assert f"--memory: {memory!r}: expected a number of bytes, such as 24GB" in capsys.readouterr().err
