"""What is learnt about single photographs: where exactly each was taken, and how it was exposed.

Both are of training views alone. A held-out view is rendered with the camera and the colours that it came with: nothing
that was learnt from another view, and nothing from the view itself, may make it look better than it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.kernels.splatting_reference import rotations


class Poses(nn.Module):
    """A small motion of each training camera, in its own frame: x -> R x + t, after the camera's own pose.

    Parameters: `quaternions` (views, 4), w first, and `translations` (views, 3), in units of the scene; no motion at
    first.
    """

    def __init__(self, views: int) -> None:
        super().__init__()
        self.quaternions = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(views, 1))
        self.translations = nn.Parameter(torch.zeros(views, 3))

    def forward(self, index: int, world_to_camera: Tensor) -> Tensor:
        """The pose (4, 4) of view `index`, whose file says `world_to_camera` (4, 4)."""
        rotation = rotations(self.quaternions[index : index + 1])[0]
        top = torch.cat([rotation, self.translations[index, :, None]], 1)
        motion = torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
        return motion @ world_to_camera


class Exposures(nn.Module):
    """An affine map of colours for each training view: `affine` (views, 3, 4), the identity at first.

    Only how views differ is learnt: the mean of all maps stays the identity. Else the splats could take any colours
    and all maps undo that, and held-out views, which have no map, would show them.
    """

    def __init__(self, views: int) -> None:
        super().__init__()
        self.affine = nn.Parameter(torch.eye(3, 4).repeat(views, 1, 1))

    def forward(self, index: int | Tensor, image: Tensor) -> Tensor:
        """The picture (H, W, 3) as view `index` was exposed; or colours (n, 3), each as its own of the views (n,)."""
        affine = self.affine[index] - self.affine.mean(0) + torch.eye(3, 4, device=image.device)
        # Not a matrix product: with rows of three, its sums over all pixels would depend on the number of threads.
        red, green, blue = image.split(1, -1)
        return red * affine[..., 0] + green * affine[..., 1] + blue * affine[..., 2] + affine[..., 3]
