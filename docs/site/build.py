"""The site: `python -m docs.site.build` puts all pages into one folder, builds them, and looks at what came out.

Pages are those of docs/ and those that are generated: the reference from schema and docstrings, and pages that show
recipes, results of benchmarks, the tutorial and files of the project's root. Neither the build nor a page fetches
anything.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from docs.site import api, commands, notebook, options, outside

BUILD = outside.ROOT / "build"
SETTINGS = Path(__file__).with_name("site.yml")
STYLE = Path(__file__).with_name("site.css")
_COPIED = (".md", ".svg", ".json", ".ipynb")
_CODE = re.compile(r"`[^`\n]*`")
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?(?:https?:)?//|"""
    r"""<link\b[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon)[^>]*\bhref=["']?(?:https?:)?//|"""
    r"""url\(["']?(?:https?:)?//|@import ["'](?:https?:)?//"""
)


def main() -> None:
    """Build the site, or end with what is wrong with it."""
    pages, site = BUILD / "pages", BUILD / "site"
    for folder in (pages, site):
        shutil.rmtree(folder, ignore_errors=True)
    write_pages(pages)
    shutil.copy(STYLE, pages)
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    settings["nav"] = expanded(settings["nav"], [file.relative_to(pages).as_posix() for file in pages.rglob("*.md")])
    config = BUILD / "mkdocs.yml"
    config.write_text(json.dumps(settings, indent=1), encoding="utf-8")  # which is YAML
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(config)], check=True)
    fetched = list(fetches(site))
    if fetched:
        sys.exit("pages fetch from elsewhere:\n" + "\n".join(fetched))


def write_pages(folder: Path) -> None:
    """Write every page of the site, and what pages show.

    Args:
        folder: A folder that is not there yet.
    """
    docs = outside.ROOT / "docs"
    for file in docs.rglob("*"):
        if file.suffix in _COPIED and SETTINGS.parent not in file.parents:
            target = folder / file.relative_to(docs)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".md":
                text = unescaped(file.read_text(encoding="utf-8"))
                target.write_text(outside.led(text, file.relative_to(outside.ROOT).as_posix()), encoding="utf-8")
            else:
                shutil.copy(file, target)
    for path, text in generated().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def unescaped(text: str) -> str:
    """A page without the backslashes before `|` in code in tables, which GitHub needs and the site would show."""
    return re.sub(
        r"^\|.*", lambda row: _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), text, flags=re.MULTILINE
    )


def generated() -> dict[str, str]:
    """The pages that are not in docs/, by their paths in the site."""
    tutorial = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    shown = outside.led(notebook.markdown(tutorial), "docs/tutorial.ipynb")
    return {
        **options.pages(), commands.PAGE: commands.page(), **api.pages(), **outside.pages(), "tutorial.md": shown,
    }  # fmt: skip


def expanded(nav: Any, pages: Iterable[str]) -> Any:
    """A navigation with all pages of a folder, but those named next to it, in place of `FOLDER/*`."""
    if isinstance(nav, dict):
        return {title: expanded(inner, pages) for title, inner in nav.items()}
    if not isinstance(nav, list):
        return nav
    parts = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("/*"):
            parts += sorted(page for page in pages if page.rpartition("/")[0] == entry[:-2] and page not in nav)
        else:
            parts.append(expanded(entry, pages))
    return parts


def fetches(site: Path) -> Iterable[str]:
    """What pages of a site would fetch from elsewhere, with the page's name."""
    for file in sorted(site.rglob("*")):
        if file.suffix in (".html", ".css", ".svg"):
            for found in _FETCHED.finditer(file.read_text(encoding="utf-8")):
                yield f"{file.relative_to(site)}: {found[0]}"


if __name__ == "__main__":
    main()
