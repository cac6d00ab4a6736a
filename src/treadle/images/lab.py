"""Colours in CIE L*a*b*: how light they are apart from which they are, as near to each other as they look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

L_RANGE = (0.0, 100.0)
"""How light a colour can be: black and white."""

AB_RANGE = (-110.0, 110.0)
"""All that a and b can be in sRGB, -107.9 to 98.3, and a little more: what colorization usually divides by."""

# sRGB's primaries and white point, D65 seen by the observer of 2 degrees (IEC 61966-2-1, ITU-R BT.709).
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_SHARES = (_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)
_FROM_SHARES = np.linalg.inv(_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)
_BEND = 6 / 29
"""Where the cube root, which is steep near black, goes on as a straight line (CIE 15)."""


def rgb_to_lab(picture: NDArray[Any]) -> NDArray[np.float32]:
    """(..., 3) of sRGB as float32 (..., 3): L in 0 to 100, a (green to red) and b (blue to yellow) around 0.

    Whole numbers count as shares of all that their type can hold, floats as they are, in [0, 1].
    """
    whole = picture.dtype.kind in "iu"
    shares = picture.astype(np.float32) / np.float32(np.iinfo(picture.dtype).max if whole else 1)
    linear = np.where(shares > 0.04045, ((np.maximum(shares, 0) + 0.055) / 1.055) ** 2.4, shares / 12.92)
    xyz = linear.astype(np.float32) @ _TO_SHARES
    bent = np.where(xyz > _BEND**3, np.cbrt(xyz), xyz / (3 * _BEND**2) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def lab_to_rgb(lab: NDArray[Any]) -> NDArray[np.float32]:
    """(..., 3) of L, a and b as sRGB, float32 (..., 3) in [0, 1]; colours outside sRGB are brought to its border."""
    light, a, b = np.moveaxis(lab.astype(np.float32), -1, 0)
    y = (light + 16) / 116
    bent = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    shares = np.where(bent > _BEND, bent**3, (bent - 4 / 29) * (3 * _BEND**2))
    linear = (shares.astype(np.float32) @ _FROM_SHARES).clip(0, 1)
    rgb = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92)
    return rgb.clip(0, 1).astype(np.float32)
