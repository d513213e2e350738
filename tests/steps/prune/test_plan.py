"""The estimated memory of a cut."""

from dataclasses import replace

from prunus.costs import CostContext
from prunus.models.families.table import FAMILIES
from prunus.models.shape import Shape
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.heal_config import CACHE_BYTES
from prunus.steps.prune.plan import cost

TEACHER = Shape.from_config(
    {
        "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    FAMILIES["llama"], "test",
)  # fmt: skip
STUDENT = replace(TEACHER, hidden_size=480, num_attention_heads=6, intermediate_size=832)


def memory(**options: object) -> int:
    config = PruneConfig.model_validate({"hidden_size": 480, "method": "rotate", **options})
    return cost(config, STUDENT, CostContext(TEACHER, 5)).memory_bytes


def refit(samples: int) -> int:
    return memory(heal={"refit": "all", "samples": samples, "sequence_length": 512})


def test_a_refit_holds_both_models_streams_and_a_layers_activations() -> None:
    models = 4 * (TEACHER.parameters + STUDENT.parameters)
    # SmolLM2's half on 73.7k tokens took 3.93 GB, libraries of 0.5 to 0.6 GB included
    assert 3.0e9 < refit(144) < 3.4e9
    assert refit(144) - refit(72) > 72 * 512 * 4 * 3 * (576 + 480)
    # beyond some length only the streams grow: a layer's activations are kept up to a limit
    assert refit(4000) - refit(3000) == 1000 * 512 * 4 * 3 * (576 + 480)
    assert refit(4000) == models + 4000 * 512 * 4 * 3 * (576 + 480) + 2 * CACHE_BYTES


def test_the_check_of_a_cut_holds_both_models_and_logits_of_a_sequence() -> None:
    models = 4 * (TEACHER.parameters + STUDENT.parameters)
    assert memory(heal="none") == models + 6 * 256 * 49152 * 4
    assert memory(heal="none", check_samples=0) == 0
