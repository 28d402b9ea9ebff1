"""Show what stands in the store of frozen features, and make room in it.

    python -m finetune.cache                       # keys, sizes and days since they were used
    python -m finetune.cache --prune               # delete everything
    python -m finetune.cache --prune --keep-gb 4   # delete the least recently used until 4 GB remain

Runs find the store below the user's cache directory, or where ``cache.dir`` says; ``--dir`` names the same folder here.
Nothing that is deleted is lost: the next run computes it again. Keys that a run is just filling are left alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Parse, print, and delete if asked to."""
    parser = argparse.ArgumentParser(prog="python -m finetune.cache", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dir", type=Path, help="the store; default: the one that runs use without cache.dir")
    parser.add_argument("--prune", action="store_true", help="delete, least recently used first")
    parser.add_argument("--keep-gb", type=float, default=0.0, help="with --prune: so many gigabytes may stay")
    chosen = parser.parse_args(arguments)
    if chosen.keep_gb < 0:
        parser.error(f"--keep-gb {chosen.keep_gb:g}: 0 or more gigabytes are expected")
    if chosen.keep_gb and not chosen.prune:
        parser.error("--keep-gb says how much --prune leaves; add --prune")
    if chosen.dir is not None and not chosen.dir.is_dir():
        parser.error(f"--dir {chosen.dir}: there is no such folder")

    from finetune.cache.store import FeatureStore, default_root

    store = FeatureStore(chosen.dir or default_root())
    if chosen.prune:
        before = {key: size for key, size, _ in store.sizes()}
        gone = store.prune(int(chosen.keep_gb * 1e9))
        freed = sum(before[key] for key in gone)
        print(f"deleted {len(gone)} of {len(before)} keys, {freed / 1e6:.1f} MB, from {store.root}")  # noqa: T201 - the command's output
        return
    rows = store.sizes()
    for key, size, used in rows:
        print(f"{key[:12]}  {size / 1e6:10.1f} MB  used {(time.time() - used) / 86_400:.1f} days ago")  # noqa: T201
    print(f"{len(rows)} keys, {sum(size for _, size, _ in rows) / 1e6:.1f} MB in {store.root}")  # noqa: T201


if __name__ == "__main__":
    main()
