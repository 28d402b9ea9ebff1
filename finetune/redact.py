"""Secrets taken out of whatever is written down: configuration, overrides, command lines, URLs.

What counts as a secret: the value of a key whose name says so (``api_key``, ``token``, ``password`` ...), the password
in ``scheme://user:password@host`` and in ``?token=...``, and, wherever it occurs, the value of an environment variable
whose name says so. Use it on everything that leaves the process; it costs microseconds. A secret on a command line
otherwise ends up in a tracker's metadata for ever (https://github.com/wandb/wandb/issues/1314 and its kind).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_WORDS = (
    r"(?:api[-_]?key|access[-_]?key(?:[-_]?id)?|private[-_]?key|secret[-_]?key|token|secret|password|passwd|passphrase|pwd|pat|credentials?|"
    r"authorization|auth)"
)
_SECRET_NAME = re.compile(rf"(?:^|[-_.+~/]){_WORDS}$|^{_WORDS}$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]*://)[^\s/?#@'\"]+@")
_ASSIGNMENT = re.compile(
    rf"(?P<name>(?:^|[\s?&;,{{'\"]|--|\+)[\w.+~/-]*?(?<![a-zA-Z0-9]){_WORDS})(?P<equals>\s*[=:]\s*)(?P<value>[^\s&;,}}]+)",
    re.IGNORECASE,
)
_SHORTEST = 8


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name (dotted or not) holds a secret: ``HF_TOKEN`` yes, ``max_tokens`` no."""
    return _SECRET_NAME.search(name) is not None


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets among environment variables, longest first; very short values are none, nor is the working directory."""
    found = {
        value
        for name, value in environment.items()
        if is_secret_name(name) and name != "PWD" and len(value) >= _SHORTEST
    }
    return tuple(sorted(found, key=len, reverse=True))


def redact_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """``text`` with known secrets, URL passwords and ``token=...`` assignments masked."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _URL_PASSWORD.sub(rf"\g<scheme>{MASK}@", text)
    return _ASSIGNMENT.sub(_mask_assignment, text)


def redact(value: Any, secrets: tuple[str, ...] = (), *, name: str = "") -> Any:
    """A copy of plain data with the secrets masked; ``name`` is the key that holds ``value``."""
    if isinstance(value, Mapping):
        return {key: redact(item, secrets, name=str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, secrets, name=name) for item in value]
    if isinstance(value, str):
        return MASK if value and is_secret_name(name) else redact_text(value, secrets)
    return value


def _mask_assignment(match: re.Match[str]) -> str:
    value = match["value"]
    if value in ("null", "None", "true", "false", "''", '""'):
        return match[0]
    return f"{match['name']}{match['equals']}{MASK}"
