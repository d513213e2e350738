"""Pages of the reference that mkdocstrings fills with docstrings: the public names, and what an addition is made of."""

from __future__ import annotations

import prunus

API = "reference/python.md"
EXTENDING = "reference/extending.md"

_CONTRACTS = {
    "A model family": (
        "A file in `models/families/` with a `FAMILY`; [Families](../families.md#add-a-family) has an example.",
        ("prunus.models.families.family.Family", "prunus.models.families.gguf.Gguf", "prunus.models.axes.Weight"),
    ),
    "A loss by a teacher": (
        "A formula in `kd/losses.py`, an entry in `kd/divergences.py`, its name in `kd/config.py`.",
        ("prunus.kd.divergences.Loss", "prunus.kd.losses"),
    ),
    "A method of alignment": (
        "An entry in `steps/align/methods.py`, and its formula in `steps/align/losses.py`.",
        ("prunus.steps.align.methods.Method", "prunus.steps.align.losses"),
    ),
    "A merge method": (
        "A function and its entry in `steps/merge/methods.py`.",
        ("prunus.steps.merge.method.MergeMethod", "prunus.steps.merge.method.Operands"),
    ),
    "A format of files": (
        "An entry in `steps/export/targets.py`, and a module with `export`.",
        ("prunus.steps.export.targets.Target", "prunus.steps.export.targets.Part", "prunus.steps.export.job.Job"),
    ),
    "A task, a skill": (
        "A line in `steps/evaluate/tasks.py`, or a file in `verify/skills/`; "
        "[Evaluate](../evaluate.md#adding-a-task-adding-a-skill) has examples.",
        ("prunus.steps.evaluate.tasks.HarnessTask", "prunus.verify.skill.Skill"),
    ),
    "A step": (
        "A room in `steps/` and its place in `pipeline/layout.py`: [Structure](../structure.md).",
        (
            "prunus.config.Config",
            "prunus.config.StepConfig",
            "prunus.graph.steps.Step",
            "prunus.graph.steps.Given",
            "prunus.graph.artifact.Artifact",
            "prunus.costs.Cost",
        ),
    ),
}


def pages() -> dict[str, str]:
    """The pages by their paths in the site."""
    return {API: _public(), EXTENDING: _extending()}


def _public() -> str:
    """Every public name that is no verb; verbs are with the commands."""
    lines = [
        "# Python",
        "",
        "Names of the package `prunus` for whole recipes and for models. Each of them is loaded on first use. The "
        "functions of single steps (`prunus.prune` and so on) are listed "
        "[with the commands](commands.md).",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "import prunus",
        "",
        'plan = prunus.make_plan(prunus.load_recipe("recipe.yaml"), Path("runs/mine"))',
        "prunus.run_plan(plan, prunus.Console())",
        "```",
        "",
    ]
    for name in sorted(set(prunus._HOMES) - set(prunus._VERBS), key=str.lower):
        lines += [f"## `prunus.{name}` {{ #{name.lower()} }}", "", *_documented(f"{prunus._HOMES[name]}.{name}"), ""]
    return "\n".join(lines)


def _extending() -> str:
    lines = [
        "# Extending",
        "",
        "Each kind of thing is one table. These are the classes of the tables' entries; paths are under `src/prunus`.",
        "",
    ]
    for heading, (where, names) in _CONTRACTS.items():
        lines += [f"## {heading}", "", where, ""]
        for name in names:
            lines += [f"### `{name.removeprefix('prunus.')}`", "", *_documented(name), ""]
    return "\n".join(lines)


def _documented(name: str) -> list[str]:
    return [f"::: {name}", "    options:", "      show_root_heading: false", "      heading_level: 4"]
