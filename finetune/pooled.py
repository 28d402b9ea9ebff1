"""Pooled features of a checkpoint's backbone: what evaluate and predict met before is read, the rest computed and stored.

They are the features that judge a probe in training, under the same keys, so evaluating a probe after its training
computes nothing; and those of a fine-tuned network, so the same images cost it one pass, whatever is asked of them.
Eight kilobytes an image for a ResNet-50. Only the plain view is stored, and only of networks that came with their
configuration, as checkpoints do. ``cache=none`` computes everything and stores nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from finetune.cache.compiling import fast_trunk
from finetune.cache.features import SAME, FeatureCache
from finetune.cache.keys import PLAIN, POOLED, Boundary, activation_key, decisive_versions
from finetune.cache.store import Chunk, Digests, Features, FeatureStore, weights_digest
from finetune.cache.trunk import Trunk, difference, plain_features
from finetune.network import Network
from finetune.stages import divide
from finetune.torch_runtime import TorchRuntime

log = logging.getLogger(__name__)
Positions = npt.NDArray[np.int64]
Images = Iterator[tuple[Positions, npt.NDArray[np.uint8]]]
"""Positions of readable images among those asked for, and the images B H W 3, resized and cropped."""
_CHECKED = 4
"""Images on which the trunk is compared with the network before anything is stored."""


class Window(NamedTuple):
    """``logits_NK`` of the images at ``positions``; the others have to be computed live, or cannot be read."""

    positions: Positions
    logits_NK: npt.NDArray[np.float32]


class PooledScores:
    """Scores of a network's head on stored features.

    Args:
        cache: where, and how many gigabytes one job may fill or read; beyond them it computes live.
        runtime: of a ``Network``; its scores are those that features give, to 1e-6 of their size.
        backbone: configuration of the backbone, as in the checkpoint.
    """

    def __init__(self, cache: FeatureCache, runtime: TorchRuntime, backbone: dict[str, Any]) -> None:
        assert isinstance(runtime.network, Network)
        self.network = runtime.network
        self.preprocessing = runtime.description.preprocessing
        self.store = FeatureStore(cache.root)
        self.max_gb, self._compile = cache.max_gb, cache.compile
        tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        below = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
        self.stages = divide(self.network)
        self.boundary = Boundary(len(self.stages) - 1, POOLED, weights_digest(below))
        self.key = activation_key(
            self.boundary, PLAIN, self.preprocessing, backbone, torch.float32, runtime.device, decisive_versions()
        )
        self.device = runtime.device
        self._num_classes = len(runtime.description.classes)
        self.live = False
        """Whether the rest of the job has to be computed without the store; the reason was said."""
        self._trunk: Trunk | None = None
        self._refused = False
        self._bytes, self._there, self._asked, self._seconds = 0, 0, 0, 0.0

    def scores(self, digests_of: Callable[[], Digests], images: Callable[[Positions], Images], left: int) -> Window:
        """Logits of the images with the digests that are asked for; ``images`` reads those at the given positions.

        ``left`` images are still to come, these included.
        """
        started = time.monotonic()
        digests = digests_of()

        def compute(missing: Positions) -> Iterator[Chunk]:
            return self._compute(images(missing), round(left * len(missing) / len(digests)))

        features, there, refused = self.store.fetch(self.key, digests, compute)
        if refused and not self._refused:
            self._refused = True
            log.warning("features: they cannot be stored (%s); see cache.dir", refused)
        positions = np.flatnonzero(features.present_N)
        logits_NK = self._head(features, positions)
        self._there, self._asked = self._there + there, self._asked + len(digests)
        self._seconds += time.monotonic() - started
        return Window(positions, logits_NK)

    def say(self) -> None:
        """One line about all that was asked for since the last one."""
        if self._asked:
            log.info("features  %d of %d from cache (pooled), %.1f s", self._there, self._asked, self._seconds)
        self._there, self._asked, self._seconds = 0, 0, 0.0

    def _head(self, features: Features, positions: Positions) -> npt.NDArray[np.float32]:
        if not len(positions):
            return np.zeros((0, self._num_classes), dtype=np.float32)
        features_BD = features.take(positions)
        self._bytes += features_BD.nbytes
        if self._bytes > self.max_gb * 1e9 and not self.live:
            self.live = True
            log.info("features  live from here on: they would take more than cache.max_gb=%g", self.max_gb)
        with torch.inference_mode():
            logits_BK: npt.NDArray[np.float32] = self.network.head(features_BD.to(self.device)).float().cpu().numpy()
        return logits_BK

    def _compute(self, images: Images, expected: int) -> Iterator[Chunk]:
        for positions, images_BHWC in images:
            images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).to(self.device)
            if self._trunk is None:
                plain = self._plain_trunk(images_BCHW[:_CHECKED])
                if plain is None:
                    self.live = True
                    return
                self._trunk = fast_trunk(plain, images_BCHW, expected, self._compile)
            yield positions, self._trunk(images_BCHW).cpu()

    def _plain_trunk(self, images_BCHW: torch.Tensor) -> Trunk | None:
        """The folded network; None where it does not give the network's own features."""
        backbone = self.network.backbone
        trunk = Trunk(backbone, self.stages, self.boundary.below, self.preprocessing)
        expected_BD = plain_features(backbone, self.preprocessing, images_BCHW)
        if difference(expected_BD, trunk, None, images_BCHW) > SAME:
            log.info("features  live: this network gives other features as a whole than in its parts")
            return None
        return trunk
