"""Whether a W&B server answers to a key, within seconds: decides between online and offline before ``wandb.init``.

``wandb.init`` by itself waits 101 s for a server that is not there, and without a key it asks or fails. One small query
with a hard limit on the whole exchange tells the same in advance.
"""

from __future__ import annotations

import base64
import json
import netrc
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

_QUERY = json.dumps({"query": "query Viewer { viewer { id } }", "operationName": "Viewer"}).encode()


class Answer(NamedTuple):
    """``ok``, or ``reason`` in words for the user."""

    ok: bool
    reason: str


def ask_with_saved_key(timeout_s: float) -> Answer:
    """Ask the server that W&B's own settings name, with the key they hold: environment, ``.netrc``, settings file."""
    import wandb

    try:
        settings = wandb.Settings()
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
    except (ValueError, wandb.Error) as error:  # pydantic's ValidationError is a ValueError
        return Answer(False, f"W&B's settings are not valid ({str(error).splitlines()[0]})")
    if settings.identity_token_file:
        return Answer(True, "")
    key = settings.api_key or _netrc_key(settings.base_url)
    if not key:
        return Answer(False, f"there is no API key for {settings.base_url} (wandb login, or WANDB_API_KEY)")
    return ask(settings.base_url, key, timeout_s)


def ask(base_url: str, api_key: str, timeout_s: float) -> Answer:
    """Ask the server at ``base_url`` who ``api_key`` is.

    The query runs in a thread that is left behind after ``timeout_s``: a socket's own timeout starts again with every
    byte, and name resolution has none.
    """
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(_query(base_url, api_key, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else _silent(base_url, timeout_s)


def _silent(base_url: str, timeout_s: float) -> Answer:
    return Answer(False, f"{base_url} did not answer within {timeout_s:g} s")


def _query(base_url: str, api_key: str, timeout_s: float) -> Answer:
    token = base64.b64encode(f"api:{api_key}".encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json", "User-Agent": "finetune"}
    request = urllib.request.Request(f"{base_url.rstrip('/')}/graphql", _QUERY, headers)  # noqa: S310 - checked below
    if request.type not in ("http", "https"):
        return Answer(False, f"{base_url} is no http or https address")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - http or https only
            body = json.loads(response.read(1_000_000))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Answer(False, f"{base_url} does not accept the API key (HTTP {error.code})")
        return Answer(False, f"{base_url} answered HTTP {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return _silent(base_url, timeout_s)
        return Answer(False, f"{base_url} cannot be reached ({reason})")
    viewer = (body.get("data") or {}).get("viewer") if isinstance(body, dict) else None
    return Answer(True, "") if viewer else Answer(False, f"{base_url} does not know the API key")


def _netrc_key(base_url: str) -> str | None:
    """The password that ``wandb login`` wrote for this host."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    host = urllib.parse.urlsplit(base_url).hostname or ""
    try:
        found = netrc.netrc(path).authenticators(host) if path.exists() else None
    except (netrc.NetrcParseError, OSError):
        return None
    return found[2] if found else None
