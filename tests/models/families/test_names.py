"""Nothing outside models/families knows a weight or a family by name."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import prunus
from prunus.models.families.family import Family
from prunus.models.families.table import FAMILIES

ROOT = Path(prunus.__file__).parent
OWN = ROOT / "models/families"
ALLOWED = {
    "gguf/pretokenizers.py": "llama.cpp's names of pre-tokenizers",
    "gguf/vocabulary.py": "llama.cpp's kinds of tokenizers",
    "licences.py": "names of licences",
    "steps/unpack/bytelevel.py": "llama.cpp's names of pre-tokenizers",
    "steps/unpack/special.py": "llama.cpp's kinds of tokenizers",
    "steps/unpack/tokenizer.py": "llama.cpp's kinds of tokenizers, and its rule by the name of a file",
}
"""Files in which a name of a family says something else."""


FIELDS = {field.name for field in fields(Family)}
"""Attributes of a family, one of which is named as a weight of others."""


def names_of(family: Family) -> Iterator[str]:
    """What tells a family: its `model_type`, and the parts of its weights' names that are no usual words."""
    yield family.model_type
    yield family.class_name
    for key in (*family.shared, *family.layered):
        parts = (part for part in key.split(".") if re.search(r"[_\d]", part) and "{" not in part)
        yield from (part for part in parts if part not in FIELDS)


NAMES = sorted({name for family in FAMILIES.values() for name in names_of(family)})
TOLD = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, NAMES))})(?![\w-]|\\?[.]cpp)")


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings and attributes of a module with their lines, but for docstrings."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def found_in(code: str) -> list[tuple[int, str]]:
    """The names of weights and families in a module's code, with their lines."""
    return [(line, name) for line, text in texts(ast.parse(code)) for name in TOLD.findall(text)]


def test_no_other_file_names_a_weight_or_a_family() -> None:
    files = {str(file.relative_to(ROOT)): file for file in ROOT.rglob("*.py") if OWN not in file.parents}
    found = {name: found_in(file.read_text()) for name, file in files.items()}
    told = {name: lines for name, lines in found.items() if lines}
    assert {name: lines for name, lines in told.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) <= set(told)  # none is allowed for nothing


def test_names_are_found() -> None:
    code = '"""Of q_proj."""\nx = f"{a}.self_attn.q_proj"\ny = layer.mlp.c_fc, kind == "gemma2"\n"""lm_head"""\n'
    assert {name for _, name in found_in(code)} == {"self_attn", "q_proj", "c_fc", "gemma2"}
    assert found_in("x = 'self_attnx, myq_proj, llama.cpp, llama-bpe'") == []
