"""Images with the statistics of photographs: power falls with the square of the frequency, colours are correlated."""

from __future__ import annotations

import numpy as np


def photograph(seed: int, *, height: int = 240, width: int = 320) -> np.ndarray:
    """RGB uint8 H W 3."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width)) ** generator.uniform(1.2, 1.8)

    def field() -> np.ndarray:
        phase = np.exp(2j * np.pi * generator.random(amplitude.shape))
        return np.fft.irfft2(amplitude * phase, (height, width))

    shared = field()
    channels = []
    for _ in range(3):
        channel = shared * generator.uniform(0.5, 1) + 0.5 * field()
        channel = (channel - channel.mean()) / channel.std()
        channels.append(channel * generator.uniform(25, 55) + generator.uniform(80, 170))
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
