"""Splats as PLY files: the layout of 3D Gaussian Splatting that viewers and editors read, and Pointrix's own names.

The standard row is 62 float32: x y z, nx ny nz (zero), f_dc_0-2, f_rest_0-44 (15 of red, 15 of green, 15 of blue),
opacity (logit), scale_0-2 (natural logarithm), rot_0-3 (w x y z). Whether a scene is to be rendered antialiased stands
in a comment, as Brush and SuperSplat have it (`SplatRenderMode: mip`); Postshot's (`antialiased 1`) is read as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from treadle.cameras.ply import Ply, Table, columns, read_ply, rows_of, write_ply
from treadle.errors import UsageError
from treadle.splats.cloud import Cloud

MIP = "SplatRenderMode: mip"
"""The comment of a scene that is to be rendered antialiased."""

OPAQUE = 16.0
"""The logit that an infinite one is read as: float32 knows no larger opacity below 1."""

_POSITION, _NORMAL = ["x", "y", "z"], ["nx", "ny", "nz"]
_EXTRA = "treadle extra"


def numbered(name: str, count: int) -> list[str]:
    """`count` names: name_0, name_1 ..."""
    return [f"{name}_{number}" for number in range(count)]


def write_cloud(path: str | Path, cloud: Cloud, comments: Sequence[str] = ()) -> int:
    """Write a cloud as a standard 3DGS PLY; returns the file's size in bytes.

    There are as many f_rest as the cloud has harmonics: 45 for degree 3, which is all that some viewers read. Each
    entry of `cloud.extra` becomes further float properties: `name`, or `name_0`, `name_1` ... where a splat has
    several, and a comment that says how they belong together.

    Raises:
        UsageError: no splats, an attribute of a name that PLY does not allow or that is taken, a comment that is not
            one line, or `path` cannot be written.
    """
    check_some(path, cloud)
    count = len(cloud)
    rest = cloud.rest.transpose(1, 2).reshape(count, -1)  # channel by channel
    names = [*_POSITION, *_NORMAL, *numbered("f_dc", 3), *numbered("f_rest", rest.shape[1]), "opacity",
             *numbered("scale", 3), *numbered("rot", 4)]  # fmt: skip
    parts = [cloud.means, torch.zeros(count, 3), cloud.dc, rest, cloud.logits[:, None], cloud.log_scales,
             cloud.quaternions]  # fmt: skip
    said = [*([MIP] if cloud.antialiased else []), *comments]
    for name, values in cloud.extra.items():
        if not re.fullmatch(r"[A-Za-z_]\w{0,99}", name, re.ASCII):
            raise UsageError(f"an attribute named {name!r} cannot be written: PLY wants letters, digits and _")
        own = numbered(name, values[0].numel()) if values.dim() > 1 else [name]
        taken = next((one for one in own if one in names), None)
        if taken:
            raise UsageError(f"the attribute {name!r} cannot be written: the file already has a property {taken!r}")
        names += own
        parts.append(values.reshape(count, -1))
        if values.dim() > 1:
            said.append(f"{_EXTRA} {name} {' '.join(map(str, values.shape[1:]))}")
    matrix = torch.cat([part.detach().to("cpu", torch.float32) for part in parts], 1).numpy()
    table = np.ascontiguousarray(matrix).view([(name, "<f4") for name in names])[:, 0]
    return write_ply(path, Ply({"vertex": table}, said))


def read_cloud(path: str | Path) -> Cloud:
    """Read a cloud from a 3DGS PLY, or from one of Pointrix.

    Normals may be missing and are ignored; there may be 0, 9, 24 or 45 f_rest. Numbers that belong to nothing above
    become `extra`. Rotations stay as they are, of any length; opacities of exactly 0 or 1 become the nearest logits.

    Raises:
        UsageError: no PLY, damaged, cut off, without splats or without what splats need, or with a number that is not
            finite or a rotation of length 0: named with its row.
    """
    path = Path(path)
    ply = read_ply(path, {"vertex"})
    table = rows_of(path, ply, "vertex")
    names = list(table.dtype.names or ())
    if "packed_position" in names:
        raise UsageError(f"{path} is a compressed PLY: name it .compressed.ply")
    names_of = _names_in(path, names)
    needed = names_of.every
    absent = [name for name in needed if name not in names]
    if absent:
        raise UsageError(f"{path} is no PLY of splats: it has no property {absent[0]!r}")
    logits = _column(table, [names_of.opacity])[:, 0]
    rest = _column(table, names_of.rest).view(len(table), *((-1, 3) if names_of.colours_last else (3, -1)))
    cloud = Cloud(
        means=_column(table, _POSITION),
        quaternions=_column(table, names_of.rotation),
        log_scales=_column(table, names_of.scale),
        logits=torch.where(logits.isinf(), logits.sign() * OPAQUE, logits),
        dc=_column(table, names_of.dc),
        rest=rest if names_of.colours_last else rest.transpose(1, 2).contiguous(),
        extra=_extra(path, table, [name for name in names if name not in {*needed, *_NORMAL}], ply.comments),
        antialiased=is_antialiased(ply.comments),
    )
    check_cloud(path, cloud)
    return cloud


def check_some(path: str | Path, cloud: Cloud) -> None:
    """Raise UsageError, naming the file that was to be written, where there are no splats."""
    if not len(cloud):
        raise UsageError(f"{path} is not written: there are no splats")


def check_cloud(path: str | Path, cloud: Cloud) -> None:
    """Raise UsageError, naming the file and the splat, for a number that is not finite or a rotation of length 0."""
    attributes = {"position": cloud.means, "rotation": cloud.quaternions, "scale": cloud.log_scales,
                  "opacity": cloud.logits, "colour": cloud.dc, "colour's harmonic": cloud.rest}  # fmt: skip
    for what, values in attributes.items():
        finite = torch.isfinite(values.flatten(1)).all(1) if values.dim() > 1 else torch.isfinite(values)
        if not bool(finite.all()):
            row = int((~finite).to(torch.uint8).argmax())
            raise UsageError(f"{path}: splat {row} of {len(cloud)} has a {what} that is not finite: remove such splats")
    lengths = cloud.quaternions.norm(dim=1)
    if not bool((lengths > 0).all()):
        raise UsageError(f"{path}: splat {int(lengths.argmin())} of {len(cloud)} has a rotation of length 0: remove "
                         "such splats")  # fmt: skip


@dataclass(frozen=True)
class _Names:
    """What a program calls a splat's numbers."""

    dc: list[str]
    rest: list[str]
    opacity: str
    scale: list[str]
    rotation: list[str]
    colours_last: bool = False  # whether the harmonics' order is r g b, r g b ... instead of all red ones first

    @property
    def every(self) -> list[str]:
        return [*_POSITION, *self.dc, *self.rest, self.opacity, *self.scale, *self.rotation]


