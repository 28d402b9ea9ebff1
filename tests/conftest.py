"""What every test shares: an environment without network or contention, and small folders of learnable images."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Before torch is imported anywhere: two cores are shared, and nothing may look for a hub or a login.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
# XDG_CACHE_HOME moves below; matplotlib's list of fonts takes seconds to build and may stay where it is.
os.environ.setdefault("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in tests/e2e are end-to-end tests by where they stand."""
    for item in items:
        if "e2e" in item.path.relative_to(REPOSITORY).parts:
            item.add_marker(pytest.mark.e2e)
    # compiling starts autograd's threads for good, and a process that has them cannot be forked to train
    items.sort(key=lambda item: item.path.name in ("test_compiling.py", "test_compiled_steps.py"))


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and trackers write below a temporary folder; a variable set by one test is gone in the next."""
    folder = tmp_path_factory.mktemp("environment")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture(scope="session")
def clipart() -> Path:
    """The sample set that the repository carries: eight kinds of clip art, train/ and test/."""
    return REPOSITORY / "data" / "clipart"


def write_image_folder(
    root: Path,
    *,
    classes: Sequence[str] = ("amber", "blue", "coral"),
    n: int = 8,
    size: tuple[int, int] = (48, 56),
    seed: int = 0,
    suffix: str = ".png",
) -> Path:
    """Write ``n`` images (height, width) per class under ``root/CLASS``; a class is a hue, so it can be learned.

    ``classes`` may hold folders, as in ``("train/cat", "train/dog", "test/cat")``: the last part decides the hue.
    """
    generator = np.random.default_rng(seed)
    names = sorted({Path(folder).name for folder in classes})
    for folder in classes:
        hue = names.index(Path(folder).name) / len(names)
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            own_hue, value = hue + generator.uniform(-0.04, 0.04), generator.uniform(0.6, 0.9)
            colour = np.array(colorsys.hsv_to_rgb(own_hue, 0.8, value))
            noise = generator.normal(0.0, 0.08, (*size, 3))
            pixels = np.clip((colour + noise) * 255, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}{suffix}")
    return root


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """``image_folder(classes=..., n=..., size=...)`` writes a learnable folder below ``tmp_path`` and returns its path.

    Pass ``name`` for a second folder in the same test; the other keywords are those of ``write_image_folder``.
    """

    def write(name: str = "images", **options: object) -> Path:
        return write_image_folder(tmp_path / name, **options)  # type: ignore[arg-type]

    return write
