"""Speed comparison of models, GGUF files or folders, all run by the same engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.errors import RecipeError
from prunus.gguf.metadata import check_model
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import format_label, write_gguf
from prunus.llamacpp.header import read_header
from prunus.llamacpp.running import Running
from prunus.llamacpp.sanity import file_warnings
from prunus.models.folder import ModelFolder
from prunus.models.locate import locate_runnable
from prunus.runtime import Runtime
from prunus.steps.export.targets import check_formats
from prunus.tools.bench.config import BenchConfig
from prunus.tools.bench.engine import Transformers
from prunus.tools.bench.speed import Model, measure, prompt_of, weights_of


def compare(
    paths: Sequence[str], config: BenchConfig, runtime: Runtime, place: Path, console: Console
) -> list[dict[str, Any]]:
    """Compare the speed of models.

    Args:
        paths: GGUF files and model folders; ratios are relative to the first.
        config: The options.
        runtime: Device and precision of transformers.
        place: A folder for the GGUF files that model folders are converted to.
        console: Shows the progress.

    Raises:
        RecipeError: A path is neither, or the engine does not support it.
        ModelError: A folder cannot be used.
    """
    files = [_file(path, config) for path in paths]
    folders = {path: ModelFolder(path) for path in files if path.is_dir()}
    for folder in folders.values():
        folder.check()
    for named, path in zip(paths, files, strict=True):
        context = folders[path].context if path in folders else read_header(path).context
        if config.prompt_tokens + config.new_tokens >= context:
            raise RecipeError(
                f"--prompt-tokens: {config.prompt_tokens} and --new-tokens: {config.new_tokens} exceed the context of "
                f"{named}, {context} tokens"
            )
    if config.engine == "transformers":
        models = _in_transformers(files, runtime)
        vocabulary = min(folder.shape.vocab_size for folder in folders.values())
    else:
        for line in (line for file in files if file.is_file() for line in file_warnings(file)):
            console.warn(line)
        models, vocabulary = _in_llama_cpp(files, folders, config, place)
    prompt = prompt_of(config.prompt_tokens, vocabulary, config.seed)
    with console.progress("bench", config.rounds, "rounds") as progress:
        return measure(models, prompt, config.new_tokens, config.rounds, progress.update)


def _in_transformers(files: Sequence[Path], runtime: Runtime) -> list[Model]:
    return [
        Model(name, weights_of(path), partial(Transformers, path, runtime.device, runtime.precision))
        for name, path in zip(_names(files), files, strict=True)
    ]


def _in_llama_cpp(
    files: Sequence[Path], folders: Mapping[Path, ModelFolder], config: BenchConfig, place: Path
) -> tuple[list[Model], int]:
    """The models, with folders converted to GGUF, and the size of the smallest vocabulary."""
    check_formats([config.format], "--format")
    context, models, sizes = config.prompt_tokens + config.new_tokens + 1, [], []
    for i, (name, path) in enumerate(zip(_names(files), files, strict=True)):
        file, label = path, name
        if path in folders:
            file, label = place / f"{i}.gguf", f"{name} {format_label(config.format)}"
            _write(folders[path], config.format, file)
        models.append(Model(label, weights_of(file), partial(Running, file, context, exact=False)))
        sizes.append(read_header(file).vocab_size)
    return models, min(sizes)


def _file(path: str, config: BenchConfig) -> Path:
    file = locate_runnable(path, "MODELS")
    if file.is_file() and config.engine == "transformers":
        raise RecipeError(f"{path}: --engine transformers runs only model folders; a GGUF file needs llama.cpp")
    return file


def _write(folder: ModelFolder, format_name: str, file: Path) -> None:
    check_model(folder.config, folder.shape, str(folder.path))
    write_gguf(folder, read_vocabulary(folder.path, folder.shape.vocab_size), format_name, file)


def _names(files: Sequence[Path]) -> list[str]:
    """The shortest endings of the paths that distinguish them."""
    parts = [file.parts for file in files]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
