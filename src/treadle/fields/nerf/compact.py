"""A radiance field as a small file of its own: everything to render it, without the run that made it.

The file is safetensors: weights in half precision, occupancy in single bits, the settings that the model is built with
in its metadata, as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.config.fields import from_dict, to_dict
from treadle.errors import UsageError
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

    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name == VALUES:
            continue  # what is remembered for the next pruning; there is none
        if name == MASK:
            bits = np.packbits(tensor.cpu().numpy().reshape(-1))
            tensors[name] = torch.from_numpy(bits)
        elif tensor.dtype == torch.float32:
            tensors[name] = tensor.cpu().half().contiguous()
        else:
            tensors[name] = tensor.cpu().contiguous()
    metadata = {"kind": KIND, "config": json.dumps(to_dict(config))}
    data = save(tensors, metadata)
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
            metadata = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise UsageError(f"{path} is no compact radiance field: write one with treadle export RUN --compact")
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                tensors[name] = file.get_tensor(name)
        plain = json.loads(metadata["config"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}; export it again") from None
    config: NeRFConfig = from_dict(NeRFConfig, plain, source=str(path))
    model = build(config)
    state: dict[str, Any] = model.state_dict()
    for name, tensor in tensors.items():
        if name not in state:
            raise UsageError(f"{path} has {name}, which its settings do not call for: export it again")
        if name == MASK:
            count = state[name].numel()
            bits = np.unpackbits(tensor.numpy())[:count] if tensor.numel() * 8 >= count else np.zeros(0)
            tensor = torch.from_numpy(bits.astype(bool))
        if tensor.numel() != state[name].numel():
            raise UsageError(f"{path} is damaged: {name} has {tensor.numel()} values of {state[name].numel()}")
        state[name] = tensor.reshape(state[name].shape).to(state[name].dtype)
    model.load_state_dict(state)
    return model.eval()


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
