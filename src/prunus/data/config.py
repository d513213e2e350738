"""Options of text sources, and of their tokenisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prunus.config import ADDED, Config, Location, StepConfig
from prunus.world.config import WorldConfig


class SourceRef(Config):
    """Where rows are read from."""

    path: Location
    """Local file (.jsonl, .json, .csv, .parquet or .txt; also .gz, .bz2, .xz or .zst; no glob patterns), dataset id on
    the hub, `builtin:python`, or `builtin:world`."""
    name: str | None = None
    """Configuration of a dataset that has several. For `builtin:world`: `stories`, `chants` or `chat`."""
    split: str = "train"
    """Split of a dataset on the hub, or of `builtin:world` (`train` or `held_out`)."""
    revision: str | None = None
    """Commit of a dataset on the hub. If unset: the newest."""
    world: WorldConfig | None = None
    """Options of `builtin:world`. If unset: the default world."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """Accept a path instead of a mapping."""
        return {"path": raw} if isinstance(raw, str) else raw


class ChatSource(SourceRef):
    """One source of conversations, of preference pairs, or of answers with labels, in the forms of docs/align.md."""

    columns: Mapping[str, str] = Field(default_factory=dict)
    """Column names that differ from the usual ones, such as `{messages: dialog}`."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most this many rows."""


class Source(SourceRef):
    """One source of text, or of conversations as text."""

    column: str = "text"
    """Column that holds the text."""
    rows: Annotated[Literal["text", "chat"], ADDED] = "text"
    """What a row holds: `text`, in a column; or a conversation (`chat`) in one of the forms of docs/align.md, rendered
    by the chat template. Distillation and correction train on its answers alone, unless `learn_prompts` is set."""
    columns: Annotated[Mapping[str, str], ADDED] = {}
    """`rows: chat`: column names that differ from the usual ones, such as `{messages: dialog}`."""
    weight: float | None = Field(default=None, gt=0)
    """Share of the tokens, relative to the other sources. If no source has a weight, all of every source is read."""

    @model_validator(mode="after")
    def _fits_the_rows(self) -> Source:
        if self.rows == "chat" and self.column != "text":
            raise ValueError(f"column: {self.column} is for rows: text; with rows: chat, use columns")
        if self.rows == "text" and self.columns:
            raise ValueError("columns: for rows: chat; with rows: text, use column")
        return self

    def as_chat(self) -> ChatSource:
        """The same source for readers of conversations."""
        return ChatSource(**{name: getattr(self, name) for name in ("columns", *SourceRef.model_fields)})


class DataConfig(Config):
    """Text to train on, and text to evaluate on."""

    corpus: tuple[Source, ...] = Field(min_length=1)
    """Text for correction, scoring and distillation."""
    chat: tuple[ChatSource, ...] = ()
    """Conversations for alignment: the default of every stage that sets no `data`."""
    template: Location | None = None
    """Chat template (Jinja) that replaces the model's, for `chat` and for sources with `rows: chat`: a file, or
    `builtin:plain`. Aligned models keep it."""
    held_out: tuple[Source, ...] = ()
    """Text for evaluation. If unset: a part of the corpus, held out by each document's hash."""
    held_out_fraction: float = Field(default=0.02, gt=0, lt=1)
    """Fraction of the corpus's documents to hold out if `held_out` names no source."""
    append_eos: bool = True
    """End each document with an end-of-sequence token: the tokenizer's, else that of config.json, if there is one and
    the tokenizer does not add it already."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Stop reading the corpus after this many tokens."""

    @field_validator("corpus", "chat", "held_out", mode="before")
    @classmethod
    def _one_source(cls, raw: Any) -> Any:
        """Accept one source instead of a list."""
        return [raw] if isinstance(raw, (str, Mapping)) else raw

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
    """Documents to keep: all, or one side of the split by hash. For a search: `ranking`, another part of the size of
    the held-out one, to rank on; and `recovery`, the documents in neither."""
    held_out_fraction: float = 0.02
    """Fraction of the documents on the held-out side."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""
    max_tokens: int | None = None
    """Stop after this many tokens."""
    template: Annotated[str | None, ADDED] = None
    """Chat template for sources of conversations. If unset: the tokenizer's."""
