"""Transfer learning for image classification: a folder in, a classifier, a report and an artefact out.

Nothing is imported here, so that ``python -m finetune.train --help`` stays fast.
"""

__version__ = "0.1.0"
