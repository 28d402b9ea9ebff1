"""The yardsticks, written by hand with nothing of the toolkit: what the same work costs at the least.

    python -m bench.bare probe FOLDER         imports, one bfloat16 pass of a folded ResNet-50, 20 epochs of the head
    python -m bench.bare full FOLDER          one epoch of plain full fine-tuning, for its memory
    python -m bench.bare hydra                a Hydra application that imports nothing else

The functions are also called from the rows, in one process with what they are compared with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import seconds

BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resnet50() -> Any:
    """A ResNet-50 without weights, as the commands build it for timing."""
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model("resnet50", pretrained=False, num_classes=0)


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself."""
    import torch

    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def probe(folder: Path) -> None:
    """The whole linear probe of ``folder/CLASS``, as fast as a script can be."""
    import numpy as np
    import simplejpeg
    import torch
    from PIL import Image
    from torch.fx.experimental.optimization import fuse

    dtype = torch.bfloat16 if has_bf16() else torch.float32
    trunk = fuse(resnet50().eval()).to(dtype).to(memory_format=torch.channels_last)
    files = sorted(folder.rglob("*.jpg"))
    names = sorted({file.parent.name for file in files})
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) * 255 for part in (MEAN, STD))

    def read(file: Path) -> Any:
        pixels = simplejpeg.decode_jpeg(file.read_bytes(), "RGB", min_height=256, min_width=256)
        image = Image.fromarray(pixels)
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        return np.asarray(image.crop((left, top, left + 224, top + 224)))

    features = []
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            pixels = np.stack([read(file) for file in files[start : start + BATCH]])
            images_BCHW = (torch.from_numpy(pixels).permute(0, 3, 1, 2) - mean) / std
            features.append(trunk(images_BCHW.to(dtype).contiguous(memory_format=torch.channels_last)).float())
    features_ND = torch.cat(features).clone()
    targets_N = torch.tensor([names.index(file.parent.name) for file in files])
    head = torch.nn.Linear(features_ND.shape[1], len(names))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
    for _ in range(20):
        for rows in torch.randperm(len(files)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features_ND[rows]), targets_N[rows]).backward()
            optimizer.step()


class FullLoop:
    """The bare training step of a whole ResNet-50 on synthetic images: what a GPU or CPU can do at most."""

    def __init__(self, batch_size: int, num_classes: int) -> None:
        import torch

        self.network = torch.nn.Sequential(resnet50(), torch.nn.Linear(2048, num_classes))
        self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)
        self.images_BCHW = torch.randn(batch_size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        self.targets_B = torch.arange(batch_size) % num_classes
        self.bf16 = has_bf16()

    def step(self) -> None:
        """Forward, backward, clip, update."""
        import torch

        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            logits_BK = self.network(self.images_BCHW)
        torch.nn.functional.cross_entropy(logits_BK.float(), self.targets_B).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()


def lightning_s_per_image(folder: Path, batches: int = 4) -> float:
    """The probe as a plain Lightning loop trains it, a few batches of one epoch: seconds per image."""
    import lightning
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    class Probe(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = resnet50().requires_grad_(requires_grad=False).eval()
            self.head = torch.nn.Linear(2048, 2)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.head.parameters(), lr=1e-3)

    steps = [v2.ToImage(), v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    images = datasets.ImageFolder(str(folder), transform)
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_train_batches=batches,
    )  # fmt: skip
    model = Probe()
    return seconds(lambda: trainer.fit(model, loader)) / (batches * BATCH)


def augment_with_albumentations(folder: Path, count: int) -> None:
    """Decode with Pillow, crop at random, mirror and normalise with albumentations, as many training scripts do."""
    import albumentations
    import numpy as np

    steps = [
        albumentations.RandomResizedCrop(size=(224, 224), scale=(0.35, 1.0)),
        albumentations.HorizontalFlip(),
        albumentations.Normalize(MEAN, STD),
        albumentations.ToTensorV2(),
    ]
    transform = albumentations.Compose(steps)
    _batches(folder, count, lambda image: transform(image=np.asarray(image))["image"])


def augment_with_torchvision(folder: Path, count: int) -> None:
    """Decode with Pillow, crop at random, mirror and normalise with torchvision's v2 transforms, as its documentation does."""
    import torch
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(224, scale=(0.35, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    _batches(folder, count, v2.Compose([v2.ToImage(), crop, v2.RandomHorizontalFlip(), *last]))


def _batches(folder: Path, count: int, transform: Callable[[Any], Any]) -> None:
    """``count`` images of ``folder`` in float32 batches."""
    import torch
    from torchvision.datasets import ImageFolder

    images = torch.utils.data.Subset(ImageFolder(str(folder), transform), range(count))
    for images_BCHW, _ in torch.utils.data.DataLoader(images, batch_size=BATCH):
        assert images_BCHW.shape[1:] == (3, 224, 224)
        assert images_BCHW.dtype == torch.float32


def hydra() -> None:
    """A Hydra application with one key."""
    import hydra
    from omegaconf import DictConfig

    @hydra.main(version_base="1.3", config_path=None)
    def main(_: DictConfig) -> None:
        pass

    sys.argv[1:] = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        probe(Path(sys.argv[2]))
    elif sys.argv[1] == "full":
        loop = FullLoop(BATCH, 2)
        for _ in range(4):
            loop.step()
    elif sys.argv[1] == "hydra":
        hydra()
