"""The model card of each student: README.md with the hub's YAML, from a run's records.

The hub's fields: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from prunus.console import human, human_bytes, printable
from prunus.environment import as_used
from prunus.errors import ArtifactError
from prunus.files import read_object, replace_text
from prunus.licences import Licence, licence_named, licence_of
from prunus.models.families.table import family_of
from prunus.models.locate import BUILTINS, locate_model
from prunus.models.shape import Shape
from prunus.report import tasks
from prunus.report.forms import CardRecipeForm
from prunus.report.parts import part_metadata, parts_of
from prunus.report.records import Result, Run, check, load_run
from prunus.report.table import HEADER, comparison, merged_by, methods
from prunus.yaml12 import dump_yaml

CARD = "README.md"
MARKER = "<!-- Written by Prunus out of the run's records. Remove this line to keep what you write here. -->"
_PATHS = ("path", "config", "task", "of", "base", "data", "gold", "template", "references", "model", "prompts")
_ADDRESS = "${URL}"
"""Replaces a server's address: other users have another server, and this one may be private."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCE_KEYS = ("license", "license_name", "license_link")


def write_cards(root: Path) -> list[Path]:
    """Write the card of every student of the run in `root` into its last folder, and into that of its export.

    A card without the marker line under the YAML was edited by hand, and is not overwritten.

    Returns:
        The cards that were written.

    Raises:
        ArtifactError: `root` is not the folder of a run, or a record is damaged.
    """
    run = load_run(root)
    if run.recipe.get("students"):
        check(run.recipe, CardRecipeForm, f"{root / 'run.json'}: recipe")
    written = []
    sizes = [result.subject for result in run.of_kind("cutout")]
    for name in (*run.recipe.get("students", {}), *sizes):
        own = [result for result in run.results if result.subject == name]
        plain = [result for result in own if result.kind != "export" and result.label != "qat"]
        models = [result for result in plain if (result.folder / "config.json").is_file()]
        exports = [result for result in own if result.kind == "export"]
        if not models:
            continue
        texts = card_texts(run, name, models[-1], exports[-1] if exports else None)
        written += [card for card in (_write(folder / CARD, text) for folder, text in texts.items()) if card]
    return written


def _write(card: Path, text: str) -> Path | None:
    if card.is_file() and MARKER not in card.read_text(encoding="utf-8", errors="replace"):
        return None
    replace_text(card, printable(text))
    return card


def card_texts(run: Run, name: str, model: Result, export: Result | None) -> dict[Path, str]:
    """The cards of one student by folder: the model's, the export's, and one for each folder in the export."""
    config = read_object(model.folder / "config.json", ArtifactError)
    shape = Shape.from_config(config, family_of(config, name), name)
    teacher, source = (_file(run.origin), None) if run.origin else _teacher(run.recipe["teacher"])
    licence = licence_of(source) if source else licence_of(model.folder)
    if run.origin:
        licence = licence_named({key: run.origin.get(key.replace("_", ".")) for key in _LICENCE_KEYS})
    page = Environment(
        loader=PackageLoader("prunus.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False, keep_trailing_newline=True,
    )  # fmt: skip
    metadata = _metadata(run, teacher, licence, export)
    common: dict[str, Any] = {
        "marker": MARKER, "title": title_of(run.name, name, licence), "family": shape.family.name,
        "parameters": human(shape.parameters), "own_teacher": not teacher, "licence": licence,
        "teacher": teacher or "a teacher made by the same recipe",
    }  # fmt: skip
    facts = _facts(run, name, model, export, shape)
    template = page.get_template("card.md.j2")
    texts = {model.folder: template.render(metadata=dump_yaml(metadata), exported=False, **common, **facts)}
    if export is None:
        return texts
    texts[export.folder] = template.render(metadata=dump_yaml(_of_files(metadata)), exported=True, **common, **facts)
    for part, own in parts_of(export):
        text = page.get_template("part.md.j2").render(
            metadata=dump_yaml(part_metadata(part, own["library"], metadata)), name=part, **common, **own
        )
        texts[export.folder / part] = text
    return texts


def _facts(run: Run, name: str, model: Result, export: Result | None, shape: Shape) -> dict[str, Any]:
    return {
        "non_embedding": human(shape.non_embedding_parameters),
        "made_by": _made_by(run, name),
        "shapes": _shapes(run, model, shape),
        "results": _results(run, name),
        "files": _files(export),
        "held_out": _named(run.recipe["data"].get("held_out") or run.recipe["data"]["corpus"]),
        "corpus": _named(run.recipe["data"]["corpus"]),
        "confidence": f"{run.recipe['evaluate']['confidence']:.0%}",
        "trained": run.find(run.maker(name), "distill") is not None,
        "recipe": dump_yaml(_without_places(_short(run.recipe, run.maker(name)))),
        "versions": ", ".join(f"{key} {value}" for key, value in model.record["versions"].items()),
        "hardware": model.record["hardware"],
    }


def _of_files(metadata: dict[str, Any]) -> dict[str, Any]:
    """The YAML of an export, whose folder itself transformers cannot load."""
    return {key: value for key, value in metadata.items() if key != "library_name"}


def title_of(run: str, student: str, licence: Licence) -> str:
    """The title of a student's card, with the prefix that its licence requires."""
    title = f"{run}-{student}"
    return title if title.startswith(licence.prefix) else f"{licence.prefix}-{title}"


def _results(run: Run, name: str) -> str:
    """The teacher's and the student's rows of the tables on held-out text and on tasks."""
    chosen = [
        result.subject in ("teacher", name) or run.maker(result.subject) == name for result in run.of_kind("evaluate")
    ]
    text = _table(HEADER, list(compress(comparison(run), chosen)))
    if not tasks.evaluated_tasks(run):
        return text
    scores = tasks.scores(run)
    return (
        text
        + "\nTasks: shares in percent, other scores unchanged; ± is half of the interval.\n\n"
        + _table(scores.header, list(compress(scores.rows, chosen)))
    )


def _file(origin: dict[str, Any]) -> str:
    """The name of a teacher from a GGUF file: the file's, and the name in its metadata."""
    name = origin.get("name")
    return f"the GGUF file `{origin['file']}`" + (f" ({name})" if name else "")


def _teacher(recipe: dict[str, Any]) -> tuple[str, Path | None]:
    """The teacher's name, and the folder of its card if that is on this machine.

    In a path with `${NAME}` the variable is resolved to find the folder, but not shown in the name.
    """
    written = recipe.get("path")
    if written is None:
        return "", None
    path = as_used(written)
    if path is None:
        return Path(written).name, None
    folder = locate_model(path, None, "teacher").folder.path if path in BUILTINS else Path(path).expanduser()
    if folder.is_dir():
        return path if path in BUILTINS else Path(written).name or folder.name, folder
    if path != written:
        return Path(written).name, None
    if not _HUB_ID.fullmatch(path):
        return path, None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, "config.json", revision=recipe.get("revision") or "main")
    return path, Path(found).parent if isinstance(found, str) else None


