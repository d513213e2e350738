"""The tutorial: a notebook that is executed, and shown as a page.

`python -m docs.site.notebook` executes it in a folder of its own, and ends with an error if a cell does. With `--write`
it puts the outputs into the notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "tutorial.ipynb"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def markdown(notebook: dict[str, Any]) -> str:
    """A notebook as the text of a page: cells one after another, each with what it printed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        shown = "".join(map(_text, cell["outputs"])).rstrip()
        if shown:
            parts.append(f"```text\n{_COLOURS.sub('', shown)}\n```")
    return "\n\n".join(parts) + "\n"


def _text(output: dict[str, Any]) -> str:
    """An output as text.

    Raises:
        ValueError: The cell failed.
    """
    if output["output_type"] == "error":
        raise ValueError(f"{NOTEBOOK.name}: a cell ends with {output['ename']}: {output['evalue']}")
    text: str = "".join(output["text"] if "text" in output else output["data"]["text/plain"])
    return text


def execute(write: bool) -> None:
    """Execute it, from its first cell to its last.

    Args:
        write: Keep the outputs, in place of those that it has.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # cells run `prunus`
    os.environ["PYTHONWARNINGS"] = "ignore"  # such as tqdm's, of widgets that are not installed
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of this machine
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Execute the tutorial.")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    execute(parser.parse_args().write)
