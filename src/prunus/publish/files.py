"""What of a model's folder goes to the hub, and what keeps all of it from going: pickles and secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

GO = (
    "README.md", "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt", "*.model", "chat_template*", "model.safetensors", "model-*.safetensors",
    "model.safetensors.index.json", "*.gguf", "*.onnx", "*.onnx.data", "genai_config.json", "LICENSE*", "NOTICE*",
    "USE_POLICY*", "export.json",
)  # fmt: skip
"""What a model is made of. The rest of a folder (records, metrics, checkpoints) stays."""

_PARTS = ("onnx-*", "torchao-*")
"""Folders of an export, which go with what a model is made of in them."""

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # protocols 2 to 5; torch's zip
_NAMES = re.compile(
    r"(\.env(\..*)?|\.netrc|\.git-credentials|\.npmrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|.*\.(pem|key|p12|pfx|keystore)"
    r"|.*(credential|secret|passw(or)?d).*|(hf_|api_|access_)?token(\.txt)?)",
    re.IGNORECASE,
)
_SECRETS = {
    "a token of the hub": rb"\bhf_[A-Za-z0-9]{30,}",
    "a key of OpenAI or Anthropic": rb"\bsk-(ant-|proj-)?[A-Za-z0-9_-]{32,}",
    "a token of GitHub": rb"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a key of AWS": rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s:@\"']+@",
}
_READ = 64 << 20  # bytes of a file that are looked through for secrets; weights are not text
_TEXT = {".json", ".jsonl", ".md", ".txt", ".jinja", ".yaml", ".yml", ""}


@dataclass(frozen=True)
class Choice:
    """What of a folder goes, what stays, and what keeps all of it from going, a sentence each."""

    going: list[Path]
    staying: list[Path]
    faults: list[str]


def choose_files(folder: Path) -> Choice:
    """Sort the files of a folder. Links go nowhere: what they point to may be anything."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() or file.is_symlink())
    wanted = {file for place in (".", *_PARTS) for pattern in GO for file in folder.glob(f"{place}/{pattern}")}
    going = [file for file in files if file in wanted and not file.is_symlink()]
    faults = [fault for file in files for fault in [_fault(file, folder)] if fault]
    return Choice(going, [file for file in files if file not in going], faults)


def _fault(file: Path, folder: Path) -> str | None:
    """Why a folder with this file does not go, or None."""
    name = file.relative_to(folder)
    if _NAMES.fullmatch(file.name):
        return f"{name}: its name is that of a secret; move it out of the folder"
    if file.is_symlink():
        return None
    with file.open("rb") as handle:
        if file.suffix in _PICKLES or handle.read(4).startswith(_PICKLED):
            return f"{name}: a pickle, which runs code where it is loaded; move it out, or save it as safetensors"
        if file.suffix not in _TEXT:
            return None
        handle.seek(0)
        text = handle.read(_READ)
    for what, pattern in _SECRETS.items():
        if re.search(pattern, text):
            return f"{name}: holds what looks like {what}; take it out"
    return None
