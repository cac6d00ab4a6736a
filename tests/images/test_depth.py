from __future__ import annotations

import numpy as np
import torch

from treadle.images.depth import shown_depth


def test_near_is_bright_and_a_stray_splat_darkens_nothing() -> None:
    depth = torch.linspace(2, 3, 200).repeat(100, 1)
    shown = shown_depth(depth, torch.ones(100, 200)).astype(int).sum(2)
    assert (np.diff(shown[0]) <= 0).all() and shown[0, 0] > shown[0, -1] + 300
    stray = depth.clone()
    stray[0, 0] = 1e4
    assert abs(shown_depth(stray, torch.ones(100, 200)).astype(int).sum(2) - shown)[1:].max() < 40
    covered = torch.ones(100, 200)
    covered[:, 50:] = 0.4
    assert not shown_depth(depth, covered)[:, 50:].any() and not shown_depth(depth, covered * 0).any()