def _metadata(run: Run, teacher: str, licence: Licence, export: Result | None) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", **licence.metadata()}
    if _HUB_ID.fullmatch(teacher):
        found |= {"base_model": teacher, "base_model_relation": "finetune"}
    sources = [str(source["path"]) for source in run.recipe["data"]["corpus"]]
    datasets = [path for path in sources if _HUB_ID.fullmatch(path) and not Path(path).exists()]
    if datasets:
        found["datasets"] = datasets
    tags = ["prunus", "pruned", "distillation"]
    formats = {} if export is None else export.json("export.json")
    kinds = {name.partition("-")[0] for name in formats if name != "proof"}
    return {**found, "tags": [*tags, *sorted(kinds)]}


def _made_by(run: Run, name: str) -> str:
    maker = run.maker(name)
    prune, distill = run.find(maker, "prune"), run.find(maker, "distill")
    parts = []
    merge = run.find(name, "merge")
    if merge is not None:
        parts.append(
            f"merged ({merged_by(merge)}) from {', '.join(_place(run.recipe['students'][name]['merge']['of']))}"
        )
    if prune is not None:
        config = prune.record["config"]
        parts.append("random weights in a pruned shape" if config["init"] == "random" else "pruned from it")
        if config.get("nest"):
            parts.append(f"in a nest of {len(config['nest'])} sizes that share its weights")
    if distill is not None:
        parts.append(f"then distilled on {human(distill.record['metrics']['tokens'])} tokens")
    if maker != name:
        parts.append("cut out of the nest")
    if aligned := methods(run, name):
        parts.append(f"then aligned by {', '.join(aligned)}")
    if qat := run.find(name, "qat"):
        form, tokens = qat.record["config"]["quantise"], human(qat.record["metrics"]["tokens"])
        parts.append(f"for its `{form}` file then trained with the file's numbers (QAT) on {tokens} tokens")
    return ", ".join(parts)


def _shapes(run: Run, model: Result, shape: Shape) -> str:
    rows = [[key, f"{run.teacher.get(key, 0):,}", f"{value:,}"] for key, value in shape.dimensions().items()]
    return _table(("", "teacher", "this model"), rows)


def _files(export: Result | None) -> str:
    if export is None:
        return ""
    rows = []
    for name, facts in export.json("export.json").items():
        if name == "proof":
            continue
        perplexity = f"{facts['perplexity']:.4g}" if facts.get("perplexity") else ""
        rows.append([f"`{facts['file']}`", human_bytes(facts["nbytes"]), f"{facts['kl']:.2g}", perplexity])
    return _table(("file", "size", "KL to this model", "perplexity"), rows)


def _named(sources: Sequence[dict[str, Any]]) -> str:
    return ", ".join(str(_place(source["path"])) for source in sources)


def _short(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of the recipe that concerns one student."""
    named = ("seed", "teacher", "data", "correct", "score")
    kept: dict[str, Any] = {key: recipe[key] for key in named if key in recipe}
    return {**kept, "students": _with_parents(recipe["students"], name), "evaluate": recipe["evaluate"]}


def _with_parents(students: dict[str, Any], name: str) -> dict[str, Any]:
    """A student, after the students of the recipe that it is merged from."""
    merge = students[name].get("merge") or {}
    named = [str(entry).partition(".")[0] for entry in (*merge.get("of", ()), merge.get("base"))]
    parents = [_with_parents(students, parent) for parent in named if parent in students]
    return {key: student for found in (*parents, {name: students[name]}) for key, student in found.items()}


def _without_places(value: Any) -> Any:
    """The recipe without paths of the machine that it ran on, and without empty values."""
    if isinstance(value, dict):
        given = {key: item for key, item in value.items() if item is not None}
        return {key: _without_place(key, item) for key, item in given.items()}
    return [_without_places(item) for item in value] if isinstance(value, list) else value


def _without_place(key: str, item: Any) -> Any:
    if key == "url":
        return _ADDRESS
    if isinstance(item, list):
        return [_without_place(key, one) for one in item]
    return _place(item) if key in _PATHS and isinstance(item, str) else _without_places(item)


def _place(path: Any) -> Any:
    """The last part of a local path; names on the hub are unchanged."""
    if isinstance(path, list):
        return [_place(one) for one in path]
    if not isinstance(path, str) or (not path.startswith(("/", ".", "~", "$")) and not _is_here(path)):
        return path
    return Path(path).name


def _is_here(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # a text that cannot be a file name
        return False


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
