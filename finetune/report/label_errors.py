"""Labels that are probably wrong: confident learning (Northcutt et al. 2021, arXiv:1911.00068) by the cleanlab package.

It compares each label with probabilities from a model that was not trained on the image, so give it val, test or
out-of-fold predictions, never train's. Look before you relabel. Costs milliseconds per thousand images.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError
from finetune.metrics.predictions import Predictions


def label_errors(predictions: Predictions) -> list[int]:
    """Rows of labelled images whose label is probably wrong, the most suspicious first.

    Raises:
        ConfigError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ConfigError("finding label errors needs a package: pip install 'finetune[report]'") from error
    rows_N = np.flatnonzero(predictions.labelled_N)
    labelled = predictions.select(rows_N)
    probabilities_NK = labelled.probabilities_NK
    if len(rows_N) < 2 or not np.isfinite(probabilities_NK).all():
        return []
    if labelled.is_multilabel:
        return [int(row) for row in rows_N[_multi_label(labelled, probabilities_NK)]]
    targets_N = labelled.targets.astype(np.int64)
    present = np.unique(targets_N)
    if len(present) < 2:
        return []
    # cleanlab wants every class among the labels: renumber those that are there, and give the others' mass to nobody
    shares_NK = probabilities_NK[:, present] + 1e-12
    shares_NK /= shares_NK.sum(axis=1, keepdims=True)
    numbers_N = np.searchsorted(present, targets_N)
    with warnings.catch_warnings():  # with one image of a class there is nothing to suspect, and nothing to say
        warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
        found = find_label_issues(numbers_N, shares_NK, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(row) for row in rows_N[np.asarray(found, dtype=np.int64)]]


def _multi_label(labelled: Predictions, probabilities_NK: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    from cleanlab.multilabel_classification.filter import find_label_issues

    names = [np.flatnonzero(targets_K >= 0.5).tolist() for targets_K in labelled.targets]
    found = find_label_issues(names, probabilities_NK, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, dtype=np.int64)
