"""LPIPS, the perceptual distance of pictures: Zhang, Isola, Efros, Shechtman and Wang, 2018, version 0.1.

A classifier's activations (AlexNet's or VGG-16's), normalised at each pixel and compared channel by channel, with
weights that were fitted to what people call similar. Treadle ships no weights and downloads none: make the file once,
on a machine with network, where `pip install lpips torchvision` works:

    import lpips, safetensors.torch
    state = lpips.LPIPS(net="alex").state_dict()          # or net="vgg"
    safetensors.torch.save_file({name: value.clone() for name, value in state.items()}, "lpips_alex.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.images.pixels import seen_by_networks
from treadle.images.pretrained import fill, read_tensors, vgg

SMALLEST = 32
"""The shortest side of the pictures, in pixels: AlexNet leaves nothing of smaller ones."""


def lpips_metric(weights: Path | str) -> Callable[[Tensor, Tensor], list[float]]:
    """Return the function that gives the LPIPS of each pair of two batches: 0 where they agree.

    The function takes `(outputs, targets)`, both (N, C, H, W) in [-1, 1], at least 32 x 32, on any device. There it
    computes in float32, on the pictures rounded to 8 bits. Gray is repeated, alpha left out.

    Args:
        weights: the safetensors file; its shapes say whether they are AlexNet's or VGG-16's.

    Raises:
        UsageError: the file is missing or holds something else; from the function: the shapes do not fit.
    """
    path = Path(weights)
    tensors = read_tensors(path, "LPIPS")
    first = tensors.get("net.slice1.0.weight")
    network = LPIPS("alex" if first is not None and first.shape[-1] == 11 else "vgg")
    fill(network, tensors, path, "LPIPS")

    def distances(outputs: Tensor, targets: Tensor) -> list[float]:
        if outputs.shape != targets.shape or outputs.dim() != 4 or min(outputs.shape[2:]) < SMALLEST:
            raise UsageError(
                f"LPIPS compares two batches (N, C, H, W) of one shape, at least {SMALLEST} x {SMALLEST} pixels, "
                f"not {tuple(outputs.shape)} and {tuple(targets.shape)}"
            )
        network.to(outputs.device)
        with torch.inference_mode(), torch.autocast(outputs.device.type, enabled=False):
            values: list[float] = network(seen_by_networks(outputs), seen_by_networks(targets)).tolist()
        return values

    return distances


class LPIPS(nn.Module):
    """The network; parameters are named as in the `lpips` package.

    Args:
        classifier: "alex" or "vgg".
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, classifier: str) -> None:
        super().__init__()
        slices = _cut(_alexnet() if classifier == "alex" else vgg(2, 2, 3, 3, 3))
        self.net = nn.Module()
        self.stages = len(slices)
        for stage, layers in enumerate(slices):
            self.net.add_module(f"slice{stage + 1}", layers)
            widths = [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)]
            self.add_module(f"lin{stage}", _Head(widths[-1]))
        # From [-1, 1] to what the classifiers were trained on: [0, 1], ImageNet's mean subtracted, divided by its std.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The distance of each pair: two batches (N, 3, H, W) in [-1, 1] -> (N,)."""
        x, y = (outputs - self.shift) / self.scale, (targets - self.shift) / self.scale
        total = x.new_zeros(len(x))
        for stage in range(self.stages):
            layers, head = self.net.get_submodule(f"slice{stage + 1}"), self.get_submodule(f"lin{stage}")
            x, y = layers(x), layers(y)
            total = total + head((_normalised(x) - _normalised(y)).square()).mean(dim=(1, 2, 3))
        return total


class _Head(nn.Module):
    """The fitted weight of each channel. The package has a dropout before it, hence the index 1 in its names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _normalised(activations: Tensor) -> Tensor:
    return activations / (activations.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _alexnet() -> list[list[nn.Module]]:
    """AlexNet's features, cut after each ReLU."""
    return [
        [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def _cut(slices: list[list[nn.Module]]) -> list[nn.Sequential]:
    """Slices whose layers keep the index that they have in torchvision's network."""
    result, index = [], 0
    for layers in slices:
        numbered = nn.Sequential()
        for layer in layers:
            numbered.add_module(str(index), layer)
            index += 1
        result.append(numbered)
    return result
