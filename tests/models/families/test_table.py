from pathlib import Path

import pytest

from prunus.errors import ModelError
from prunus.models import families
from prunus.models.families.table import FAMILIES, family_of


def test_every_file_of_a_family_is_found() -> None:
    files = [file for folder in families.__path__ for file in Path(folder).glob("*.py")]
    assert sum("\nFAMILY = " in file.read_text() for file in files) == len(FAMILIES)


def test_a_variant_that_a_table_is_not_for() -> None:
    with pytest.raises(ModelError, match="decoder_sparse_step is 2; the table of Qwen3-MoE is for 1 alone"):
        family_of({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "here")


def test_unknown_families_and_custom_code_are_refused() -> None:
    with pytest.raises(ModelError, match="did you mean `llama`"):
        family_of({"model_type": "lama"}, "here")
    with pytest.raises(ModelError, match="never runs"):
        family_of({"model_type": "lama", "auto_map": {"AutoConfig": "configuration_lama.LamaConfig"}}, "here")
