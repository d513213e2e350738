"""The family that docs/families.md shows as an example is the file in `src`, which every test of families runs."""

import textwrap
from pathlib import Path

from prunus.models.families import arcee

PAGE = Path(__file__).parents[3] / "docs/families.md"


def test_the_example_is_the_file() -> None:
    indented = PAGE.read_text().split("```python\n")[1].split("    ```")[0]
    assert textwrap.dedent(indented) == Path(arcee.__file__).read_text()
