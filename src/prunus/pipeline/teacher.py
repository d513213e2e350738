"""The teacher as a plan sees it: found, made anew, or made larger first."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from prunus.errors import RecipeError
from prunus.fingerprint import digest
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step, given_model, given_tokenizer
from prunus.models.families.table import family_of
from prunus.models.folder import has_chat_template, shape_of_file
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe, TeacherConfig
from prunus.steps.create.config import CreateConfig


@dataclass(frozen=True)
class Teacher:
    """The model that students are made from, before its correction.

    Attributes:
        shape: Its dimensions.
        model: Itself as an input.
        tokenizer: What has its tokenizer, as an input.
    """

    shape: Shape
    model: Step | Given
    tokenizer: Step | Given

    @property
    def context(self) -> int:
        """Tokens that it was made for."""
        return self.shape.max_position_embeddings

    @property
    def folder(self) -> Path | None:
        """Where its tokenizer is, and the config of what it is made from; None where they are not here yet."""
        given = self.tokenizer
        return given.value if isinstance(given, Given) and isinstance(given.value, Path) else None

    @property
    def may_chat(self) -> bool:
        """Whether its tokenizer has a chat template, or cannot be looked at; one made here may be given one."""
        if isinstance(self.tokenizer, Step):
            return isinstance(self.tokenizer.config, CreateConfig) and self.tokenizer.config.chat
        return self.folder is None or has_chat_template(self.folder)


def find_teacher(recipe: Recipe, root: Path, hub: Hub) -> Teacher:
    """The teacher of a recipe.

    Raises:
        RecipeError: It is made anew or made larger, and nothing trains it after that.
        ModelError: It cannot be used, or not be made larger so (`ShapeError`).
        HubError: The hub does not give it.
    """
    config = recipe.teacher
    if config.create is not None:
        return _created(recipe, config.create, root, hub)
    found = _located(config, hub)
    if config.expand is None:
        return found
    if not recipe.correct.tokens and not config.align:
        raise RecipeError("correct.tokens: 0, but what teacher.expand adds does nothing until it is trained")
    step = Step("teacher", "expand", config.expand, {"model": found.model}, root)
    return Teacher(config.expand.target(found.shape, "teacher.expand"), step, found.tokenizer)


def _created(recipe: Recipe, create: CreateConfig, root: Path, hub: Hub) -> Teacher:
    raw = create.model_config_json()
    shape = Shape.from_config(raw, family_of(raw, "teacher.create"), "teacher.create")
    shape.check_loadable("teacher.create")
    if not recipe.correct.tokens:
        raise RecipeError("correct.tokens: 0, but teacher.create makes random weights; they need training")
    sources = hub.given_sources(recipe.data.corpus, "data.corpus")
    step = Step("teacher", "create", create, {"sources": sources}, root)
    return Teacher(shape, step, step)


def _located(config: TeacherConfig, hub: Hub) -> Teacher:
    """One that is somewhere already; a preview goes by `teacher.config` where the hub does not give it."""
    assert config.path is not None  # TeacherConfig takes one of the two
    with hub.tolerate_missing() if config.config is not None else nullcontext():
        model = hub.model(config.path, "teacher.path", config.revision, check=True)
        return Teacher(model.folder.shape, given_model(model), given_tokenizer(model))
    assert config.config is not None  # else the error was raised
    stand_in = Given(config.path, digest([config.path, config.revision]))
    return Teacher(shape_of_file(Path(config.config)), stand_in, stand_in)
