"""Checkpoints from http(s) addresses: downloaded to a file of limited size, hashed, and then opened like local ones.

Nothing of a download is interpreted while it arrives; the reader that opens local checkpoints decides what is in it
(tensors and plain data only, sha256 checked). The copy is kept under the user's cache, named by its hash.
An address may pin its content: ``https://host/best.ckpt#sha256=HEX``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from finetune.errors import CheckpointError

MAX_BYTES = 8 * 2**30
TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


def is_address(ckpt: str) -> bool:
    """Whether ``ckpt`` is an address rather than a path."""
    return "://" in ckpt


def local_copy(ckpt: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S) -> Path:
    """``ckpt`` itself when it is a path, else the downloaded file. Raises ``CheckpointError``."""
    if not is_address(ckpt):
        return Path(ckpt)
    parts = urllib.parse.urlsplit(ckpt)
    if parts.scheme not in ("http", "https"):
        raise CheckpointError(f"ckpt={ckpt}: {parts.scheme}:// is not read; expected a path, http:// or https://")
    name = Path(urllib.parse.unquote(parts.path)).name
    if Path(name).suffix != ".ckpt":
        raise CheckpointError(
            f"ckpt={ckpt} does not end in .ckpt; only checkpoints that finetune.train wrote are downloaded"
        )
    pinned = urllib.parse.parse_qs(parts.fragment).get("sha256", [""])[0].lower()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    if pinned and len(pinned) == 64 and pinned.isalnum() and (folder / pinned / name).is_file():
        return folder / pinned / name
    descriptor, part = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = _receive(ckpt, urllib.parse.urldefrag(ckpt).url, file, max_bytes, timeout_s)
        if pinned and digest != pinned:
            raise CheckpointError(f"ckpt={ckpt}: what arrived has the sha256 {digest}; it was not kept")
        (folder / digest).mkdir(exist_ok=True)
        Path(part).replace(folder / digest / name)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return folder / digest / name


class _SameKind(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http or to another kind of address."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        kinds = urllib.parse.urlsplit(req.full_url).scheme, urllib.parse.urlsplit(newurl).scheme
        if kinds not in (("http", "http"), ("http", "https"), ("https", "https")):
            raise urllib.error.URLError(f"it leads from {kinds[0]} to {kinds[1]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(ckpt: str, url: str, file, max_bytes: int, timeout_s: float) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Copy the address's content into ``file``; gives its sha256."""
    digest, received = hashlib.sha256(), 0
    opener = urllib.request.build_opener(_SameKind)
    try:
        with opener.open(url, timeout=timeout_s) as response:
            while chunk := response.read(_CHUNK_BYTES):
                received += len(chunk)
                if received > max_bytes:
                    raise CheckpointError(
                        f"ckpt={ckpt} has more than {max_bytes:,} bytes; download it yourself if that is right"
                    )
                digest.update(chunk)
                file.write(chunk)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"ckpt={ckpt} could not be downloaded ({reason}); check the address, or give a file"
        ) from error
    return digest.hexdigest()
