"""Out of memory: recognised, and explained by the settings that help."""

from __future__ import annotations

import torch

from finetune.errors import TrainingError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine ran out of memory; on a CPU torch raises a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    words = ("can't allocate memory", "out of memory", "not enough memory")
    of_onednn = (
        text == "could not create a primitive"
    )  # all that oneDNN says; more words follow where it was not memory
    return isinstance(error, RuntimeError) and (of_onednn or any(word in text for word in words))


def explain(error: BaseException, images: int, image_size: int) -> TrainingError:
    """What to lower when ``images`` of ``image_size`` pixels did not pass at once."""
    smaller = f"data.batch_size={images // 2}" if images > 1 else f"data.image_size={image_size // 2}"
    return TrainingError(
        f"out of memory with data.batch_size={images} and data.image_size={image_size}. Take {smaller} "
        "(with trainer.accumulate_grad_batches=2 a step still sees as many images), data.batch_size=auto, which finds "
        "what fits, or a smaller data.image_size; trainer.precision=bf16-mixed and optimizer=sgd need less, too. "
        f"torch said: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    )
