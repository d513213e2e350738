"""Files outside of docs/ that its pages link to: pages of the site are made of them, and links are led there."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?\))")
_PROSE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
          "SECURITY.md": "security.md", "docs/tutorial.ipynb": "tutorial.md"}  # fmt: skip
_RESULTS = "benchmarks/results"


def page_of(file: str) -> str:
    """The page of the site that shows a file of the project; the file's own name where it has none.

    Args:
        file: Its path from the project's root, with slashes.
    """
    if file in _PROSE:
        return _PROSE[file]
    if file == _RESULTS:
        return f"{_RESULTS}/index.md"
    if re.fullmatch(rf"recipes/[^/]+\.yaml|{_RESULTS}/[^/]+\.json", file):
        return f"{file.rpartition('.')[0]}.md"
    return file.removeprefix("docs/") if file.startswith("docs/") else f"../{file}"


def led(markdown: str, file: str) -> str:
    """A page's text with its links as the site has them.

    Args:
        markdown: The text.
        file: Where it stands in the project.
    """
    here = posixpath.dirname(page_of(file))

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), link[2]))
        return f"{link[1]}{posixpath.relpath(page_of(target), here or '.')}{link[3]}"

    return _LINK.sub(lead, markdown)


def pages() -> dict[str, str]:
    """The pages that are made of files outside of docs/, by their paths in the site."""
    made = {_PROSE[name]: led((ROOT / name).read_text(encoding="utf-8"), name)
            for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}  # fmt: skip
    for file in sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / _RESULTS).glob("*.json")]):
        name = file.relative_to(ROOT).as_posix()
        made[page_of(name)] = f"# {name}\n\n" + "\n".join(_fenced(file))
    results = sorted(file.stem for file in (ROOT / _RESULTS).glob("*.json"))
    listed = "\n".join(f"- [{name}]({name}.md)" for name in results)
    made[f"{_RESULTS}/index.md"] = (
        f"# Results of benchmarks\n\nThe figures behind the tables, as scripts wrote them.\n\n{listed}\n"
    )
    return made


def _fenced(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    yield f"```{file.suffix.removeprefix('.')}"
    yield json.dumps(json.loads(text), indent=1, ensure_ascii=False) if file.suffix == ".json" else text.rstrip()
    yield "```"
