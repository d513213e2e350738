"""The sizes of a model as options: one of several in a nest, or one to cut out of it."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from prunus.config import Config


class Sizes(Config):
    """A size of a nest, by what it keeps; what is unset stays as it is."""

    num_hidden_layers: int | None = Field(default=None, ge=1)
    """Layers to keep."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Channels of the residual stream to keep."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Neurons of each MLP to keep; in a mixture of experts, of each expert."""
    num_attention_heads: int | None = Field(default=None, ge=1)
    """Query heads to keep, the same number in every KV group."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """KV heads to keep, each with its query heads."""
    head_dim: int | None = Field(default=None, ge=2)
    """Dimensions of each head to keep."""
    num_experts: int | None = Field(default=None, ge=1)
    """Experts of each layer to keep."""

    @model_validator(mode="before")
    @classmethod
    def _one_vocabulary(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "vocab_size" in raw:
            raise ValueError(
                f"vocab_size: {raw['vocab_size']!r:.40}; all sizes of a nest have one vocabulary, the teacher's"
            )
        return raw
