"""Which files of a folder are images: one pass over the tree, nothing opened that has an image's name.

Hidden and foreign files are counted, not used; FIFOs, sockets and devices are never opened; every real folder is listed
once, however many links (or loops of links) lead to it. A file whose extension is no image's is opened for 32 bytes:
images with a wrong or no extension are found. The result does not depend on the order in which the disk lists files.
Imports neither NumPy nor Pillow: it also answers the quick question whether a folder can be a data set at all.
Cost: about 6 microseconds a file.
"""
# ruff: noqa: PTH114, PTH116, PTH118, PTH122, PTH123
# Paths are bytes here, so that a name that is not UTF-8 stays what it is; Path knows no bytes.

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from dataclasses import dataclass, field

EXTENSIONS = frozenset(
    b".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .avif .heic .heif .jp2 .j2k .ppm .pgm .pbm .pnm"
    b" .ico .pcx .sgi .qoi .dds .mpo".split()
)
_FOREIGN = frozenset({b"thumbs.db", b"desktop.ini", b"__macosx", b"@eadir", b"icon\r"})
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"qoif", b"DDS "),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),  # JPEG 2000: container and bare codestream
)


@dataclass
class Listing:
    """Files in listing order: ``names`` one after another, and per file its length, size and time."""

    names: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    modified_ns: array[int] = field(default_factory=lambda: array("q"))
    folders: list[tuple[bytes, int]] = field(default_factory=list)
    """Folder (relative) and how many files of it follow, in order."""
    ignored: Counter[str] = field(default_factory=Counter)
    """What was passed over, and how often."""


def walk_all(root: bytes, starts: list[bytes], listing: Listing, seen: set[tuple[int, int]]) -> None:
    """``walk`` from each of ``starts``; what links lead to comes last, so that an image is listed at its real place."""
    links = [start for start in starts if os.path.islink(os.path.join(root, start))]
    later: list[bytes] = []
    for start in starts:
        if start not in links:
            walk(root, start, listing, seen, later)
    for start in [*links, *later]:
        walk(root, start, listing, seen)


def walk(
    root: bytes, start: bytes, listing: Listing, seen: set[tuple[int, int]], later: list[bytes] | None = None
) -> None:
    """Append the images under ``root``/``start``. ``seen`` holds the folders that were listed already.

    Linked folders are entered after all real ones, or collected in ``later``.
    """
    pending, linked = [start], list[bytes]()
    while pending or linked:
        folder = pending.pop() if pending else linked.pop(0)
        path = os.path.join(root, folder)
        try:
            folder_id = identity(path)
            if folder_id in seen:
                listing.ignored["links to a folder that is listed already"] += 1
                continue
            seen.add(folder_id)
            with os.scandir(path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            listing.ignored["folders that cannot be read"] += 1
            continue
        subfolders, links = _list_folder(folder, ordered, listing)
        pending.extend(reversed(subfolders))
        (linked if later is None else later).extend(links)


def identity(path: bytes) -> tuple[int, int]:
    """What makes a folder the same folder under another name."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def subfolders(path: bytes) -> list[bytes]:
    """Names of the folders (or links to folders) in a folder, sorted, without hidden and foreign ones."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if _ignored_name(entry.name) is None and _is_folder(entry))


def has_image(path: bytes) -> bool:
    """Whether any file below a folder looks like an image; stops at the first."""
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            folder_id = identity(folder)
            if folder_id in seen:
                continue
            seen.add(folder_id)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _ignored_name(entry.name) is not None:
                        continue
                    if _is_folder(entry):
                        pending.append(entry.path)
                    elif entry.is_file() and _looks_like_image(entry):
                        return True
        except OSError:
            continue
    return False


def _list_folder(folder: bytes, entries: list[os.DirEntry[bytes]], listing: Listing) -> tuple[list[bytes], list[bytes]]:
    """Append a folder's own images; its real subfolders and its linked ones."""
    real, links = list[bytes](), list[bytes]()
    count = 0
    prefix = folder + b"/" if folder else b""
    for entry in entries:
        reason = _ignored_name(entry.name)
        if reason is None and _is_folder(entry):
            (links if entry.is_symlink() else real).append(prefix + entry.name)
            continue
        if reason is None:
            reason = _append(entry, prefix, listing)
        if reason is None:
            count += 1
        else:
            listing.ignored[reason] += 1
    if count:
        listing.folders.append((folder, count))
    return real, links


def _append(entry: os.DirEntry[bytes], prefix: bytes, listing: Listing) -> str | None:
    """Append one file; the reason when it is passed over."""
    try:
        status = entry.stat()
    except OSError:
        return "broken links" if entry.is_symlink() else "files that cannot be read"
    if not stat.S_ISREG(status.st_mode):
        return "special files (FIFO, socket, device)"
    if not _looks_like_image(entry):
        extension = os.path.splitext(entry.name)[1].lower()
        return f"files that are no images ({os.fsdecode(extension)})" if extension else "files that are no images"
    listing.names += prefix + entry.name
    listing.lengths.append(len(prefix) + len(entry.name))
    listing.sizes.append(status.st_size)
    listing.modified_ns.append(status.st_mtime_ns)
    return None


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _ignored_name(name: bytes) -> str | None:
    if name[:1] == b".":
        return "hidden files and folders"
    return "system files" if name.lower() in _FOREIGN else None


def _looks_like_image(entry: os.DirEntry[bytes]) -> bool:
    if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
        return True
    try:
        with open(entry.path, "rb") as file:
            head = file.read(32)
    except OSError:
        return False
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (
        head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"heic", b"heix", b"mif1", b"msf1")
    )  # fmt: skip
