"""The files of a model folder that are uploaded, and reasons to upload nothing: pickles and secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prunus.steps.export.targets import TARGETS
from prunus.tools.publish.look import ScannedFile, scan

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
"""Patterns of the names of files that are uploaded. Others (records, metrics, checkpoints, code) are not."""

_UPLOADED = re.compile("|".join(f"({kind})" for kind in KINDS))
_PARTS = frozenset(name for target in TARGETS.values() for name in target.parts)
"""Subfolders of an export, from which such files are uploaded, too."""

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # protocols 2 to 5; torch's zip
_SECRET_NAMES = re.compile(
    r"(\.env(\..*)?|\.netrc|\.git-credentials|\.npmrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|.*\.(pem|key|p12|pfx|keystore)"
    r"|kubeconfig|service[-_]account.*|.*(credential|secret|passw(or)?d).*|(hf_|api_|access_)?token(\.txt)?)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Choice:
    """The files to upload, as scanned; the files to leave out; and reasons to upload nothing."""

    uploaded: list[ScannedFile]
    skipped: list[Path]
    faults: list[str]


def choose_files(folder: Path) -> Choice:
    """Select the files of a folder to upload, and scan all of them.

    Links are never uploaded, since their targets may be anything.
    """
    choice = Choice([], [], [])
    for file in sorted(file for file in folder.rglob("*") if file.is_file() or file.is_symlink()):
        name = file.relative_to(folder)
        if file.is_symlink() or not file.is_file():
            choice.skipped.append(file)
            choice.faults.extend(_fault_of_name(file, name))
            continue
        scanned = scan(file)
        if _is_uploaded(name):
            choice.uploaded.append(scanned)
        else:
            choice.skipped.append(file)
        choice.faults.extend(_fault_of_name(file, name) or _fault_of_pickle(file, name))
        choice.faults.extend(f"{name}: holds what looks like {fault}; remove it" for fault in scanned.faults)
    return choice


def _is_uploaded(name: Path) -> bool:
    here = len(name.parts) == 1 or (len(name.parts) == 2 and name.parts[0] in _PARTS)
    return here and _UPLOADED.fullmatch(name.name) is not None


def _fault_of_name(file: Path, name: Path) -> list[str]:
    if _SECRET_NAMES.fullmatch(file.name):
        return [f"{name}: has the name of a secret; move it out of the folder"]
    return []


def _fault_of_pickle(file: Path, name: Path) -> list[str]:
    with file.open("rb") as handle:
        if file.suffix in _PICKLES or handle.read(4).startswith(_PICKLED):
            return [f"{name}: a pickle, which can run code when it is loaded; move it out, or save it as safetensors"]
    return []
