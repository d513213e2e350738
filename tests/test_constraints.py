"""What CI installs: every dependency is pinned, by the hashes of its files."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")
UNHASHED = {"torch"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ;]", name)[0]).lower()


def pins(file: str) -> set[str]:
    """The packages that a file pins; it holds nothing else."""
    text = "".join(line for line in (ROOT / file).open() if not line.startswith("#"))
    assert BLOCK.sub("", text) == ""
    return {plain(name) for name, _, _ in BLOCK.findall(text)}


def test_every_dependency_is_pinned_with_hashes() -> None:
    pinned = pins("constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    named += [*project["build-system"]["requires"], "editables"]  # what builds it is not fetched anew
    assert {plain(name) for name in named} - pinned == UNHASHED


def test_every_package_for_the_docs_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    base, more = pins("constraints.txt"), pins("constraints-docs.txt")
    assert {plain(name) for name in project["project"]["optional-dependencies"]["docs"]} <= more
    assert not base & more


def test_the_makefile_pins_the_rest() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"{name}==\d", makefile) for name in UNHASHED)
    assert "--require-hashes" in makefile
