"""Cross-entropy over the classes: the default for one label an image.

Label smoothing keeps the logits small and helps calibration (Szegedy et al. 2016, arXiv:1512.00567; 0.1 is common).

Three ways to mend uneven classes, of which one is enough: ``class_weights=balanced`` counts images of rare classes more, a
balanced sampler draws them more often, and ``logit_adjustment=1`` adds ``log prior`` to the logits inside the loss (Menon
et al. 2021, arXiv:2007.07314; tau of their equation 10). The network then learns the logits to which the prior has to be
added: its own are those of classes that are equally frequent, which is what balanced accuracy asks for.

The prior lives in the loss alone. Predictions, figures and exports are of the network's own logits, and their
probabilities belong to equally frequent classes; ``train/loss`` and an epoch's ``val/loss`` have the prior in them, as they
have class weights and smoothing, so the two compare; the final ``loss`` of ``result.json`` has not. The temperature fits the
own logits to val as it is: it makes them more or less sure, and no prior can hide in one number.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from finetune.loss.weighting import log_prior, weights_of
from finetune.ranges import NotNegative, ShareBelowOne


class CrossEntropy(nn.Module):
    """torch's cross-entropy of ``logits + offsets_K``; mixed targets (float B K) are taken as distributions.

    Raises:
        DataError: class weights or logit adjustment are asked for and a class has no training image.
    """

    weights_K: Tensor
    offsets_K: Tensor

    def __init__(
        self,
        class_counts_K: Tensor,
        *,
        label_smoothing: ShareBelowOne = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        logit_adjustment: NotNegative = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weights_K", weights_of(class_counts_K, class_weights), persistent=False)
        self.register_buffer("offsets_K", log_prior(class_counts_K, logit_adjustment), persistent=False)

    def forward(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch; with class numbers and weights, the weighted mean."""
        return F.cross_entropy(
            logits_BK + self.offsets_K, targets, self.weights_K, label_smoothing=self.label_smoothing
        )
