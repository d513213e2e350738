"""Keys and passwords: what they look like in a file that is published, and how they are kept out of what is written."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Kind:
    """A kind of key.

    Attributes:
        name: What to call it.
        begins: Texts of which one is in every such key, in small letters where `any_case`, to pass by other texts fast.
        pattern: What it looks like; bytes, since a file may be in any code.
        any_case: Whether capitals and small letters are the same in it.
    """

    name: str
    begins: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    any_case: bool = False


def _kind(name: str, begins: str, pattern: str, any_case: bool = False) -> Kind:
    flags = re.IGNORECASE if any_case else 0
    return Kind(name, tuple(begins.encode().split()), re.compile(pattern.encode(), flags), any_case)


KINDS = (
    _kind("a token of the hub", "hf_ api_org_", r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,})"),
    _kind(
        "a key of OpenAI, Anthropic or one in their form",
        "sk- sk_ rk_",
        r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{20,}|[sr]k_(live|test)_[A-Za-z0-9]{16,})",
    ),
    _kind(
        "a key of a model's provider",
        "gsk_ xai- nvapi- pplx- r8_ tgp_v1_ csk- dapi wandb_v1_",
        r"(?<![A-Za-z0-9])((gsk_|xai-|pplx-|r8_|csk-)[A-Za-z0-9]{30,}|(nvapi-|tgp_v1_|wandb_v1_)[A-Za-z0-9_-]{30,}"
        r"|dapi[0-9a-f]{32})",
    ),
    _kind(
        "a token of GitHub",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"(?<![A-Za-z0-9])(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,})",
    ),
    _kind(
        "a token of GitLab",
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent- gloas-",
        r"(?<![A-Za-z0-9])gl(pat|dt|rt|cbt|ptt|ft|soat|agent|oas)-[A-Za-z0-9_-]{20,}",
    ),
    _kind(
        "a key of AWS",
        "AKIA ASIA ABIA ACCA",
        r"(?<![A-Za-z0-9])(AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![A-Za-z0-9])",
    ),
    _kind(
        "a secret key of AWS",
        "aws_secret",
        r"(?P<kept>aws_secret(_access)?_key[\"']?\s*[=:]\s*[\"']?)[a-z0-9/+]{40}",
        True,
    ),
    _kind(
        "a key of Google",
        "AIza GOCSPX- ya29.",
        r"(?<![A-Za-z0-9])(AIza[0-9A-Za-z_-]{35}|GOCSPX-[0-9A-Za-z_-]{28}|ya29\.[0-9A-Za-z_-]{30,})",
    ),
    _kind(
        "a token of Slack",
        "xox xapp- hooks.slack.com",
        r"(?<![A-Za-z0-9])(xox[a-z]-[0-9A-Za-z-]{10,}|xapp-\d-[0-9A-Za-z-]{10,})"
        r"|hooks\.slack\.com/(services|workflows)/[A-Za-z0-9/_-]{20,}",
    ),
    _kind("a key of Azure", "accountkey sharedaccess", r"(AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,}={0,2}", True),
    _kind(
        "a token of a package index",
        "npm_ pypi- SG.",
        r"(?<![A-Za-z0-9])(npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|SG\.[\w-]{16,32}\.[\w-]{16,64})",
    ),
    _kind(
        "a private key",
        "PRIVATE PuTTY AGE-SECRET",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY( BLOCK)?-----|PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1[0-9A-Z]{20,}",
    ),
    _kind("a web token", "eyJ", r"(?<![A-Za-z0-9])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    _kind(
        "a key in a header",
        "authorization api-key api_key",
        r"(?P<kept>authorization[\"']?\s*[:=]\s*[\"']?(bearer|basic|token)\s+)[\w.~+/=-]{8,}"
        r"|api[-_]key[\"']?\s*[:=]\s*[\"']?[0-9a-f]{32,}",
        True,
    ),
    _kind(
        "a password in an address",
        "://",
        r"(?P<kept>[a-z][a-z0-9+.-]{1,20}://)[^/\s:@\"'\\]{0,80}:[^/\s:@\"'\\$]{1,120}(?=@)",
        True,
    ),
    _kind(
        "a key in an address",
        "key= token= sig= secret= signature= password=",
        r"(?P<kept>[?&](api[-_]?key|key|(access[-_]?)?token|sig|signature|(client[-_]?)?secret|password)=)[\w%.~+/-]{8,}",
        True,
    ),
)
"""Each kind of key that is looked for."""

HIDDEN = "(hidden)"
_VARIABLES = re.compile(r"PRUNUS_(JUDGE|API)_KEY|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|\w*_API_KEY")
SECRET = 8
"""A key of fewer characters may be an ordinary word, such as the EMPTY that some servers take."""

_KNOWN = 4  # characters of a key that is replaced in the words of the server that it was sent to
_BEARER = re.compile(rb"(?P<kept>(?<![A-Za-z0-9])(bearer|basic)\s+)(?=[\w.~+/=-]*[\d=+/])[\w.~+/=-]{8,}", re.IGNORECASE)


def hide(text: str, *keys: str | None) -> str:
    """A text for the terminal or a record, without keys and passwords.

    Args:
        text: What somebody else said, or an address.
        keys: Keys that are known; those of the environment (`PRUNUS_JUDGE_KEY`, `HF_TOKEN` and so on) always are.
    """
    known = {key for key in keys if key and len(key) >= _KNOWN}
    known |= {key for key in environment_keys().values() if len(key) >= SECRET}
    for form in sorted((form for key in known for form in forms(key)), key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    data = text.encode("utf-8", "surrogatepass")
    for pattern in (*(kind.pattern for kind in KINDS), _BEARER):
        data = pattern.sub(_hidden, data)
    return data.decode("utf-8", "surrogatepass")


def _hidden(found: re.Match[bytes]) -> bytes:
    """What stands in place of a key; the address or the header's name before it is kept."""
    return (found.groupdict().get("kept") or b"") + HIDDEN.encode()


def environment_keys() -> dict[str, str]:
    """The keys that the environment holds for us and for others, by their variables."""
    return {name: value.strip() for name, value in os.environ.items() if _VARIABLES.fullmatch(name) and value.strip()}


def forms(key: str) -> Iterable[str]:
    """The ways in which a key may be repeated: as it is, in an address, in JSON, in base64."""
    return {key, quote(key, safe=""), json.dumps(key)[1:-1], base64.b64encode(key.encode()).decode()}
