"""timm's pretrained weights: first from the local cache, then from the Hugging Face hub, never with a long wait.

The hub's client retries for 47 s when there is no network. Here the cache is read directly; where it has nothing, one
short request finds out whether the hub can be reached; only then is timm asked to download.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from finetune.errors import WeightsError

TIMEOUT_S = 8.0
_FILES = ("model.safetensors", "pytorch_model.bin")


def find_pretrained(name: str, ways_on: str) -> tuple[dict[str, Any], str]:
    """What timm.create_model needs for the pretrained weights of ``name``, and a description of them."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise WeightsError(
            f"backbone.weights=pretrained: {name} has no pretrained weights; "
            "say backbone.weights=none to train it from scratch, or backbone.weights=FILE with your own"
        )
    title = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    filename = config.hf_hub_filename
    cached = _cached_repository(config.hf_hub_id, (filename,) if filename else _FILES) if config.hf_hub_id else None
    cached = cached or (_cached_download(str(config.url)) if config.url else None)
    if cached is not None:
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(cached)}}, f"{title} (local cache)"
    address = _hub_address(config.hf_hub_id) if config.hf_hub_id else str(config.url)
    problem = _unreachable(address)
    if problem is not None:
        raise WeightsError(
            f"backbone.weights=pretrained: the weights {title} are not on this machine, and {problem}. {ways_on}"
        )
    return {"pretrained": True}, f"{title} (Hugging Face hub)"


def find_repository(name: str, repository: str, ways_on: str) -> tuple[dict[str, Any], str]:
    """As ``find_pretrained``, for the weights of one hub repository, which must be of the architecture ``name``."""
    from timm.models import load_model_config_from_hf

    asked = f"backbone.weights=hf-hub:{repository}"
    cached = _cached_repository(repository, _FILES)
    settings = _cached_repository(repository, ("config.json",))
    if cached is None or settings is None:
        problem = _unreachable(_hub_address(repository))
        if problem is not None:
            raise WeightsError(f"{asked} is not in the local cache, and {problem}. {ways_on}")
    try:
        config, architecture, _ = load_model_config_from_hf(repository)
    except Exception as error:
        raise WeightsError(f"{asked}: its config.json could not be read ({type(error).__name__}). {ways_on}") from error
    if architecture != name.partition(".")[0]:
        raise WeightsError(
            f"{asked} holds a {architecture}, but backbone.name={name}; say backbone.name={architecture}"
        )
    if cached is not None:
        config = {**config, "source": "", "hf_hub_id": None, "file": str(cached)}
    return {"pretrained": True, "pretrained_cfg": config}, f"hf-hub:{repository}"


def _cached_repository(repository: str, filenames: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = repository.partition("@")
    for filename in filenames:
        found = try_to_load_from_cache(repository, filename, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def _cached_download(url: str) -> Path | None:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return path if path.is_file() else None


def _hub_address(repository: str) -> str:
    from huggingface_hub import constants

    repository, _, revision = repository.partition("@")
    return f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/config.json"


def _unreachable(address: str) -> str | None:
    """Why ``address`` cannot be had, in words, or None when it answers; at most ``TIMEOUT_S``."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return "HF_HUB_OFFLINE forbids asking the hub"
    host = urllib.parse.urlsplit(address).hostname
    answer: list[str | None] = [f"{host} did not answer within {TIMEOUT_S:.0f} s"]

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - an https address of the hub
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                answer[0] = None
        except urllib.error.HTTPError as error:
            answer[0] = f"{host} answered {error.code} {error.reason}"
        except (OSError, ValueError) as error:
            answer[0] = f"{host} cannot be reached ({getattr(error, 'reason', error)})"

    # looking up a name ignores every timeout of Python's, so the question is asked beside us
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(TIMEOUT_S)
    return answer[0]
