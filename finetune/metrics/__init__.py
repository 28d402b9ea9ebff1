"""Numbers that say how good a classifier is, how sure those numbers are, and where it fails: numpy in, plain data out.

One definition for the training loop, ``evaluate``, the report and the trackers. ``result`` gives the flat figures of
``result.json``; ``evaluate`` adds intervals, the per-class table, the confusion matrix and the reliability curve.
"""

from finetune.metrics.evaluation import Evaluation, evaluate
from finetune.metrics.summary import result

__all__ = ["Evaluation", "evaluate", "result"]
