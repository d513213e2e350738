"""Training for a quantised file: it sees the numbers that the file then holds, and moves the weights themselves."""

import json
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prunus.cli.main import main
from prunus.errors import ModelError, RecipeError
from prunus.gguf import rounding
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp import ggml
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model, save_model, saved_dtype
from prunus.training.loop import ObjectiveTrainer
from prunus.training.objectives import cross_entropy
from prunus.training.quantised import QuantisedWeights, quantised_weights
from tests.families import SPECIAL, make_teacher
from tests.processes import together
from tests.tiny import make_model

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

CPU = torch.device("cpu")
WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 32, "num_hidden_layers": 2}
FORMATS = ["gguf-q4_0", "gguf-q8_0", "gguf-q4_k_m", "gguf-q5_k_m", "gguf-q6_k"]
TYPES = [name for name, family in FAMILIES.items() if family.gguf is not None and family.experts is None]


def in_training(folder: Path) -> Any:
    """The model as it is trained: in float32, with weights that its own data type does not hold."""
    model = load_model(folder, CPU, torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.0003).add_(torch.randn_like(weight) * 1e-3)
    return model


def check_file(folder: Path, model: Any, weights: QuantisedWeights, format_name: str, place: Path) -> dict[str, str]:
    """Save a model in training, export it, and compare every tensor of the file with what training saw."""
    weights.put(0)
    seen = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    weights.restore()
    place.mkdir()
    written = place / "model"
    written.mkdir()
    save_model(deepcopy(model), written, saved_dtype(ModelFolder(folder)))
    for file in folder.glob("tokenizer*"):
        (written / file.name).write_bytes(file.read_bytes())
    source = ModelFolder(written)
    write_gguf(source, read_vocabulary(written, source.shape.vocab_size), format_name, place / "model.gguf")
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(place / "model.gguf").tensors}
    stored = {id(one.weight): one for one in weights.stored}
    types = {}
    for name, weight in model.named_parameters():
        one = stored.get(id(weight))
        if one is None:
            continue
        tensor, found = one.tensor, held[one.tensor.name]
        ours = seen[name].T if tensor.turned else seen[name]
        ours = (ours + tensor.offset) * tensor.factor if not tensor.untouched else ours
        theirs = torch.from_numpy(gguf.quants.dequantize(found.data, found.tensor_type).copy())
        ours = ours if tensor.order is None else ours[torch.from_numpy(tensor.order)]
        ours = ours if tensor.columns is None else ours[:, torch.from_numpy(tensor.columns)]
        exact = tensor.untouched and one.kind not in rounding.K_QUANTS  # gguf reads K-quants in another order of sums
        torch.testing.assert_close(
            ours, theirs.reshape(ours.shape), rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6
        )
        if one.kind in rounding.K_QUANTS:  # read as llama.cpp reads them
            data = np.ascontiguousarray(found.data.reshape(-1, one.row_bytes))
            assert torch.equal(ours, torch.from_numpy(ggml.dequantise(data, one.kind)))
        types[name] = found.tensor_type.name
    return types


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("format_name", FORMATS)
def test_the_file_holds_what_training_saw(tmp_path: Path, format_name: str, dtype: torch.dtype) -> None:
    folder = make_model(tmp_path / "model", dtype=dtype, **WIDE)
    model = in_training(folder)
    types = check_file(
        folder, model, quantised_weights(model, ModelFolder(folder), format_name, 1), format_name, tmp_path / "out"
    )
    matrices = {name for name, weight in model.named_parameters() if weight.ndim == 2}
    assert matrices <= types.keys()
    assert (set(types) == matrices) == (dtype == torch.float32)  # gains are rounded to the student's own type
    if format_name == "gguf-q4_k_m":
        assert types["model.layers.0.self_attn.q_proj.weight"] == "Q4_K"
        assert types["model.layers.1.mlp.down_proj.weight"] == "Q6_K"
        assert types["model.embed_tokens.weight"] == "Q6_K"


