"""The teacher of a plan: an existing model, a new one (`create`), or one that is first made larger (`expand`)."""

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
        model: The model, as an input of steps.
        tokenizer: The folder with its tokenizer, as an input of steps.
    """

    shape: Shape
    model: Step | Given
    tokenizer: Step | Given

    @property
    def context(self) -> int:
        """Its maximum sequence length in tokens."""
        return self.shape.max_position_embeddings

    @property
    def folder(self) -> Path | None:
        """The folder with its tokenizer and the config of its source model; None if it does not exist yet."""
        given = self.tokenizer
        return given.value if isinstance(given, Given) and isinstance(given.value, Path) else None

    @property
    def may_chat(self) -> bool:
        """Whether its tokenizer has a chat template, or may have one because it cannot be read yet."""
        if isinstance(self.tokenizer, Step):
            return isinstance(self.tokenizer.config, CreateConfig) and self.tokenizer.config.chat
        return self.folder is None or has_chat_template(self.folder)


def find_teacher(recipe: Recipe, root: Path, hub: Hub) -> Teacher:
    """The teacher of a recipe.

    Raises:
        RecipeError: It is created or made larger, and nothing trains it afterwards.
        ModelError: It cannot be used, or not made larger as specified (`ShapeError`).
        HubError: The hub does not provide it.
    """
    config = recipe.teacher
    if config.create is not None:
        return _created(recipe, config.create, root, hub)
    found = _located(config, hub)
    if config.expand is None:
        return found
    if not recipe.correct.tokens and not config.align:
        raise RecipeError("correct.tokens: 0, but the weights that teacher.expand adds have no effect until trained")
    step = Step("teacher", "expand", config.expand, {"model": found.model}, root)
    return Teacher(config.expand.target(found.shape, "teacher.expand"), step, found.tokenizer)


def _created(recipe: Recipe, create: CreateConfig, root: Path, hub: Hub) -> Teacher:
    raw = create.model_config_json()
    shape = Shape.from_config(raw, family_of(raw, "teacher.create"), "teacher.create")
    shape.check_loadable("teacher.create")
    if not recipe.correct.tokens:
        raise RecipeError("correct.tokens: 0, but teacher.create makes random weights, which need training")
    sources = hub.given_sources(recipe.data.corpus, "data.corpus")
    step = Step("teacher", "create", create, {"sources": sources}, root)
    return Teacher(shape, step, step)


def _located(config: TeacherConfig, hub: Hub) -> Teacher:
    """An existing teacher. If the hub does not provide it, a preview uses `teacher.config`."""
    assert config.path is not None  # TeacherConfig has either path or create
    with hub.tolerate_missing() if config.config is not None else nullcontext():
        model = hub.model(config.path, "teacher.path", config.revision, check=True)
        return Teacher(model.folder.shape, given_model(model), given_tokenizer(model))
    assert config.config is not None  # without it, the error was raised above
    stand_in = Given(config.path, digest([config.path, config.revision]))
    return Teacher(shape_of_file(Path(config.config)), stand_in, stand_in)
