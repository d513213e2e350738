"""Options of a new teacher."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from prunus.config import Seed, StepConfig
from prunus.models.families.llama import FAMILY
from prunus.world.rows import MARKS


class CreateConfig(StepConfig):
    """A Llama with random weights and a byte-level BPE tokenizer learnt from the corpus, for `correct` to train."""

    kind: ClassVar[str] = "create"
    revision: ClassVar[int] = 4

    vocab_size: int = Field(default=4096, ge=260)
    """Vocabulary size: 256 bytes, two special tokens (twelve with `chat`), and merges."""
    hidden_size: int = Field(default=256, ge=1)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=688, ge=1)
    """Neurons of each MLP."""
    num_hidden_layers: int = Field(default=6, ge=1)
    """Number of layers."""
    num_attention_heads: int = Field(default=8, ge=1)
    """Query heads per layer."""
    num_key_value_heads: int = Field(default=4, ge=1)
    """KV heads per layer."""
    max_position_embeddings: int = Field(default=1024, ge=2)
    """Longest context, in tokens."""
    tie_word_embeddings: bool = True
    """Use the embedding matrix as the LM head."""
    tokenizer_documents: int = Field(default=2000, ge=1)
    """Documents of the corpus to learn the tokenizer from, taken from the sources in turn."""
    split_digits: bool = False
    """Make every digit a separate token."""
    chat: bool = False
    """Add the chat template of `builtin:sapling`, including tools, and a token for each of its markers."""
    attention: Literal["normal", "mimetic"] = "normal"
    """Initial weights of attention. `normal`: as in transformers. `mimetic`: queries equal to keys, and outputs that
    invert the values, so that a model learns earlier to attend to its context (after arXiv 2305.09828)."""
    seed: Seed = 0
    """Seed of the weights."""

    @model_validator(mode="after")
    def _room_for_marks(self) -> CreateConfig:
        least = 258 + len(MARKS)
        if self.chat and self.vocab_size < least:
            raise ValueError(
                f"vocab_size: {self.vocab_size} is too small for the special tokens of `chat`; allowed: {least} or more"
            )
        return self

    def model_config_json(self) -> dict[str, Any]:
        """The model's config.json."""
        keys = set(type(self).model_fields) - {"tokenizer_documents", "split_digits", "chat", "attention", "seed"}
        return {
            **self.model_dump(include=keys),
            "model_type": FAMILY.model_type,
            "architectures": [FAMILY.class_name],
            "head_dim": self.hidden_size // self.num_attention_heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "initializer_range": 0.02,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "bos_token_id": 0,
            "eos_token_id": 1,
            "dtype": "float32",
        }
