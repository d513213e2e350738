"""Pages that are generated: the reference is complete, links lead to pages of the site, and nothing is fetched."""

import json
import re
from pathlib import Path

import pytest
import yaml
from docs.site import api, build, commands, notebook, options, outside

import prunus
from prunus.cli.main import COMMANDS
from prunus.mistakes import classes_in
from prunus.pipeline.recipe import Recipe


def every_class(cls: type) -> set[type]:
    found = {cls}
    for info in cls.model_fields.values():
        for inner in classes_in(info.annotation):
            if inner not in found:
                found |= every_class(inner)
    return found


def test_every_option_of_a_recipe_has_its_line_and_help() -> None:
    pages = "\n".join(options.pages().values())
    classes = every_class(Recipe)
    assert {section.cls for section in options.sections()} == classes - {Recipe}
    assert len(re.findall(r"^`\w+`.*\n:   \S", pages, flags=re.MULTILINE)) == sum(
        len(cls.model_fields) for cls in classes
    )


def test_an_option_shows_type_range_and_default() -> None:
    page = options.pages()[f"{options.FOLDER}/evaluate.md"]
    assert "`confidence`{ #evaluate-confidence } <small>number > 0, < 1 · default `0.95`</small>" in page
    assert "`prompts`{ #evaluate-prompts } <small>list of texts</small>" in page
    assert (
        "`judge`{ #evaluate-judge } <small>options of [align.write.judge](align.md#align-write-judge)</small>" in page
    )


def test_every_command_and_verb_is_described() -> None:
    page = commands.page()
    assert re.findall(r"^## `prunus (\w+)`", page, flags=re.MULTILINE) == list(COMMANDS)
    assert re.findall(r"^prunus\.(\w+)\(", page, flags=re.MULTILINE) == [
        name for name in COMMANDS if name in prunus._VERBS
    ]
    search = page.split("## `prunus search`")[1].split("\n## ")[0]
    assert "prunus search TEACHER --out OUT --budget BUDGET --corpus CORPUS [OPTIONS]" in search
    assert "`--column`\n:   Column that holds the text." in search
    assert "--dry-run" not in page.split("## `prunus plan`")[1].split("\n## ")[0]


def test_documented_modules_and_classes_exist() -> None:
    names = re.findall(r"^::: (\S+)", "\n".join(api.pages().values()), flags=re.MULTILINE)
    assert len(names) > 20
    for name in names:
        module, _, last = name.rpartition(".")
        file = Path(prunus.__file__).parents[1] / f"{name.replace('.', '/')}.py"
        assert file.is_file() or re.search(rf"^(class|def) {last}\b", source(module), flags=re.MULTILINE), name


def source(module: str) -> str:
    return (Path(prunus.__file__).parents[1] / f"{module.replace('.', '/')}.py").read_text()


@pytest.mark.parametrize(
    ("file", "link", "led"),
    [
        ("docs/start.md", "../recipes/quickstart.yaml", "recipes/quickstart.md"),
        ("docs/structure.md", "../CONTRIBUTING.md#where-things-are", "contributing.md#where-things-are"),
        ("docs/guides/phone.md", "../search.md#what-was-measured", "../search.md#what-was-measured"),
        ("docs/decisions/0001.md", "../../benchmarks/results/merging.json", "../benchmarks/results/merging.md"),
        ("docs/index.md", "tutorial.ipynb", "tutorial.md"),
        ("CONTRIBUTING.md", "docs/families.md", "families.md"),
        ("CONTRIBUTING.md", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_links_lead_within_the_site(file: str, link: str, led: str) -> None:
    assert outside.led(f"see [this]({link}).", file) == f"see [this]({led})."


def test_code_in_tables_has_no_backslashes() -> None:
    assert build.unescaped("| `a\\|b` | \\|c\\| |\n`a\\|b`") == "| `a|b` | \\|c\\| |\n`a\\|b`"


def test_every_page_is_in_the_navigation_once(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    build.write_pages(folder)
    pages = {file.relative_to(folder).as_posix() for file in folder.rglob("*.md")}
    nav = build.expanded(yaml.safe_load(build.SETTINGS.read_text())["nav"], pages)
    named = re.findall(r'"([^"]+\.md)"', json.dumps(nav))
    assert sorted(named) == sorted(pages)
    for page in pages:  # links are led to pages that are there
        text = re.sub(r"^(```|~~~).*?^\1", "", (folder / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            assert ((folder / page).parent / link).exists(), (page, link)


@pytest.mark.parametrize(
    ("text", "fetched"),
    [
        ('<script src="assets/a.js"></script><a href="https://example.org">out</a>', False),
        ('<script src="https://example.org/a.js"></script>', True),
        ('<link rel="stylesheet" href="//example.org/a.css">', True),
        ('<style>@import "https://example.org/a.css"</style>', True),
    ],
)
def test_what_a_page_would_fetch_is_seen(text: str, fetched: bool, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text)
    assert bool(list(build.fetches(tmp_path))) is fetched


def test_the_tutorial_was_executed_from_its_first_cell_to_its_last() -> None:
    cells = [cell for cell in json.loads(notebook.NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    page = notebook.markdown(json.loads(notebook.NOTEBOOK.read_text()))
    assert page.startswith("# Tutorial")
    assert not re.search(r"/(home|root|tmp|work|Users)/", page)


def test_a_cell_that_failed_is_no_page() -> None:
    output = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    with pytest.raises(ValueError, match="a cell ends with ValueError: no"):
        notebook.markdown({"cells": [{"cell_type": "code", "source": "1", "outputs": [output]}]})
