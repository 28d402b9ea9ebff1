"""Feature reuse (``cache=features``, the default): frozen stages are computed once, not once an epoch.

While every stage below some boundary is frozen, the activation at the boundary is a pure function of the weights up to
there, the preprocessing, the image's bytes and the augmentation. It is computed in one pass of the fast trunk and kept
in a content-addressed store that epochs, runs, concurrent jobs and the final evaluation share. With the backbone wholly
frozen a probe then costs one pass over the images and milliseconds an epoch.

What is stored is float32, or bfloat16 in runs that train in bfloat16 (8 bits of mantissa; features differ from float32
ones as those of a live forward pass under autocast do). The head is then trained on exactly these features in float32.
Pooled features of images that are not trained on are float32 in any run: they make the figures of a probe, and a network
is used in float32. That costs those images half as much again as bfloat16 would, once.
While the backbone is wholly frozen the plain view of each image is used (``views: 0``), as linear probes do; phases
that train part of the backbone keep their augmentation, so they are stored only with ``views: K`` or without
augmentation, and computed live otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from finetune.cache.compiling import fast_trunk
from finetune.cache.keys import PLAIN, POOLED, Boundary, activation_key, decisive_versions
from finetune.cache.store import Chunk, Digests, Features, FeatureStore, default_root, weights_digest
from finetune.cache.trunk import Trunk, difference, plain_features, rest_of
from finetune.freeze.schedule import FreezeSchedule, Phase
from finetune.preprocessing import Preprocessing

log = logging.getLogger(__name__)
Rows = npt.NDArray[np.int64]
SAME = 1e-4
"""Relative difference that folding and reordered float32 sums explain; measured 1e-7 to 2e-6."""
_MOST_LOST = 0.15
"""Relative difference that bfloat16 may make; measured .003 (ResNet-18) to .065 (EfficientNet-Lite0; live .056)."""


class ImageSource(NamedTuple):
    """What the cache asks of the data: digests of bytes, uint8 images in batches of (rows, B C H W), an example."""

    digests: Callable[[Rows], Digests]
    images: Callable[[Rows, int], Iterator[tuple[Rows, Tensor]]]
    example: Callable[[], Tensor]


class FeatureCache:
    """Keys of ``conf/cache/features.yaml``."""

    def __init__(
        self,
        *,
        dir: str | None = None,  # noqa: A002 - the key
        views: int = 0,
        max_gb: float = 8.0,
        compile: bool | Literal["auto"] = "auto",  # noqa: A002 - the key
    ) -> None:
        self.root = Path(dir).expanduser() if dir else default_root()
        self.views = views
        self.max_gb = max_gb
        self.compile = compile


class FeatureReuse:
    """Stored activations for the phases of one run.

    Args:
        cache: where, how many views, how much.
        network: backbone and head, in the state of the epoch that is asked for.
        schedule: says what is frozen when.
        preprocessing: of the images.
        source: of the images.
        identity: plain data that names the architecture and the augmentation.
        augments: whether the run's transform changes images at all.
        dtype: of what is stored.
    """

    def __init__(
        self,
        cache: FeatureCache,
        network: nn.Module,
        schedule: FreezeSchedule,
        preprocessing: Preprocessing,
        source: ImageSource,
        identity: dict[str, Any],
        dtype: torch.dtype,
        *,
        augments: bool,
    ) -> None:
        self.cache = cache
        self.store = FeatureStore(cache.root)
        self.network = network
        self.schedule = schedule
        self.preprocessing = preprocessing
        self.source = source
        self.identity = identity
        self.dtype = dtype
        self.augments = augments
        self._boundaries: dict[Phase, Boundary | None] = {}
        self._trunks: dict[Boundary, Trunk | None] = {}
        self._rests: dict[int, nn.Module] = {}
        self._features: dict[tuple[str, bytes], Features] = {}
        self._first_weights = self._backbone_digest()
        self._versions = decisive_versions()
        self._refused = False

    def boundary(self, epoch: int) -> Boundary | None:
        """The boundary of the phase of ``epoch``; None when nothing below the head is frozen, or its input changes."""
        phase = self.schedule.phase(epoch)
        if phase not in self._boundaries:
            self._boundaries[phase] = self._find_boundary(phase)
        return self._boundaries[phase]

    def rest(self, epoch: int) -> nn.Module | None:
        """What of the backbone a batch of stored activations still has to pass in ``epoch``; None: nothing."""
        boundary = self.boundary(epoch)
        assert boundary is not None
        return self._rest(boundary)

    def features(self, epoch: int, rows: Rows, *, training: bool) -> Features | None:
        """Activations of ``rows`` for ``epoch``, from memory, from the store, or computed now; None: compute live."""
        boundary = self.boundary(epoch)
        if boundary is None:
            return None
        view = epoch % self.cache.views if training and self.cache.views else PLAIN
        judged = not training and self._is_whole(boundary)
        return self._activations(boundary, rows, view, torch.float32 if judged else self.dtype)

    def pooled(self, rows: Rows) -> Features | None:
        """Float32 pooled features of the plain view of ``rows`` while the backbone has the weights the run began with.

        None once it was fine-tuned: nobody will ask for those features again.
        """
        weights = self._backbone_digest()
        if weights != self._first_weights:
            return None
        return self._activations(Boundary(len(self.schedule.stages) - 1, POOLED, weights), rows, PLAIN, torch.float32)

    def _is_whole(self, boundary: Boundary) -> bool:
        """Whether all of the backbone is below."""
        return boundary.below == len(self.schedule.stages) - 1

    def _backbone_digest(self) -> str:
        stages = self.schedule.stages
        return weights_digest(_tensors_below(self.network, stages, len(stages) - 1))

    def key(self, boundary: Boundary, view: int, dtype: torch.dtype) -> str:
        """Names everything that activations of ``view`` at ``boundary`` depend on besides the images themselves."""
        return activation_key(
            boundary,
            PLAIN if view == PLAIN else [view, self.identity["transform"], self.identity["seed"]],
            self.preprocessing,
            self.identity["backbone"],
            dtype,
            next(self.network.parameters()).device,
            self._versions,
        )

    def _activations(self, boundary: Boundary, rows: Rows, view: int, dtype: torch.dtype) -> Features | None:
        key = self.key(boundary, view, dtype)
        which = (key, rows.tobytes())
        if which not in self._features:
            digests = self.source.digests(rows)
            missing = not self.store.has(key, digests)
            trunk = self._trunk(boundary, len(rows), dtype) if missing else None
            if missing and trunk is None:
                return None
            self._features[which] = self._fetch(key, boundary, trunk, rows, digests, view)
        return self._features[which]

    def _rest(self, boundary: Boundary) -> nn.Module | None:
        stages = self.schedule.stages
        if self._is_whole(boundary):
            return None
        if boundary.below not in self._rests:
            self._rests[boundary.below] = rest_of(self.network.get_submodule("backbone"), stages, boundary.below)
        return self._rests[boundary.below]

    def _fetch(
        self, key: str, boundary: Boundary, trunk: Trunk | None, rows: Rows, digests: Digests, view: int
    ) -> Features:
        started = time.monotonic()

        def compute(missing: npt.NDArray[np.int64]) -> Iterator[Chunk]:
            assert trunk is not None, "somebody deleted features between two looks at them"
            position_of = dict(zip(rows[missing].tolist(), missing.tolist(), strict=True))
            device = next(self.network.parameters()).device
            trunk.module.to(device)
            fast: Trunk | None = None
            with tqdm(total=len(missing), desc="features", unit="image", leave=False, disable=None) as bar:
                for readable, images_BCHW in self.source.images(rows[missing], view):
                    images_BCHW = images_BCHW.to(device)
                    fast = fast or fast_trunk(trunk, images_BCHW, len(missing), self.cache.compile)
                    values = fast(images_BCHW).cpu()
                    yield np.array([position_of[row] for row in readable.tolist()], dtype=np.int64), values
                    bar.update(len(readable))

        features, there, refused = self.store.fetch(key, digests, compute)
        if refused and not self._refused:
            self._refused = True
            log.warning("features: they cannot be stored (%s) and stay in memory for this run; see cache.dir", refused)
        seconds = time.monotonic() - started
        log.info("features  %d of %d from cache (%s), %.1f s", there, len(rows), boundary.name, seconds)
        return features

    def _find_boundary(self, phase: Phase) -> Boundary | None:
        stages = self.schedule.stages
        below = _frozen_below(self.schedule, phase)
        if below == 0:
            return None
        if below == len(stages) - 1:
            name = POOLED
        else:
            name = f"input of {stages[below].name}"
            if self.augments and self.cache.views == 0:
                log.info(
                    "features  live from %s on, with augmentation; cache.views=K stores K views", stages[below].name
                )
                return None
        return Boundary(below, name, weights_digest(_tensors_below(self.network, stages, below)))

    def _trunk(self, boundary: Boundary, num_images: int, dtype: torch.dtype) -> Trunk | None:
        """The fast trunk of a boundary, checked against the plain network once; None says that the phase runs live."""
        if boundary not in self._trunks:
            self._trunks[boundary] = self._checked_trunk(boundary, num_images)
        trunk = self._trunks[boundary]
        # the copy in bfloat16 is let go after its pass: making it takes milliseconds
        return trunk if trunk is None or dtype == torch.float32 else trunk.in_dtype(dtype)

    def _checked_trunk(self, boundary: Boundary, num_images: int) -> Trunk | None:
        """In float32; also checked in the precision that the run stores. None when it is to be computed live."""
        backbone = self.network.get_submodule("backbone")
        trunk = Trunk(backbone, self.schedule.stages, boundary.below, self.preprocessing)
        rest = self._rest(boundary)
        images_BCHW = self.source.example().to(next(backbone.parameters()).device)
        expected_BD = plain_features(backbone, self.preprocessing, images_BCHW)
        if difference(expected_BD, trunk, rest, images_BCHW) > SAME:
            log.info("features  live: this network cannot be entered at the %s", boundary.name)
            return None
        stored = trunk if self.dtype == torch.float32 else trunk.in_dtype(self.dtype)
        lost = 0.0 if stored is trunk else difference(expected_BD, stored, rest, images_BCHW)
        if lost > _MOST_LOST:
            log.info("features  live: %s would change them by %.0f%%", self.dtype, 100 * lost)
            return None
        gigabytes = stored(images_BCHW[:1]).nbytes * num_images * max(1, self.cache.views) / 1e9
        if gigabytes > self.cache.max_gb:
            most = self.cache.max_gb
            log.info("features  live: the %s would take %.1f GB (cache.max_gb=%g)", boundary.name, gigabytes, most)
            return None
        return trunk


def _frozen_below(schedule: FreezeSchedule, phase: Phase) -> int:
    """How many stages, counted from the input, are wholly frozen in ``phase``."""
    moving = set(phase.stages) | set(phase.norm_stages)
    names = [stage.name for stage in schedule.stages[:-1]]
    return next((number for number, name in enumerate(names) if name in moving), len(names))


def _tensors_below(network: nn.Module, stages: tuple[Any, ...], below: int) -> dict[str, Tensor]:
    names = {name for stage in stages[:below] for name in (*stage.parameters, *stage.buffers)}
    everything = dict(network.named_parameters()) | dict(network.named_buffers())
    return {name: everything[name] for name in names}
