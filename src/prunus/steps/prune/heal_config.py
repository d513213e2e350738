"""Options of healing: what is corrected after a cut, before any training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prunus.config import ADDED, Config, Length, Size

_SEQUENCE_LENGTH = 512
_TOKENS_PER_INPUT = 96
_MIN_SAMPLES = 16

CACHE_BYTES = 2**30
"""Bytes of a layer's activations that are kept on a CPU, at most, of each kind; see `activations.LayerRunner`."""


class HealConfig(Config):
    """Adjust the weights after a cut, before training, from a few sequences. Shorthand: the value of `refit`."""

    norms: bool = False
    """Scale each norm's gain by one factor, so that its output is as large as the teacher's."""
    refit: Literal["auto", "none", "outputs", "all"] = "auto"
    """Refit linear layers by least squares: those that write the residual stream (`outputs`), or also those that read
    it (`all`). `auto`: scale norms and refit all; keep that if it brings the student closer to its teacher on other
    sequences. `auto` does nothing without text, with a cut vocabulary, where family or memory do not allow it, with
    `method: minitron`, or if `norms` or `depth` is set."""
    depth: Literal["none", "linear", "magnitude"] = "none"
    """Compensation for dropped layers: `linear`, one map folded into the output of the layer before them; or
    `magnitude`, one factor that the outputs of all later layers are divided by. Refitting outputs does more than
    either."""
    ridge: float = Field(default=0.1, gt=0)
    """Ridge penalty that holds refitted weights to their values before, relative to the mean square of their inputs."""
    inner_weight: Annotated[float, ADDED] = Field(default=1.0, ge=0)
    """With `nest`: sizes are refitted one after the other, the smallest first. What a smaller size loses by a change of
    weights counts this much, relative to the errors of the size that is refitted. Large: they keep their values."""
    samples: int = Field(default=0, ge=0)
    """Sequences of the calibration set. 0: follows from the student's size: 96 tokens per input (channel or neuron) of
    its widest linear layer."""
    sequence_length: Length = 0
    """Tokens per sequence. 0: 512, or the model's context if that is shorter."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """Accept the value of `refit` alone; with `norms` or `depth`, `refit: auto` becomes `none`."""
        if isinstance(raw, str):
            return {"refit": raw}
        if not isinstance(raw, dict) or raw.get("refit", "auto") != "auto":
            return raw
        is_set = raw.get("norms") or raw.get("depth", "none") != "none"
        return {**raw, "refit": "none"} if is_set else raw

    def with_defaults(self, size: Size) -> HealConfig:
        """The options with the size of the calibration set filled in for a student of that size."""
        length = self.sequence_length or min(_SEQUENCE_LENGTH, size.context)
        samples = self.samples or max(_TOKENS_PER_INPUT * size.widest // length, _MIN_SAMPLES)
        return self.model_copy(update={"sequence_length": length, "samples": samples})

    @property
    def effective(self) -> HealConfig:
        """The options with `auto` replaced by what it tries: norms and all linear layers."""
        return self.model_copy(update={"norms": True, "refit": "all"}) if self.refit == "auto" else self

    @property
    def explicit(self) -> bool:
        """Whether healing is set explicitly, so that its result is kept without a comparison."""
        return self.norms or self.refit in {"outputs", "all"} or self.depth != "none"
