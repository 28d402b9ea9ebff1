"""A changed byte anywhere in a checkpoint is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.checkpoint import read_checkpoint
from finetune.errors import CheckpointError


def test_hundred_flipped_bytes_and_every_byte_of_the_seal_are_refused(
    card: Any, checkpoint_with: Callable[..., Path]
) -> None:
    path = checkpoint_with(card)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    positions = [*rng.integers(0, len(content), 100), *range(len(content) - 100, len(content))]
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(content)
    assert read_checkpoint(path).classes == ("cat", "dog")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_file_that_is_cut_short_is_refused(kept: float, card: Any, checkpoint_with: Callable[..., Path]) -> None:
    path = checkpoint_with(card)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
