"""No augmentation: training images are resized and cropped as at evaluation.

For measuring what augmentation adds, and for features that are computed once. Mixing batches still works.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.preprocessing import Preprocessing
from finetune.ranges import NotNegative


class NoAugmentation:
    """The evaluation's own resize and centre crop; the seed makes no difference."""

    def __init__(
        self, preprocessing: Preprocessing, *, mixup_alpha: NotNegative = 0.0, cutmix_alpha: NotNegative = 0.0
    ) -> None:
        self.preprocessing = preprocessing
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha

    @property
    def min_source_px(self) -> int:
        """As at evaluation."""
        return self.preprocessing.min_source_px

    def __call__(self, image_HWC: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        """uint8 H W 3 of any size to ``preprocessing.size``."""
        return self.preprocessing.resize_crop(image_HWC)
