"""The Inception-v3 of the Fréchet Inception distance: Szegedy et al. 2016, as in TensorFlow's release of December 2015.

The names of parameters are those of torchvision's network and of the `pytorch-fid` package, which ported the weights.
It differs from torchvision's: averages at the border leave the padding out, the last block pools by maximum, and the
input is in [-1, 1]. Scores are comparable only with exactly this network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 2048
SIDE = 299
"""Pictures are scaled to this many pixels a side."""


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU; the sides stay unless there is a stride."""

    def __init__(self, channels: int, width: int, kernel: Any, stride: int = 1, padding: Any = None) -> None:
        super().__init__()
        rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        if padding is None:
            padding = (rows // 2, columns // 2) if stride == 1 else 0
        self.conv = nn.Conv2d(channels, width, (rows, columns), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches side by side, their channels one after another, and last what pooling leaves.

    Args:
        channels: of the input.
        pool: comes before the branch "branch_pool", or is a branch by itself where there is none of that name.
        branches: width, kernel and stride of the convolutions of each branch, which are called name_1, name_2 ... (an
            only one just the name). A kernel that is a list ends in two that see the same, name_2a and name_2b.
    """

    def __init__(self, channels: int, pool: Callable[[Tensor], Tensor], **branches: list[tuple[Any, ...]]) -> None:
        super().__init__()
        self.pool, self.branches = pool, branches
        for name, convolutions in branches.items():
            before = channels
            for number, (width, kernel, *stride) in enumerate(convolutions, start=1):
                label = name if len(convolutions) == 1 else f"{name}_{number}"
                for letter, one in zip("ab", kernel, strict=True) if isinstance(kernel, list) else [("", kernel)]:
                    self.add_module(label + letter, _Conv(before, width, one, *stride))
                before = width

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        found = []
        for name, convolutions in self.branches.items():
            parts = [self.pool(x) if name == "branch_pool" else x]
            for number, (_, kernel, *_) in enumerate(convolutions, start=1):
                label = name if len(convolutions) == 1 else f"{name}_{number}"
                ends = "ab" if isinstance(kernel, list) else [""]
                parts = [self.get_submodule(label + letter)(parts[0]) for letter in ends]
            found += parts
        return torch.cat(found if "branch_pool" in self.branches else [*found, self.pool(x)], dim=1)


ROW, COLUMN = (1, 7), (7, 1)


def _a(channels: int, pooled: int) -> _Mixed:
    """35 x 35: 1 x 1, 5 x 5, twice 3 x 3, and pooling."""
    return _Mixed(
        channels,
        _average,
        branch1x1=[(64, 1)],
        branch5x5=[(48, 1), (64, 5)],
        branch3x3dbl=[(64, 1), (96, 3), (96, 3)],
        branch_pool=[(pooled, 1)],
    )


def _c(inner: int) -> _Mixed:
    """17 x 17: 7 x 7 as a row and a column, once and twice."""
    return _Mixed(
        768,
        _average,
        branch1x1=[(192, 1)],
        branch7x7=[(inner, 1), (inner, ROW), (192, COLUMN)],
        branch7x7dbl=[(inner, 1), (inner, COLUMN), (inner, ROW), (inner, COLUMN), (192, ROW)],
        branch_pool=[(192, 1)],
    )


def _e(channels: int, pool: Callable[[Tensor], Tensor]) -> _Mixed:
    """8 x 8: 3 x 3 as a row beside a column."""
    return _Mixed(
        channels,
        pool,
        branch1x1=[(320, 1)],
        branch3x3=[(384, 1), (384, [(1, 3), (3, 1)])],
        branch3x3dbl=[(448, 1), (384, 3), (384, [(1, 3), (3, 1)])],
        branch_pool=[(192, 1)],
    )


class Inception(nn.Sequential):
    """Pictures (N, 3, H, W) in [-1, 1] -> features (N, 2048): the activations before the last layer, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.pool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, padding=0)
        self.pool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _Mixed(
            288, _halved, branch3x3=[(384, 3, 2)], branch3x3dbl=[(64, 1), (96, 3), (96, 3, 2)]
        )  # 35 x 35 to 17 x 17
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(128), _c(160), _c(160), _c(192)
        self.Mixed_7a = _Mixed(
            768,
            _halved,
            branch3x3=[(192, 1), (320, 3, 2)],
            branch7x7x3=[(192, 1), (192, ROW), (192, COLUMN), (192, 3, 2)],
        )  # 17 x 17 to 8 x 8
        self.Mixed_7b, self.Mixed_7c = _e(1280, _average), _e(2048, _maximum)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = super().forward(F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False))
        return x.mean(dim=(2, 3))
