from pathlib import Path

import pytest
import torch

from prunus.errors import ModelError
from prunus.models.load import load_model, load_tokenizer, save_model
from prunus.models.locate import locate_model
from tests.tiny import make_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_was_trained_in_float32_is_saved_as_it_came(tmp_path: Path, dtype: torch.dtype) -> None:
    """Rotary frequencies stay in float32, as every loader has them: rounded, they would turn late positions astray."""
    source = make_model(tmp_path / "model", dtype=dtype, head_dim=16)
    model = load_model(source, CPU, torch.float32)
    assert save_model(model, tmp_path / "saved", dtype) == 0
    assert {weight.dtype for weight in load_model(tmp_path / "saved", CPU, dtype).parameters()} == {dtype}


def test_a_model_that_comes_along() -> None:
    folder = locate_model("builtin:sapling", None, "teacher.path").folder
    folder.check()
    assert folder.dtype == "BF16"
    assert sum(file.stat().st_size for file in folder.path.iterdir()) <= 16 * 2**20
    model, tokenizer = load_model(folder.path, CPU, torch.float32), load_tokenizer(folder.path)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id


def test_one_that_does_not() -> None:
    with pytest.raises(
        ModelError, match=r"teacher.path: unknown 'builtin:saplign' \(did you mean `builtin:sapling`\?\)"
    ):
        locate_model("builtin:saplign", None, "teacher.path")
