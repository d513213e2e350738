"""Training as a plan sees it: what is refused before any work."""

import importlib.machinery

import pytest

from prunus.errors import RecipeError
from prunus.runtime import Runtime
from prunus.steps.correct.config import CorrectConfig
from prunus.training import plan
from prunus.training.plan import check_runtime


@pytest.mark.parametrize(
    ("processes", "installed", "refused"), [(2, "5.22.2", True), (2, "5.23.0", False), (1, "5.17.0", False)]
)
def test_sharding_needs_a_trainer_that_can(
    processes: int, installed: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(plan, "version", lambda _: installed)
    if not refused:
        check_runtime(Runtime(shard=True), [])
        return
    with pytest.raises(RecipeError, match=r"runtime.shard: true; needs transformers 5.23 .* 5.22.2 is installed"):
        check_runtime(Runtime(shard=True), [])


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match="runtime.trackers: wandb is not installed; `pip install wandb`"):
        check_runtime(Runtime(trackers=("wandb",)), [])


def test_moments_in_8_bits_need_torchao_and_whole_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CorrectConfig(tokens=0, optimizer="adamw_8bit")
    found = [importlib.machinery.ModuleSpec("torchao", None), None]
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: found[0] if name == "torchao" else None)
    plan.check_runtime(Runtime(), [config])
    with pytest.raises(
        RecipeError, match=r"correct.optimizer: adamw_8bit; not with runtime.deepspeed: the state is divided"
    ):
        plan.check_runtime(Runtime(deepspeed="zero.json"), [config])
    found.pop(0)
    with pytest.raises(
        RecipeError, match=r"correct.optimizer: adamw_8bit; it needs torchao.*pip install 'prunus\[torchao\]'"
    ):
        plan.check_runtime(Runtime(), [config])
