"""What text a recipe uses, and how it is cut into tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from prunus.config import Config, Path, StepConfig
from prunus.world.config import WorldConfig


class Place(Config):
    """Where rows are read from."""

    path: Path
    """A local file (.jsonl, .json, .csv, .parquet or .txt; also as .gz, .bz2, .xz or .zst), never a pattern of names; a
    dataset's id on the hub, `builtin:python`, or `builtin:world`."""
    name: str | None = None
    """The configuration of a dataset that has several; of `builtin:world` `stories`, `chants` or `chat`."""
    split: str = "train"
    """The split of a dataset on the hub, or of `builtin:world`: `train` or `held_out`."""
    revision: str | None = None
    """The commit of a dataset on the hub; the newest if not given."""
    world: WorldConfig | None = None
    """Which world `builtin:world` is; the default one if not given."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """A path alone stands for a source."""
        return {"path": raw} if isinstance(raw, str) else raw


class Source(Place):
    """One source of text."""

    column: str = "text"
    """The column that holds the text."""
    weight: float | None = Field(default=None, gt=0)
    """Share of the tokens, relative to the other sources'. Without weights all of every source is taken."""


class ChatSource(Place):
    """One source of conversations, of pairs of answers, or of answers with labels, in the forms of docs/align.md."""

    columns: Mapping[str, str] = Field(default_factory=dict)
    """What its columns are called, where that is none of the usual names, such as `{messages: dialog}`."""
    limit: int | None = Field(default=None, ge=1)
    """Read so many rows at most."""


class DataConfig(Config):
    """The text that a recipe trains on, and the text that it is judged by."""

    corpus: tuple[Source, ...] = Field(min_length=1)
    """Text for correction, scoring and distillation."""
    chat: tuple[ChatSource, ...] = ()
    """Conversations for alignment, for every stage that names none of its own."""
    template: Path | None = None
    """A chat template (Jinja) in place of the model's own: a file, or `builtin:plain`. Aligned models keep it."""
    held_out: tuple[Source, ...] = ()
    """Text for evaluation. Without any, a part of the corpus is held out, chosen by each document's hash."""
    held_out_fraction: float = Field(default=0.02, gt=0, lt=1)
    """Share of the corpus's documents that is held out where `held_out` names no source."""
    append_eos: bool = True
    """End each document with the tokenizer's end-of-sequence token, or the one that config.json names, where there is
    one and the tokenizer has not ended it itself."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Stop reading the corpus after so many tokens."""

    @model_validator(mode="after")
    def _all_or_none_weighted(self) -> DataConfig:
        for sources in (self.corpus, self.held_out):
            if len({source.weight is None for source in sources}) > 1:
                raise ValueError("either every source has a weight, or none has")
        return self


class TokensConfig(StepConfig):
    """One stream of tokens: which documents of the sources are kept, and how they are joined."""

    kind: ClassVar[str] = "data"
    revision: ClassVar[int] = 2

    part: Literal["all", "train", "held_out", "ranking", "recovery"] = "all"
    """Which documents to keep: all, or one side of the split by hash; of a search, as many as are held out, of the
    others, to rank by (`ranking`), and what is neither (`recovery`)."""
    held_out_fraction: float = 0.02
    """Share of the documents on the held-out side."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""
    max_tokens: int | None = None
    """Stop after so many tokens."""
