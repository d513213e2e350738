"""LoRA: what is trained, what is merged, what a checkpoint holds, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from prunus.cli.main import main
from prunus.config import parse
from prunus.costs import CostContext, trained_bytes, trained_parameters
from prunus.errors import ModelError, RecipeError
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.runtime import Runtime
from prunus.steps.align.config import AlignConfig
from prunus.steps.correct.config import CorrectConfig
from prunus.training import plan
from prunus.training.config import LoraConfig
from prunus.training.lora import ADAPTER, add_adapters, merge_adapters
from prunus.training.plan import check_runtime
from prunus.training.record import Recorder
from tests.families import DISTINCT, make_teacher
from tests.pipeline.recipes import tiny_recipe
from tests.tiny import load, make_model

DENSE = [name for name in DISTINCT if FAMILIES[name].experts is None]
IDS = torch.arange(24).reshape(2, 12)


def adapted(folder: Path, r: int = 3, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model with random updates."""
    model = load_model(folder, torch.device("cpu"), dtype)
    add_adapters(model, LoraConfig(r=r, alpha=2.0 * r))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in (one for one in model.parameters() if one.requires_grad):
            parameter.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("family", DENSE)
def test_a_merged_model_is_a_plain_one_with_the_same_logits(family: str, tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", family)
    plain = load(folder)
    model = adapted(folder)
    with torch.no_grad():
        expected = model(IDS).logits
        assert not torch.allclose(expected, plain(IDS).logits, atol=1e-3)
    merged = merge_adapters(model, tmp_path, keep=False)
    assert type(merged) is type(plain)
    assert {name: value.shape for name, value in merged.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    with torch.no_grad():
        assert torch.allclose(merged(IDS).logits, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_the_plan_counts_what_is_trained(family: str, tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", family)
    model, shape = adapted(folder), ModelFolder(folder).shape
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == trained_parameters(shape, 3)
    assert trained_parameters(shape, 0) == shape.parameters
    context = CostContext(shape, device_batch_size=8)
    assert trained_bytes(shape, 8, context, "adamw", 3) < trained_bytes(shape, 8, context, "adamw")


def test_updates_of_a_model_in_bfloat16_are_trained_and_merged_in_float32(teacher: Path, tmp_path: Path) -> None:
    model = adapted(teacher, dtype=torch.bfloat16)
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}
    assert {one.dtype for one in model.parameters() if not one.requires_grad} == {torch.bfloat16}
    wide = adapted(teacher)
    with torch.no_grad():
        for one, other in zip(model.parameters(), wide.parameters(), strict=True):
            other.copy_(one)
    merged, expected = (merge_adapters(each, tmp_path, keep=False) for each in (model, wide))
    assert all(torch.equal(a, b) for a, b in zip(merged.parameters(), expected.parameters(), strict=True))


def words(model: Path, corpus: Path, out: Path, *more: object) -> list[str]:
    rest = ["--tokens", 12 * 8 * 16, "--sequence-length", 16, "--batch-size", 8, "--warmup-steps", 1]
    return [str(word) for word in ["correct", model, "--corpus", corpus, "--out", out, *rest, *more]]


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 1e-2), ("muon", 3e-2)])
def test_training_changes_only_the_layers_matrices_and_keeps_the_adapter_if_told_so(
    optimizer: str, rate: float, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    out, more = tmp_path / "out", ("--lora.r", 4, "--learning-rate", rate, "--optimizer", optimizer)
    assert main(words(teacher, corpus, out, *more, "--lora.keep-adapter")) == 0
    before, after = load(teacher), load(out)
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    linear = {name for name in changed if ".layers." in name and name.endswith("proj.weight")}
    assert changed == linear
    assert len(linear) == 7 * before.config.num_hidden_layers
    kept = PeftModel.from_pretrained(before, out / ADAPTER)
    with torch.no_grad():
        assert torch.allclose(kept(IDS).logits, after(IDS).logits, atol=1e-4)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_a_killed_run_resumes_to_the_same_weights_from_a_checkpoint_without_the_frozen_ones(
    teacher: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--lora.r", 2, "--runtime.checkpoint-minutes", 0)
    assert main(words(teacher, corpus, tmp_path / "whole", *more)) == 0
    on_log, held = Recorder.on_log, []

    def killed(self: Recorder, args: object, state: object, *rest: object, **kwargs: object) -> None:
        on_log(self, args, state, *rest, **kwargs)
        if state.global_step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_log", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            raise SystemExit(main(words(teacher, corpus, tmp_path / "out", *more)))
    for file in (tmp_path / "out.partial" / "checkpoints").rglob("pytorch_model.bin"):
        held.extend(torch.load(file))
    assert held
    assert all("lora_" in name for name in held)
    assert main(words(teacher, corpus, tmp_path / "out", *more)) == 0
    assert all((tmp_path / name / "model.safetensors").is_file() for name in ("whole", "out"))
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out"))
    assert first == second


def test_a_rank_above_a_modules_width_is_refused(teacher: Path) -> None:
    model = load(teacher)
    width = min(model.model.layers[0].self_attn.k_proj.weight.shape)
    add_adapters(load(teacher), LoraConfig(r=width))
    with pytest.raises(ModelError, match=f"lora.r: {width + 1} is more than the width of .*_proj, {width}"):
        add_adapters(model, LoraConfig(r=width + 1))


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    folder = make_teacher(tmp_path / "model", "mixtral")
    with pytest.raises(ModelError, match="lora: mixtral is a mixture of experts"):
        add_adapters(load(folder), LoraConfig(r=2))


def test_what_a_plan_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CorrectConfig(tokens=64, lora=LoraConfig(r=2))
    check_runtime(Runtime(), [config])
    with pytest.raises(RecipeError, match="correct.lora; not with runtime.deepspeed"):
        check_runtime(Runtime(deepspeed="zero.json"), [config])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        RecipeError, match="correct.lora; not with runtime.shard: true: few weights are trained; allowed: replicated"
    ):
        check_runtime(Runtime(shard=True), [config])
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match="correct.lora; it needs peft"):
        check_runtime(Runtime(), [config])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"correct": {"tokens": 512, "lora": 99}},
            "correct.lora.r: 99 is more than the narrowest matrix; allowed: at most 16",
        ),
        ({"distill": {"tokens": 512, "lora": 17}}, "students.width.distill.lora.r: 17 .* at most 16"),
        ({"teacher": {"align": [{"method": "sft", "lora": 99}]}}, "teacher.align.0.lora.r: 99"),
    ],
)
def test_a_plan_refuses_a_rank_above_a_models_width(
    changes: dict, message: str, teacher: Path, corpus: Path, held_out: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(teacher, corpus, held_out)
    if "teacher" in changes:
        changes = {"teacher": {"path": str(teacher), **changes["teacher"]}}
    with pytest.raises(RecipeError, match=message):
        make_plan(parse(Recipe, {**recipe, **changes}, "test"), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "reward", "lora": 4}, "lora: not with method: reward"),
        ({"method": "grpo", "lora": 4}, "lora: not with method: grpo"),
        ({"method": "sft", "lora": {"alpha": 4}}, "r: missing"),
        ({"method": "sft", "lora": True}, "lora"),
        ({"method": "sft", "lora": {"r": -1}}, "lora.r: expected at least 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(AlignConfig, options, "align.0")


def test_default_rates_are_ten_times_those_of_all_weights(teacher: Path) -> None:
    size = ModelFolder(teacher).shape.size()
    rates = [CorrectConfig(tokens=64_000, lora=r).with_defaults(size).learning_rate for r in (0, 4)]
    assert rates[1] == pytest.approx(10 * rates[0])
    rates = [parse(AlignConfig, {"method": "sft", "lora": r}, "align.0").learning_rate for r in (0, 4, {"r": 4})]
    assert rates == pytest.approx([2e-5, 2e-4, 2e-4])
    assert parse(AlignConfig, {"method": "sft", "lora": 4, "learning_rate": 1e-3}, "align.0").learning_rate == 1e-3


def test_without_lora_results_of_before_keep_their_fingerprints() -> None:
    assert "lora" not in CorrectConfig(tokens=64).identity()
    assert "lora" not in CorrectConfig(tokens=64).recorded(places=False)
    assert CorrectConfig(tokens=64, lora=4).identity()["lora"]["r"] == 4


def test_a_student_is_aligned_with_updates_alone(corpus: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    rows = [{"prompt": f"what is {i}", "completion": f"it is {i}"} for i in range(24)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["--method", "sft", "--data", tmp_path / "chat.jsonl", "--template", "builtin:plain", "--batch-size", 4]
    command = ["align", model, "--out", tmp_path / "out", *more, "--learning-rate", 1e-2, "--lora.r", 2]
    assert main([str(word) for word in [*command, "--sequence-length", 64]]) == 0
    before, after = load(model).state_dict(), load(tmp_path / "out").state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith("proj.weight") for name in changed)
