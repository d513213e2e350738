"""What a run reads, in what order, and what of it counts."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.data.tokens import Tokens
from prunus.errors import ArtifactError
from prunus.steps.correct.config import CorrectConfig
from prunus.training.objectives import CrossEntropy
from prunus.training.record import last_checkpoint
from prunus.training.sequences import Sequences
from tests.families import make_teacher
from tests.tiny import load

LENGTHS = np.array([7, 3, 12, 5, 9, 4, 8])
PROMPTS = np.array([2, 1, 11, 0, 3, 4, 1])


def made(prompts: np.ndarray | None = None) -> Tokens:
    ids, ends = np.arange(LENGTHS.sum(), dtype=np.uint16), np.cumsum(LENGTHS)
    answers = None if prompts is None else np.stack([ends - LENGTHS + prompts, ends], axis=1)
    return Tokens(ids, ends, LENGTHS * 3, answers)


def options(**changes: object) -> CorrectConfig:
    given = {"tokens": 48, "sequence_length": 8, "batch_size": 2, "warmup_steps": 0, **changes}
    return CorrectConfig.model_validate(given)


def test_text_without_prompts_counts_whole() -> None:
    item = Sequences(made(), options())[0]
    assert set(item) == {"input_ids", "numbers"}


def test_what_answers_a_prompt_counts_and_steps_have_a_mean_of_one() -> None:
    tokens = made(PROMPTS)
    sequences = Sequences(tokens, options())
    answers = np.concatenate([np.arange(length) >= prompt for length, prompt in zip(LENGTHS, PROMPTS, strict=True)])
    for step in range(3):
        items = [sequences[step * 2 + i] for i in range(2)]
        assert sum(item["weights"].sum() for item in items) == pytest.approx(16)
        for item in items:
            expected = [*answers[item["input_ids"][1:]], False]  # ids are places in the stream here
            assert (item["weights"] > 0).tolist() == expected
    assert "weights" not in Sequences(tokens, options(learn_prompts=True))[0]


def test_positions_start_anew_with_each_document() -> None:
    item = Sequences(made(PROMPTS), options(attend_across_documents=False))[3]
    first = item["numbers"] * 8
    starts = np.cumsum(LENGTHS) - LENGTHS
    expected = [place - max(starts[starts <= place].max(), first) for place in range(first, first + 8)]
    assert item["position_ids"].tolist() == expected


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "qwen3", "gpt2", "gpt_neox"])
def test_a_document_kept_apart_is_read_as_if_it_stood_alone(tmp_path: Path, model_type: str) -> None:
    model = load(make_teacher(tmp_path / "model", model_type))
    ids = torch.arange(20)[None] * 7 % 300
    positions = torch.tensor([[*range(8), *range(5), *range(7)]])
    with torch.no_grad():
        packed = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[0]
        borders = [(0, 8), (8, 13), (13, 20)]
        alone = [model.base_model(input_ids=ids[:, a:b], use_cache=False).last_hidden_state[0] for a, b in borders]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_portions_with_padding_and_without_make_the_same_loss(tmp_path: Path) -> None:
    """The loss of a step does not depend on how its sequences are dealt out."""
    model = load(make_teacher(tmp_path / "model", "llama"))
    sequences = Sequences(made(PROMPTS), options())
    items = [{name: torch.from_numpy(value)[None] for name, value in sequences[i].items() if name != "numbers"}
             for i in range(2)]  # fmt: skip
    objective = CrossEntropy(model)
    with torch.no_grad():
        apart = sum(objective(**item).item() for item in items) / 2
        together = objective(**{name: torch.cat([item[name] for item in items]) for name in items[0]}).item()
    assert apart == pytest.approx(together, rel=1e-5)


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    for step, owner in ((5, "mine"), (10, "mine")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "complete").write_text(owner)
    (tmp_path / "checkpoint-15").mkdir()  # half-written
    assert last_checkpoint(tmp_path, "mine") == str(tmp_path / "checkpoint-10")
    with pytest.raises(ArtifactError, match="checkpoint of training with other options"):
        last_checkpoint(tmp_path, "yours")
    assert last_checkpoint(tmp_path / "none", "mine") is None


def test_workers_can_be_given_it() -> None:
    """Where processes are spawned, what loads the data is pickled."""
    sequences = Sequences(made(PROMPTS), options())
    first = sequences[0]
    copied = pickle.loads(pickle.dumps(sequences))[0]
    assert all((copied[name] == value).all() for name, value in first.items())