def _names_in(path: Path, names: Sequence[str]) -> _Names:
    """Pointrix's words where they are in the file, else the standard ones."""
    pointrix = "features_0" in names and "f_dc_0" not in names
    stem = "features_rest" if pointrix else "f_rest"
    count = sum(bool(re.fullmatch(rf"{stem}_\d+", name)) for name in names)
    if count not in (0, 9, 24, 45):
        raise UsageError(f"{path} has {count} properties {stem}: expected 0, 9, 24 or 45 (degrees 0 to 3)")
    if pointrix:
        return _Names(numbered("features", 3), numbered(stem, count), "opacity_0", numbered("scaling", 3),
                      numbered("rotation", 4), colours_last=True)  # fmt: skip
    return _Names(numbered("f_dc", 3), numbered(stem, count), "opacity", numbered("scale", 3), numbered("rot", 4))


def _column(table: Table, names: Sequence[str]) -> Tensor:
    return torch.from_numpy(columns(table, names))


def _extra(path: Path, table: Table, names: list[str], comments: Sequence[str]) -> dict[str, Tensor]:
    """The other numbers of each splat; together where a comment of ours says how."""
    found: dict[str, Tensor] = {}
    left = [name for name in names if not table.dtype[name].shape]
    for comment in comments:
        words = comment.split()
        if words[:2] != _EXTRA.split() or len(words) < 4 or not all(word.isdecimal() for word in words[3:]):
            continue
        shape = [int(word) for word in words[3:]]
        own = numbered(words[2], min(math.prod(shape), len(left) + 1))
        if math.prod(shape) and set(own) <= set(left):
            found[words[2]] = _column(table, own).view(-1, *shape)
            left = [name for name in left if name not in own]
    return found | {name: _column(table, [name])[:, 0] for name in left}


def is_antialiased(comments: Sequence[str]) -> bool:
    """Whether a file's comments say that it is to be rendered so; the last one that says anything counts."""
    antialiased = False
    for comment in comments:
        match comment.lower().split():
            case ["splatrendermode:", mode]:
                antialiased = mode == "mip"
            case ["antialiased", flag]:
                antialiased = flag == "1"
    return antialiased
