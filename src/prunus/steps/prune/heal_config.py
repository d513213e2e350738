"""Options of what is done about a cut before any training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from prunus.config import Config, Length, Size

_LENGTH = 512
_PER_INPUT = 32
_FEWEST = 16


class HealConfig(Config):
    """What is done about a cut before any training, by passes over a few sequences. A word alone stands for `refit`."""

    norms: bool = False
    """Scale each norm's gain by one number, so that what it gives is as large as the teacher's."""
    refit: Literal["auto", "none", "outputs", "all"] = "auto"
    """Refit linears by least squares: those that write the residual stream (`outputs`), or those that read it as well
    (`all`). `auto` scales norms and refits all, and keeps that where it brings the student nearer its teacher on
    sequences that it was not fitted on. It does nothing where there is no text, the vocabulary is cut, the family or
    the memory does not allow it, `method` is `minitron`, or `norms` or `depth` is given."""
    depth: Literal["none", "linear", "magnitude"] = "none"
    """What makes up for dropped layers: one `linear` map, folded into what the layer before them writes, or only their
    `magnitude`, by which all that later layers write is divided. A refit of outputs does more than either."""
    ridge: float = Field(default=0.1, gt=0)
    """How strongly refitted weights are held to what they were, relative to the mean square of their inputs."""
    samples: int = Field(default=0, ge=0)
    """Sequences of the calibration set to heal by. 0 follows from the student: 32 tokens for each channel or neuron
    that its widest linear reads."""
    sequence_length: Length = 0
    """Tokens of one of them; 0 is 512, or the model's context if that is less."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """A word alone stands for a refit, and `norms` or `depth` stand in place of `auto`."""
        if isinstance(raw, str):
            return {"refit": raw}
        if not isinstance(raw, dict) or raw.get("refit", "auto") != "auto":
            return raw
        given = raw.get("norms") or raw.get("depth", "none") != "none"
        return {**raw, "refit": "none"} if given else raw

    def suited(self, size: Size) -> HealConfig:
        """The same, with a calibration set that suits a student of that size."""
        length = self.sequence_length or min(_LENGTH, size.context)
        samples = self.samples or max(_PER_INPUT * size.widest // length, _FEWEST)
        return self.model_copy(update={"sequence_length": length, "samples": samples})

    @property
    def decided(self) -> HealConfig:
        """The same, with what `auto` tries."""
        return self.model_copy(update={"norms": True, "refit": "all"}) if self.refit == "auto" else self

    @property
    def asked(self) -> bool:
        """Whether anything is to be done, whatever it does to the student."""
        return self.norms or self.refit in {"outputs", "all"} or self.depth != "none"
