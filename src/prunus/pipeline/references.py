"""The reference models of an evaluation."""

from __future__ import annotations

import re
from pathlib import Path

from prunus.config import MAX_NAME, check_length
from prunus.graph.hub import Hub
from prunus.models.folder import has_chat_template
from prunus.models.locate import Located
from prunus.pipeline.recipe import Recipe
from prunus.steps.evaluate.check import check_chat


def find_references(recipe: Recipe, hub: Hub) -> dict[str, Located]:
    """The reference models, by the subject of their steps.

    Raises:
        HubError: A model is neither local nor available from the hub.
        ModelError: A model cannot be used.
        RecipeError: A model has no chat template and a task needs one, or its context is too short.
    """
    found: dict[str, Located] = {}
    for i, path in enumerate(recipe.evaluate.references):
        where = f"evaluate.references.{i}"
        with hub.tolerate_missing():
            model = hub.model(path, where, check=True)
            check_chat(recipe.evaluate, has_chat_template(model.folder.path), f"{where}: {path}")
            check_length(where, recipe.evaluate.sequence_length, model.folder.context)
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).name)[:MAX_NAME].strip("-") or str(i)
            if name in (*recipe.students, *found, "teacher", "data"):
                name = f"{name}-{i}"
            found[name] = model
    return found
