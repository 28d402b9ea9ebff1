"""One run of a rival on a folder of the benchmark; one line of JSON at its end.

    python -m bench.accuracy.rival fastai FOLDER --epochs 10 --size 128 --batch 32 --seed 1

All start from the same packaged ImageNet weights of EfficientNet-Lite0 and see train/, val/ and test/ as they stand.
``fastai``: ``fine_tune`` with its defaults, one frozen epoch and the rest unfrozen, so ``--epochs`` in all. ``timm``: a
plain loop with the flags that its documentation recommends for fine-tuning: AdamW, cosine with one epoch of warm-up,
label smoothing, random resized crops. ``logistic``: scikit-learn's logistic regression on features of the frozen
network, its strength by cross-validation; ``logistic-all`` may learn from val/ too.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from finetune.backbone.packaged import TRAINED_WITH, read

NETWORK = "tf_efficientnet_lite0"
FEATURES = 1280
STRENGTHS = np.logspace(-5, 3, 17)
"""scikit-learn's C, for features scaled to unit variance."""


class Task(NamedTuple):
    """What a rival is asked."""

    folder: Path
    epochs: int
    size: int
    batch: int
    seed: int

    @property
    def classes(self) -> list[str]:
        """Names, sorted."""
        return sorted(entry.name for entry in (self.folder / "train").iterdir())


def pretrained(num_classes: int, pooling: str = "avg") -> nn.Module:
    """The network as timm builds it, with the packaged weights and a new classifier."""
    import timm

    module = timm.create_model(NETWORK, num_classes=num_classes, global_pool=pooling)
    weights = {name: value for name, value in read(NETWORK)[0].items() if not name.startswith("classifier")}
    wrong = module.load_state_dict(weights, strict=False)
    assert not wrong.unexpected_keys
    assert all(name.startswith("classifier") for name in wrong.missing_keys)
    return module


def fastai(task: Task) -> float:
    """``vision_learner`` as fastai builds it for a timm network, then ``fine_tune``."""
    from fastai.vision import all as fv

    stats = fv.Normalize.from_stats(TRAINED_WITH.mean, TRAINED_WITH.std)
    loaders = fv.ImageDataLoaders.from_folder(
        task.folder,
        valid="val",
        item_tfms=fv.Resize(task.size),
        batch_tfms=[*fv.aug_transforms(), stats],
        bs=task.batch,
        seed=task.seed,
    )
    head = fv.create_head(FEATURES, len(task.classes))
    fv.apply_init(head, nn.init.kaiming_normal_)
    model = nn.Sequential(pretrained(0, pooling=""), head)
    learner = fv.Learner(loaders, model, splitter=lambda both: fv.L(both[0], both[1]).map(fv.params))
    learner.freeze()
    with learner.no_bar():
        learner.fine_tune(task.epochs - 1, freeze_epochs=1)
    assert list(loaders.vocab) == task.classes
    files = sorted((task.folder / "test").glob("*/*"))
    targets_N = torch.tensor([task.classes.index(file.parent.name) for file in files])
    probabilities_NK, _ = learner.get_preds(dl=loaders.test_dl(files))
    return float((probabilities_NK.argmax(1) == targets_N).float().mean())


def timm_loop(task: Task) -> float:
    """The loop that everybody writes."""
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    normal = {"mean": TRAINED_WITH.mean, "std": TRAINED_WITH.std, "interpolation": "bicubic"}
    augmented = create_transform(task.size, is_training=True, scale=(0.35, 1.0), **normal)
    plain = create_transform(task.size, crop_pct=TRAINED_WITH.crop_pct, **normal)
    train = torch.utils.data.DataLoader(
        ImageFolder(task.folder / "train", augmented), batch_size=task.batch, shuffle=True, num_workers=2
    )
    test = torch.utils.data.DataLoader(ImageFolder(task.folder / "test", plain), batch_size=64, num_workers=2)
    model = pretrained(len(task.classes))
    decayed = [value for value in model.parameters() if value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4)
    steps, warmup = task.epochs * len(train), len(train)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    step = 0
    for _ in range(task.epochs):
        model.train()
        for images_BCHW, targets_B in train:
            climb = min(1.0, (step + 1) / warmup)
            fall = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup)))
            for group in optimizer.param_groups:
                group["lr"] = 5e-4 * climb * fall
            optimizer.zero_grad()
            loss_of(model(images_BCHW), targets_B).backward()
            optimizer.step()
            step += 1
    model.eval()
    right = 0
    with torch.inference_mode():
        for images_BCHW, targets_B in test:
            right += int((model(images_BCHW).argmax(1) == targets_B).sum())
    return right / len(test.dataset)  # type: ignore[arg-type]


def logistic(task: Task, *, with_val: bool) -> float:
    """Features once, then scikit-learn."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    x_ND, targets_N = features(task, "train")
    if with_val:
        more_ND, more_N = features(task, "val")
        x_ND, targets_N = np.concatenate([x_ND, more_ND]), np.concatenate([targets_N, more_N])
    folds = StratifiedKFold(min(5, np.bincount(targets_N).min()), shuffle=True, random_state=task.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regression = LogisticRegressionCV(Cs=STRENGTHS, cv=folds, scoring="neg_log_loss", max_iter=5000, tol=1e-7)
        scaler = StandardScaler().fit(x_ND)
        x_ND = scaler.transform(x_ND).astype(np.float64)
        # with fewer images than features, turned into the plane of the images: the same optimum, in fewer columns
        turn_DM = np.linalg.svd(x_ND, full_matrices=False)[2].T if len(x_ND) < x_ND.shape[1] else np.eye(x_ND.shape[1])
        regression.fit(x_ND @ turn_DM, targets_N)
    test_ND, test_N = features(task, "test")
    return float((regression.predict(scaler.transform(test_ND) @ turn_DM) == test_N).mean())


def features(task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features N D of a split under timm's evaluation transform, and class numbers N; kept for ``logistic-all``."""
    kept = task.folder.with_name(f"{task.folder.name}-{split}.npz")
    if kept.is_file():
        with np.load(kept) as content:
            return content["x_ND"], content["targets_N"]
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    plain = create_transform(
        task.size,
        crop_pct=TRAINED_WITH.crop_pct,
        mean=TRAINED_WITH.mean,
        std=TRAINED_WITH.std,
        interpolation="bicubic",
    )
    loader = torch.utils.data.DataLoader(ImageFolder(task.folder / split, plain), batch_size=64, num_workers=2)
    model = pretrained(0).eval()
    with torch.inference_mode():
        parts = [(model(images_BCHW), targets_B) for images_BCHW, targets_B in loader]
    x_ND, targets_N = torch.cat([part for part, _ in parts]).numpy(), torch.cat([part for _, part in parts]).numpy()
    np.savez(kept, x_ND=x_ND, targets_N=targets_N)
    return x_ND, targets_N


RIVALS = {
    "fastai": fastai,
    "timm": timm_loop,
    "logistic": lambda task: logistic(task, with_val=False),
    "logistic-all": lambda task: logistic(task, with_val=True),
}


def main() -> None:
    """Run one, print its accuracy on test/."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.rival")
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("folder", type=Path)
    for name in ("epochs", "size", "batch", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    chosen = parser.parse_args()
    random.seed(chosen.seed)
    np.random.seed(chosen.seed)  # noqa: NPY002 - fastai draws from the global generator
    torch.manual_seed(chosen.seed)
    task = Task(chosen.folder, chosen.epochs, chosen.size, chosen.batch, chosen.seed)
    print(json.dumps({"test_accuracy": RIVALS[chosen.rival](task)}))


if __name__ == "__main__":
    main()