def test_rows_that_fit_no_block_are_seen_in_the_type_that_they_fall_back_to(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", hidden_size=96, head_dim=8, intermediate_size=40)
    model = in_training(folder)
    for format_name, expected in (("gguf-q4_0", {"Q4_0", "Q8_0", "F16"}), ("gguf-q4_k_m", {"Q5_0", "Q8_0", "F16"})):
        weights = quantised_weights(model, ModelFolder(folder), format_name, 1)
        types = check_file(folder, model, weights, format_name, tmp_path / format_name)
        assert set(types.values()) == expected
        assert types["model.layers.0.mlp.down_proj.weight"] == "F16"


@pytest.mark.parametrize("model_type", TYPES)
def test_every_family_sees_what_its_file_holds(
    tmp_path: Path, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPECIAL, model_type, {**SPECIAL[model_type], "intermediate_size": 64})
    folder = make_teacher(tmp_path / "model", model_type)
    model = in_training(folder)
    weights = quantised_weights(model, ModelFolder(folder), "gguf-q4_0", 1)
    types = check_file(folder, model, weights, "gguf-q4_0", tmp_path / "out")
    assert "Q4_0" in types.values()


def test_gradients_are_those_of_the_rounded_model_and_weights_are_kept(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", **WIDE)
    model = in_training(folder)
    ids = torch.randint(3, 300, (2, 16))
    weights = quantised_weights(model, ModelFolder(folder), "gguf-q4_0", 1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    weights.put(0)
    rounded = deepcopy(model)
    loss = cross_entropy(model, ids)
    loss.backward()
    weights.restore()
    expected = cross_entropy(rounded, ids)
    expected.backward()
    assert loss == expected != cross_entropy(model, ids)
    for (name, weight), other in zip(model.named_parameters(), rounded.parameters(), strict=True):
        assert torch.equal(weight, before[name])
        assert torch.equal(weight.grad, other.grad)
    with weights.applied():
        assert cross_entropy(model, ids) == expected
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_k_quants_hold_for_several_steps_and_other_types_do_not(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", intermediate_size=512, hidden_size=96, head_dim=12)
    model = in_training(folder)
    weights = quantised_weights(model, ModelFolder(folder), "gguf-q4_k_m", 3)
    kinds = {"down": model.model.layers[0].mlp.down_proj.weight, "up": model.model.layers[0].mlp.up_proj.weight}
    assert [one.kind for one in weights.stored if one.weight is kinds["down"]] == [ggml.Q4_K]
    assert [one.kind for one in weights.stored if one.weight is kinds["up"]] == [ggml.Q5_0]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in kinds}
    for step in range(7):
        weights.put(step)
        for name, weight in kinds.items():
            seen[name].append(weight.detach().clone())
        weights.restore()
        with torch.no_grad():
            for weight in kinds.values():
                weight.mul_(1.01)
    equal = {name: [torch.equal(*pair) for pair in pairwise(one)] for name, one in seen.items()}
    assert equal == {"down": [True, True, False, True, True, False], "up": [False] * 6}


def test_what_has_no_tensor_in_the_file_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = load_model(folder, CPU, torch.float32)
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"gguf-q8_0: the weight extra.weight of .* has no tensor"):
        quantised_weights(model, ModelFolder(folder), "gguf-q8_0", 1)
    experts = make_teacher(tmp_path / "experts", "mixtral")
    with pytest.raises(RecipeError, match="gguf-q8_0; not for a mixture of experts"):
        quantised_weights(model, ModelFolder(experts), "gguf-q8_0", 1)


STEPS = 9


def words(student: Path, corpus: Path, out: Path, *more: object) -> list[str]:
    """Distillation of a student from itself."""
    given = ["distill", student, "--teacher", student, "--corpus", corpus, "--out", out, "--tokens", STEPS * 4 * 16]
    given += ["--sequence-length", 16, "--batch-size", 4, "--warmup-steps", 1, "--states", "none"]
    return [str(word) for word in [*given, "--learning-rate", 1e-3, *more]]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("format_name", ["gguf-q4_0", "gguf-q4_k_m"])
def test_a_student_learns_its_unrounded_self_and_resumes_bit_for_bit(
    tmp_path: Path, corpus: Path, format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_model(tmp_path / "student", dtype=torch.bfloat16, **WIDE)
    options = ["--quantise", format_name, "--quantise-every", 4]
    assert main(words(student, corpus, tmp_path / "plain", "--tokens", 2 * 4 * 16)) == 0
    assert main(words(student, corpus, tmp_path / "one", *options)) == 0
    assert losses(tmp_path / "plain")[0] < 1e-6, "a student that is not rounded is its own teacher"
    assert losses(tmp_path / "one")[0] > 1e-2
    taken = ObjectiveTrainer.training_step
    with monkeypatch.context() as patch:

        def killed(self: ObjectiveTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
            if self.state.global_step == 6:  # between two roundings of K-quants
                raise KeyboardInterrupt
            return taken(self, *arguments, **options)

        patch.setattr(ObjectiveTrainer, "training_step", killed)
        often = [*options, "--runtime.checkpoint-minutes", 0]
        assert main(words(student, corpus, tmp_path / "two", *often)) != 0
    assert main(words(student, corpus, tmp_path / "two", *often)) == 0
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert json.loads((tmp_path / "one" / "artifact.json").read_text())["config"]["quantise"] == format_name


@pytest.mark.processes
def test_two_processes_train_as_one_does(tmp_path: Path, corpus: Path) -> None:
    student = make_model(tmp_path / "student", **WIDE)
    options = ["--quantise", "gguf-q4_k_m", "--optimizer", "adamw", "--runtime.device-batch-size", 2]
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(words(student, corpus, one, *options)) == 0
    together(words(student, corpus, two, *options))
    assert losses(one) == pytest.approx(losses(two), rel=1e-4)
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=1e-4, atol=1e-4)
