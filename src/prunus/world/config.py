"""Options of the generated world: skills, difficulty and mixture."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from prunus.config import Config, Seed
from prunus.errors import among

MIXTURE: dict[str, float] = {"instruction_following": 1.0, "roleplay": 1.0, "rag": 2.0, "function_calling": 2.0}
"""The skills in the world, by their names in `prunus.verify.skills`, and their default shares."""
SKILLS = tuple(MIXTURE)
KINDS: tuple[str, ...] = (*SKILLS, "copying", "stories")
"""The kinds of a mixture: the skills; pure copying, which speeds up learning them; and stories on request."""
Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)
Part = Literal["train", "held_out"]
Share = Annotated[float, Field(ge=0)]

WORLD = "builtin:world"
"""Its name as a source of text or items."""
REVISION = 3
"""Raised whenever the same options come to give other text."""


class WorldConfig(Config):
    """A small world of generated text, in which four skills exist in miniature."""

    difficulty: Difficulty = "easy"
    """How many passages, tools, arguments and constraints appear at a time, and how varied the phrasing is."""
    mixture: dict[str, Share] = MIXTURE
    """Relative frequency of conversations by kind: each skill, pure `copying`, and `stories`."""
    turns: int = Field(default=3, ge=1)
    """Most questions in one training conversation. Held-out items have one."""
    documents: int = Field(default=20_000, ge=1)
    """Stories, or chants, in the training split."""
    conversations: int = Field(default=60_000, ge=1)
    """Conversations in the training split."""
    held_out_items: int = Field(default=500, ge=1)
    """Held-out items of each skill, and held-out stories."""
    seed: Seed = 0
    """Seed of the whole world. The same seed gives the same text, word for word."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, raw: Any) -> Any:
        """Suggest the nearest level for a misspelt one."""
        level = raw.get("difficulty") if isinstance(raw, dict) else None
        if isinstance(level, str) and level not in DIFFICULTIES:
            raise ValueError(f"difficulty: unknown {level!r}{among(level, DIFFICULTIES)}")
        return raw

    @field_validator("mixture")
    @classmethod
    def _skills(cls, mixture: dict[str, float]) -> dict[str, float]:
        for name in mixture:
            if name not in KINDS:
                raise ValueError(f"unknown skill {name!r}{among(name, KINDS)}")
        if not sum(mixture.values()):
            raise ValueError("every skill has a share of 0; at least one must have more")
        return mixture
