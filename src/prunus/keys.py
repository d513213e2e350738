"""Keys and passwords: their patterns, by which published files are searched, and their removal from written text."""

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
        name: Its name in messages.
        begins: Substrings, one of which every such key contains (lower case if `any_case`): a fast first test.
        pattern: Its pattern in text; in bytes, since a file may have any encoding.
        inside: Its pattern in binary data, where any byte may precede it, such as a string's length.
        any_case: Whether the pattern ignores case.
    """

    name: str
    begins: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    inside: re.Pattern[bytes]
    any_case: bool = False


_START = r"(?<![A-Za-z0-9])"


def _kind(name: str, begins: str, pattern: str, any_case: bool = False, start_inside: str = "") -> Kind:
    flags = re.IGNORECASE if any_case else 0
    text, inside = (re.compile(one.encode(), flags) for one in (pattern, pattern.replace(_START, start_inside)))
    return Kind(name, tuple(begins.encode().split()), text, inside, any_case)


KINDS = (
    _kind("a token of the hub", "hf_ api_org_", r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,})"),
    _kind(
        "a key of OpenAI, Anthropic or one in their form",
        "sk- sk_ rk_",
        r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{20,}|[sr]k_(live|test)_[A-Za-z0-9]{16,})",
        start_inside=r"(?=.k.([A-Za-z_-]*[0-9]){2})",  # two digits: otherwise `task-` and hyphenated words match
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
"""The kinds of keys that are searched for."""

HIDDEN = "(hidden)"
_VARIABLES = re.compile(r"PRUNUS_(JUDGE|API)_KEY|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|\w*_API_KEY")
SECRET = 8
"""The fewest characters of a secret. A shorter key may be a common word, such as the EMPTY that some servers take."""

_KNOWN = 4  # the fewest characters of a key that is replaced in messages of the server that it was sent to
_BEARER = re.compile(rb"(?P<kept>(?<![A-Za-z0-9])(bearer|basic)\s+)(?=[\w.~+/=-]*[\d=+/])[\w.~+/=-]{8,}", re.IGNORECASE)


def hide(text: str, *keys: str | None) -> str:
    """A text for the terminal or a record, with keys and passwords replaced.

    Args:
        text: A text from outside, or an address.
        keys: Known keys, in addition to those in the environment (`PRUNUS_JUDGE_KEY`, `HF_TOKEN` and so on).
    """
    known = {key for key in keys if key and len(key) >= _KNOWN}
    known |= {key for key in environment_keys().values() if len(key) >= SECRET}
    for form in sorted((form for key in known for form in forms(key)), key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    data = text.encode("utf-8", "surrogatepass")
    for pattern in (*(kind.pattern for kind in KINDS), _BEARER):
        data = pattern.sub(_hidden, data)
    return data.decode("utf-8", "surrogatepass")


def _hidden(match: re.Match[bytes]) -> bytes:
    """The replacement of a key; the address or the header's name before it is kept."""
    return (match.groupdict().get("kept") or b"") + HIDDEN.encode()


def environment_keys() -> dict[str, str]:
    """The keys in the environment, for Prunus or other programs, by variable."""
    return {name: value.strip() for name, value in os.environ.items() if _VARIABLES.fullmatch(name) and value.strip()}


def forms(key: str) -> Iterable[str]:
    """The forms in which a key may appear: verbatim, URL-encoded, in JSON, in base64."""
    return {key, quote(key, safe=""), json.dumps(key)[1:-1], base64.b64encode(key.encode()).decode()}
