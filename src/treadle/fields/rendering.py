"""Pictures of a pipeline, and how many rays a step of its training may take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays

CHUNK = 1 << 13
"""Rays that are traced at a time: their samples are in memory together."""


@torch.no_grad()
def render(
    pipeline: Pipeline,
    camera: Camera,
    channels: Sequence[str] | None = None,
    *,
    chunk: int = CHUNK,
    background: Tensor | None = None,
    lod: int | None = None,
) -> dict[str, Tensor]:
    """What a camera sees of a pipeline: pictures (height, width, c) on the CPU, without gradient, by name.

    Besides the channels there are "distance", along each ray; "depth", along the camera's axis, as depth pictures have
    it; both 0 where nothing is; and "opacity".

    Args:
        pipeline: a field and its tracer; the device is that of its parameters or buffers.
        camera: whose pixels' centres the rays go through.
        channels: which; all that the field declares where None.
        chunk: rays that are traced at a time; changes nothing but memory and time.
        background: (3,) colour where nothing is; black where None.
        lod: the finest level of detail that counts; None takes all.

    Raises:
        UsageError: `chunk` is not positive, or a channel is not declared.
    """
    if chunk < 1:
        raise UsageError(f"render: chunk is {chunk}: expected at least 1")
    tensors = [*pipeline.parameters(), *pipeline.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    names = list(pipeline.field.channels if channels is None else channels)
    rays = Rays.of(camera, device)
    axis = torch.from_numpy(camera.world_to_camera[2, :3]).to(rays.directions)
    parts: dict[str, list[Tensor]] = {name: [] for name in (*names, "distance", "depth", "opacity")}
    for begin in range(0, len(rays), chunk):
        some = rays[begin : begin + chunk]
        traced = pipeline(some, names, background=background, lod=lod)
        found = {name: traced.channels[name] for name in names}
        found |= {"distance": traced.distance, "opacity": traced.opacity}
        found["depth"] = traced.distance * (some.directions @ axis)
        for name, values in found.items():
            parts[name].append(values.float().cpu().reshape(len(some), -1))
    return {name: torch.cat(values).reshape(camera.height, camera.width, -1) for name, values in parts.items()}


def next_rays(rays: int, samples: int, target: int, least: int, most: int, multiple: int = 64) -> int:
    """How many rays the next step should take so that it has `target` samples, if they have as many each as these.

    Args:
        rays: of the last step.
        samples: that these had together; if that is none, the next step takes `most`.
        target: samples of a step.
        least, most: rays of a step, at least and at most.
        multiple: what the number is rounded down to a multiple of, as far as `least` and `most` let it.
    """
    if min(rays, target, least, multiple) < 1 or samples < 0 or most < least:
        raise UsageError(f"next_rays: rays {rays}, samples {samples}, target {target}, least {least}, most {most}, "
                         f"multiple {multiple}: expected positive numbers, and least <= most")  # fmt: skip
    if samples == 0:
        return most
    return min(most, max(least, rays * target // samples // multiple * multiple))
