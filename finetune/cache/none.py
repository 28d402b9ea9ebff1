"""No reuse of features (``cache=none``): every epoch computes every stage, frozen or not, with fresh augmentation."""

from __future__ import annotations


class NoCache:
    """Has no keys."""
