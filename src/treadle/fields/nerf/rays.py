"""Rays of photographs whose cameras are learnt, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from treadle.cameras.camera import Camera
from treadle.cameras.poses import Poses
from treadle.kernels.splatting_reference import rotations


class CameraMotion(nn.Module):
    """Moves rays as the small motions of their cameras (`Poses`) say; gradients reach these.

    Args:
        cameras: of the training views, in their order.
    """

    turns: Tensor

    def __init__(self, cameras: Sequence[Camera]) -> None:
        super().__init__()
        self.poses = Poses(len(cameras))
        turns = np.stack([camera.world_to_camera[:3, :3] for camera in cameras])
        self.register_buffer("turns", torch.from_numpy(turns).float(), persistent=False)

    def forward(self, origins: Tensor, directions: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """The rays (n, 3), (n, 3) of the views numbered `views` (n,), where their cameras now are.

        The camera's pose x -> W x becomes x -> R W x + t: its centre moves by -W^T R^T t, and a direction d turns to
        W^T R^T W d.
        """
        motion, turns = rotations(self.poses.quaternions)[views], self.turns[views]
        back = turns.transpose(1, 2) @ motion.transpose(1, 2)
        shift = (back @ self.poses.translations[views][:, :, None])[:, :, 0]
        turned = (back @ (turns @ directions[:, :, None]))[:, :, 0]
        return origins - shift, turned
