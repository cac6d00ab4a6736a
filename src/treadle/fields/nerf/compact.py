"""A radiance field as a small file of its own: everything to render it, without the run that made it.

The file is safetensors: weights in half precision, occupancy in single bits, the settings that the model is built with
in its metadata, as JSON. A codebook is baked: some bits a corner, in the format of `fields.grids.baked`, which the
other tensors are added to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from treadle.config.fields import from_dict, to_dict
from treadle.errors import UsageError
from treadle.fields.grids import baked
from treadle.fields.grids.codebook import CodebookGrid
from treadle.fields.nerf.model import Radiance, build
from treadle.fields.nerf.settings import NeRFConfig
from treadle.files import write_whole

KIND = "treadle radiance field 1"
MASK, VALUES = "tracer.structure.mask", "tracer.structure.values"

_PROBES = 1 << 16


def write_compact(path: Path, model: Radiance, config: NeRFConfig) -> tuple[int, str]:
    """Write a model and the settings that it was built with; returns the file's size in bytes, and what it is made of.

    Raises:
        RunError: the disk refuses.
    """
    from safetensors.torch import save

    tensors = {name: _packed(name, tensor.cpu()) for name, tensor in model.state_dict().items() if name != VALUES}
    about = {"kind": KIND, "config": json.dumps(to_dict(config))}
    place, grid = _codebook(model)
    if grid is not None:
        others = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{place}.")}
        size = baked.write_compact(path, grid.baked(), others, about)
        return size, f"{grid.bits} bits a corner, the decoders in half precision, occupancy in bits"
    data = save(tensors, about)
    write_whole(path, data)
    return len(data), "weights in half precision, occupancy in bits"


def read_compact(path: str | Path) -> Radiance:
    """Read a model that `write_compact` wrote, ready to be looked at: `read_compact(path).look(camera, background)`.

    Raises:
        UsageError: the file is missing, damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            if about.get("kind") != KIND:
                raise UsageError(f"{path} is no compact radiance field: write one with treadle export RUN --compact")
            if about.get("format") != baked.FORMAT:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        plain = json.loads(about["config"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}; export it again") from None
    config: NeRFConfig = from_dict(NeRFConfig, plain, source=str(path))
    if about.get("format") == baked.FORMAT:
        found = baked.read_compact(Path(path))
        # The codebook that the settings describe is thrown away: one of few cells is made the quickest.
        model = build(config, cells=torch.zeros(1, 3, dtype=torch.int64))
        place, _ = _codebook(model)
        model.set_submodule(place, found.grid)
        tensors = dict(found.tensors)
    else:
        model = build(config)
    _fill(model, tensors, path)
    return model.eval()


def _codebook(model: Radiance) -> tuple[str, CodebookGrid | None]:
    """The codebook in a model, and where it is; None where there is none."""
    for name, module in model.named_modules():
        if isinstance(module, CodebookGrid):
            return name, module
    return "", None


def _packed(name: str, tensor: Tensor) -> Tensor:
    if name == MASK:
        return torch.from_numpy(np.packbits(tensor.numpy().reshape(-1)))
    return (tensor.half() if tensor.dtype == torch.float32 else tensor).contiguous()


def _fill(model: Radiance, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Put what a file holds into a model; what is only remembered for the next pruning stays as it is."""
    state = model.state_dict()
    for name, tensor in tensors.items():
        if name not in state:
            raise UsageError(f"{path} has {name}, which its settings do not call for: export it again")
        here = state[name]
        if name == MASK:
            bits = np.unpackbits(tensor.numpy(), count=here.numel())
            tensor = torch.from_numpy(bits.astype(bool)).reshape(here.shape)
        state[name] = tensor.to(here.dtype)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{path} is damaged: {str(error).splitlines()[-1].strip()}; export it again") from None


@torch.no_grad()
def differences(model: Radiance, other: Radiance) -> dict[str, str]:
    """How far what a model says at places where anything is differs from what another says: to be printed."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(_PROBES, 3, generator=generator) * 2 - 1
    points = points[model.occupancy.occupied(points)]
    if not len(points):
        return {}
    directions = torch.nn.functional.normalize(torch.randn(len(points), 3, generator=generator), dim=1)
    one, two = (each.field(points, directions) for each in (model, other))
    hides = [1 - torch.exp(-found["density"] * model.tracer.step) for found in (one, two)]
    return {
        "lost of color": f"{float((one['color'] - two['color']).square().mean().sqrt()):.2g} rms",
        "lost of opacity": f"{float((hides[0] - hides[1]).square().mean().sqrt()):.2g} rms, a step",
    }
