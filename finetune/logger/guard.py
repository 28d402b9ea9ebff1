"""A tracker that breaks must not end a training: the first failure is told, then nothing more is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Guard:
    """Runs what talks to a tracker; ``tracker`` is its name for the message, ``lost`` whether it has failed."""

    def __init__(self, tracker: str) -> None:
        self.tracker = tracker
        self.lost = False

    def send(self, action: Callable[[], object]) -> None:
        """Run ``action`` unless the tracker has failed before."""
        if self.lost:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises must not end a training
            self.lost = True
            reason = (str(error).splitlines() or [""])[0]
            log.warning(
                "%s: tracking stops here, the training goes on (%s: %s)", self.tracker, type(error).__name__, reason
            )
