"""What a camera sees of a cloud: colours, opacity, depth, normals and whatever else the splats carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.errors import UsageError, nearest
from treadle.kernels.splatting import Projection
from treadle.kernels.splatting_reference import rotations
from treadle.splats.cloud import Cloud
from treadle.splats.sigmoid import sigmoid

NEAR = 0.2
"""The near plane of 3DGS and its viewers, in units of the scene."""

LEAST_ALPHA = 1e-6
"""What expected values are divided by where next to nothing is seen."""


@dataclass(eq=False)
class Rendered:
    """A picture of a cloud; every tensor can be differentiated where gradients are on.

    Attributes:
        image: (H, W, 3) colours, 0 or more, over the background.
        alpha: (H, W) how much of the background is covered, 0 to 1.
        depth: (H, W) the mean distance along the camera's z axis of what is seen, weighted as it is seen; 0 where
            nothing is. None where it was not asked for.
        normals: (H, W, 3) as `normals_of` gives them, weighted in the same way; not of unit length. None likewise.
        extra: (H, W, c) further attributes by name, sums weighted as they are seen.
        projection: where the splats are in the picture: what densification looks at.
        pulled: after a step of training, for a strategy that has a `Pull`, what that is to add: (n,) how hard each
            splat was pulled about, and (n,) in how many views it was, over all views of the batch.
    """

    image: Tensor
    alpha: Tensor
    projection: Projection
    depth: Tensor | None = None
    normals: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    pulled: tuple[Tensor, Tensor] | None = None


def render(
    cloud: Cloud,
    camera: Camera,
    *,
    degree: int | None = None,
    background: Tensor | None = None,
    depth: bool = False,
    normals: bool = False,
    extra: Sequence[str] = (),
    pose: Tensor | None = None,
    near: float = NEAR,
) -> Rendered:
    """Render `cloud` as `camera` sees it, on the device of the cloud.

    Everything is blended in one pass over the picture, with as many channels as it takes. On a CPU in float32 this is
    compiled; on CUDA it is gsplat's (`pip install 'treadle[splats-cuda]'`); everything else takes plain torch.

    Args:
        degree: of the spherical harmonics; None takes all that the cloud has.
        background: (3,) what shows where nothing is; black by default.
        depth, normals: render these too.
        extra: names of attributes in `cloud.extra` to render too; each is taken as (n, c).
        pose: (4, 4) world to camera, in place of the camera's; may require a gradient.
        near: splats whose centres are nearer than this, along the camera's axis, are not drawn; above 0.

    Raises:
        UsageError: an attribute that the cloud has not, or a device without its rasterizer.
    """
    kernels = kernels_for(cloud.means.device)
    if pose is None:
        pose = torch.as_tensor(camera.world_to_camera).to(cloud.means)
    eye = -(pose[:3, :3].T @ pose[:3, 3])
    opacities = sigmoid(cloud.logits)
    projection: Projection = kernels.project(
        cloud.means,
        cloud.quaternions,
        cloud.log_scales.exp(),
        opacities,
        pose,
        camera.intrinsics,
        camera.size,
        near=near,
        antialiased=cloud.antialiased,
    )
    if cloud.antialiased:
        opacities = opacities * projection.compensations
    degree = cloud.degree if degree is None else min(degree, cloud.degree)
    visible = projection.extents[:, 0] > 0  # nobody sees the colours of the others
    channels = {"": kernels.spherical_harmonics(cloud.dc, cloud.rest, cloud.means, eye, degree, visible)}
    if depth:
        channels["depth"] = projection.depths[:, None]
    if normals:
        channels["normals"] = normals_of(cloud, eye)
    for name in extra:
        if name not in cloud.extra:
            raise UsageError(f"the splats have no attribute {name!r}{nearest(name, cloud.extra)}")
        channels[f"extra.{name}"] = cloud.extra[name].reshape(len(cloud), -1)

    widths = [values.shape[1] for values in channels.values()]
    values = next(iter(channels.values())) if len(channels) == 1 else torch.cat(list(channels.values()), 1)
    if background is not None and len(channels) > 1:
        background = torch.cat([background, background.new_zeros(sum(widths) - 3)])
    blended, alpha = kernels.rasterize(projection, opacities, values, camera.size, background)
    parts = dict(zip(channels, blended.split(widths, 2), strict=True)) if len(channels) > 1 else {"": blended}
    return Rendered(
        image=parts.pop(""),
        alpha=alpha,
        projection=projection,
        depth=parts.pop("depth")[..., 0] / alpha.clamp(min=LEAST_ALPHA) if depth else None,
        normals=parts.pop("normals") if normals else None,
        extra={name.removeprefix("extra."): part for name, part in parts.items()},
    )


def kernels_for(device: torch.device) -> ModuleType:
    """What projects and rasterizes on `device`."""
    if device.type == "cuda":
        from treadle.splats import gsplat_cuda

        return gsplat_cuda
    from treadle.kernels import splatting

    return splatting


def normals_of(cloud: Cloud, eye: Tensor) -> Tensor:
    """The shortest axis of each Gaussian, in the world's axes, turned towards `eye` (3,): (n, 3) unit vectors."""
    shortest = cloud.log_scales.detach().argmin(1)
    turned = rotations(cloud.quaternions)
    axes = turned.gather(2, shortest[:, None, None].expand(-1, 3, 1))[:, :, 0]
    towards = ((eye - cloud.means).detach() * axes).sum(1, keepdim=True)
    return torch.where(towards < 0, -axes, axes)
