"""What a stored activation depends on: the digest of an image's bytes, and the key of everything else."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from finetune.cache.store import Digests, key_of
from finetune.preprocessing import Preprocessing

_DECISIVE = ("torch", "timm", "pillow", "simplejpeg", "opencv-python-headless", "albumentations")
PLAIN = -1
"""The view without augmentation."""
POOLED = "pooled"
"""The boundary above the whole backbone."""


class Boundary(NamedTuple):
    """Where a phase's computation can begin: above the first ``below`` stages, whose weights have this digest."""

    below: int
    name: str
    weights: str


def activation_key(
    boundary: Boundary,
    view: Any,
    preprocessing: Preprocessing,
    backbone: dict[str, Any],
    dtype: torch.dtype,
    device: torch.device,
    versions: dict[str, str],
) -> str:
    """Names everything that an activation depends on but the image.

    ``view`` and ``backbone`` (its configuration) are plain data, ``versions`` are ``decisive_versions()``.
    """
    return key_of(
        format=2,  # 1 had TF32 in the convolutions of a GPU
        weights=boundary.weights,
        boundary=boundary.name,
        preprocessing=preprocessing.to_dict(),
        view=view,
        backbone=backbone,
        dtype=str(dtype),
        versions=versions,
        device=device.type,
    )


def decisive_versions() -> dict[str, str]:
    """Of what decodes, augments and computes."""
    return {name: importlib.metadata.version(name) for name in _DECISIVE}


def digest_files(paths: Iterator[Path]) -> Digests:
    """sha256 of each file; a file that cannot be read gets zeros."""
    found: list[bytes] = []
    for path in paths:
        try:
            found.append(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            found.append(bytes(32))
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, 32)
