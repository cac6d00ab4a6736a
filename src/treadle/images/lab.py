"""Colours in CIE L*a*b*: how light they are apart from which they are, as near to each other as they look."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

L_MOST = 100.0
"""How light white is; black is 0."""

AB_MOST = 110.0
"""All that a and b can be in sRGB, -107.9 to 98.3, and a little more: what colorization usually divides by."""

# sRGB's primaries and white point, D65 seen by the observer of 2 degrees (IEC 61966-2-1, ITU-R BT.709).
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_SHARES = _TO_XYZ / np.array([[0.95047], [1.0], [1.08883]])
_BEND = 6 / 29
"""Where the cube root, which is steep near black, goes on as a straight line (CIE 15)."""


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB (..., 3, H, W) in [0, 1] as L in 0 to 100, a (green to red) and b (blue to yellow) around 0; float32."""
    rgb = rgb.float()
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    shares = _mixed(_SHARES, linear)
    bent = torch.where(shares > _BEND**3, shares.clamp(min=_BEND**3) ** (1 / 3), shares / (3 * _BEND**2) + 4 / 29)
    x, y, z = bent.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """L, a and b (..., 3, H, W) as sRGB in [0, 1], float32; colours outside sRGB are brought to its border."""
    light, a, b = lab.float().unbind(-3)
    y = (light + 16) / 116
    bent = torch.stack([y + a / 500, y, y - b / 200], -3)
    shares = torch.where(bent > _BEND, bent**3, (bent - 4 / 29) * (3 * _BEND**2))
    linear = _mixed(np.linalg.inv(_SHARES), shares).clamp(0, 1)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, linear * 12.92)
    return rgb.clamp(0, 1)


def _mixed(matrix: NDArray[np.float64], planes: Tensor) -> Tensor:
    """Each pixel's three numbers multiplied by a matrix; nothing fixes a shape, so exported models are free in it."""
    first, second, third = planes.unbind(-3)
    return torch.stack([a * first + b * second + c * third for a, b, c in matrix.tolist()], -3)
