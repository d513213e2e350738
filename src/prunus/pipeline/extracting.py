"""Models of several parts in place of text models: the text model inside is extracted once, into a cache."""

from __future__ import annotations

import re

from prunus import distributed
from prunus.console import Console
from prunus.errors import ModelError
from prunus.files import cache_folder
from prunus.graph.steps import Step, given_model
from prunus.models.families.nested import OUTER
from prunus.models.folder import ModelFolder
from prunus.models.locate import Located, locate_model
from prunus.models.texts import read_optional_json
from prunus.pipeline.run import execute
from prunus.runtime import Runtime
from prunus.steps.extract.config import ExtractConfig

_NAME = 60  # characters of the model's name in the folder's name


def locate_whole(path: str, where: str) -> Located:
    """Locate a model of several parts, without extracting its text model.

    Raises:
        ModelError: It does not exist, or is a GGUF file.
        HubError: It cannot be fetched from the hub.
    """
    if path.endswith(".gguf"):
        raise ModelError(
            f"{where}: {path} is a GGUF file, which holds a text model alone (`prunus convert` makes a folder of it); "
            "expected the folder or id of a model of several parts"
        )
    return locate_model(path, None, where)


def text_of(model: Located, where: str, weights: bool) -> Located:
    """The model itself, or the text model inside if it is of several parts, such as one for vision and language.

    Args:
        model: The model.
        where: The name of the option, for messages.
        weights: False extracts only config and tokenizer, which is enough to plan.

    Raises:
        ModelError: Its text model is not known, or its weights do not match its config.
    """
    if read_optional_json(model.folder.path / "config.json").get("model_type") not in OUTER:
        return model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.source or model.folder.path.name)[:_NAME].strip("-.") or "model"

    def extracting(config: ExtractConfig) -> Step:
        return Step("text", name, config, {"whole": given_model(model)}, cache_folder())

    whole = extracting(ExtractConfig())
    source = f"{name}@{whole.fingerprint}"
    if whole.artifact.record is not None and whole.artifact.is_done():
        return Located(ModelFolder(whole.value), source)
    step = whole if weights else extracting(ExtractConfig(weights=False))
    console = Console(quiet=not weights or distributed.rank() > 0)
    console.say(f"{where}: extracting the text model (once), into {whole.value}")
    return Located(ModelFolder(execute(step, Runtime(), console)), source)
