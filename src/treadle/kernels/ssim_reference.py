"""L1 and SSIM in plain torch: the definition the compiled loops are held to, and what runs on other devices.

SSIM as in Wang et al., "Image quality assessment" (2004): windows of 11 x 11 Gaussian weights of sigma 1.5, constants
for values in [0, 1]; beyond the picture both are zero, as in the losses of 3DGS and gsplat.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TAPS = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


def window(dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """(11,) the weights of the window along one axis; they sum to 1."""
    offsets = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    weights = (-offsets.square() / (2 * SIGMA**2)).exp()
    return (weights / weights.sum()).to(dtype).to(device)


def ssim_l1_reference(image: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`treadle.kernels.ssim.ssim_l1` with differentiable torch operations."""
    if mask is None:
        mask = image.new_ones(image.shape[:2])
    image, target = image * mask[..., None], target * mask[..., None]
    weights = window(image.dtype, image.device)

    def blur(values: Tensor) -> Tensor:
        across = functional.conv2d(values, weights.view(1, 1, 1, -1), padding=(0, TAPS // 2))
        return functional.conv2d(across, weights.view(1, 1, -1, 1), padding=(TAPS // 2, 0))

    x, y = (values.permute(2, 0, 1)[:, None] for values in (image, target))
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    values = (2 * mx * my + C1) * (2 * vxy + C2) / ((mx * mx + my * my + C1) * (vx + vy + C2))
    total = mask.sum() * image.shape[2]
    counts = total > 0
    some = torch.where(counts, total, 1)
    return (image - target).abs().sum() / some, torch.where(counts, (values[:, 0] * mask).sum() / some, 1)
