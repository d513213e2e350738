"""What of a model's folder goes to the hub, and what keeps all of it from going: pickles and secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prunus.steps.export.targets import TARGETS
from prunus.tools.publish.look import Looked, look_through

KINDS = (
    r"(README|NOTICE|LICEN[CS]E|USE_POLICY)(\.(md|txt|rst))?",
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|genai_config"
    r"|processor_config|tekken)\.json",
    r"(vocab|merges)\.txt",
    r"(tokenizer|spiece|sentencepiece|sentencepiece\.bpe)\.model",
    r"chat_template\.(jinja|json)",
    r"model(-\d+-of-\d+)?\.safetensors",
    r"model\.safetensors\.index\.json",
    r"[\w.-]+\.(gguf|onnx|onnx\.data|onnx_data)",
    r"export\.json",
)
"""The names of what a model is made of. The rest of a folder (records, metrics, checkpoints, code) stays."""

_GOES = re.compile("|".join(f"({kind})" for kind in KINDS))
_PARTS = frozenset(name for target in TARGETS.values() for name in target.parts)
"""Folders of an export, which go with what a model is made of in them."""

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # protocols 2 to 5; torch's zip
_SECRET_NAMES = re.compile(
    r"(\.env(\..*)?|\.netrc|\.git-credentials|\.npmrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|.*\.(pem|key|p12|pfx|keystore)"
    r"|kubeconfig|service[-_]account.*|.*(credential|secret|passw(or)?d).*|(hf_|api_|access_)?token(\.txt)?)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Choice:
    """What of a folder goes, as it was when it was looked through; what stays; and what keeps all of it from going."""

    going: list[Looked]
    staying: list[Path]
    faults: list[str]


def choose_files(folder: Path) -> Choice:
    """Sort the files of a folder, and look through each of them.

    Links go nowhere: what they point to may be anything.
    """
    choice = Choice([], [], [])
    for file in sorted(file for file in folder.rglob("*") if file.is_file() or file.is_symlink()):
        name = file.relative_to(folder)
        if file.is_symlink() or not file.is_file():
            choice.staying.append(file)
            choice.faults.extend(_fault_of_name(file, name))
            continue
        looked = look_through(file)
        if _goes(name):
            choice.going.append(looked)
        else:
            choice.staying.append(file)
        choice.faults.extend(_fault_of_name(file, name) or _fault_of_pickle(file, name))
        choice.faults.extend(f"{name}: holds what looks like {fault}; take it out" for fault in looked.faults)
    return choice


def _goes(name: Path) -> bool:
    here = len(name.parts) == 1 or (len(name.parts) == 2 and name.parts[0] in _PARTS)
    return here and _GOES.fullmatch(name.name) is not None


def _fault_of_name(file: Path, name: Path) -> list[str]:
    if _SECRET_NAMES.fullmatch(file.name):
        return [f"{name}: its name is that of a secret; move it out of the folder"]
    return []


def _fault_of_pickle(file: Path, name: Path) -> list[str]:
    with file.open("rb") as handle:
        if file.suffix in _PICKLES or handle.read(4).startswith(_PICKLED):
            return [f"{name}: a pickle, which runs code where it is loaded; move it out, or save it as safetensors"]
    return []
