"""BatchNorm folding: the same function with fewer operations."""

import pytest
import timm
import torch
from torch import nn

from finetune.errors import ExportError
from finetune.exporter.fold import fold_batchnorm


def trained_looking(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return network.eval()


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_efficientnet.r160_in1k", "resnet18"])
def test_folded_network_computes_the_same_without_a_batchnorm(name: str) -> None:
    network = trained_looking(timm.create_model(name, num_classes=5))
    images_BCHW = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    folded = fold_batchnorm(network, images_BCHW)
    other_BCHW = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(folded.network(other_BCHW), network(other_BCHW), rtol=1e-4, atol=1e-4)
    assert folded.folded == folded.total > 5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.network.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()), "the original is left alone"


class NormFirst(nn.Module):
    """One BatchNorm before its convolution, one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.conv, self.after = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.after(self.conv(self.before(images_BCHW))).mean((2, 3))


def test_batchnorm_that_reads_no_convolution_stays() -> None:
    folded = fold_batchnorm(trained_looking(NormFirst()), torch.randn(2, 3, 8, 8))
    assert (folded.folded, folded.total) == (1, 2)
    assert isinstance(folded.network.get_submodule("before"), nn.BatchNorm2d)


class ReadTwice(NormFirst):
    """The convolution's output is also used beside the BatchNorm, which folding would change."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        convolved_BCHW = self.conv(images_BCHW)
        return (self.after(convolved_BCHW) + convolved_BCHW).mean((2, 3))


def test_convolution_whose_output_is_used_twice_is_noticed() -> None:
    with pytest.raises(ExportError, match=r"exporter\.fold_batchnorm=false"):
        fold_batchnorm(trained_looking(ReadTwice()), torch.randn(2, 3, 8, 8))
