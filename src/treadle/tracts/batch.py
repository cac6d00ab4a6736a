"""A batch of streamlines: what a model trains on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LineBatch(NamedTuple):
    """The points of n lines at which a model says how a line goes on, one line after the other.

    Line k has the rows `offsets[k]:offsets[k + 1]`. Where ends are learnt (`ends`), those are all its points, and the
    last has no target but is where the line ends; else the last point is left out.
    """

    features: Tensor
    """(p, f) float32: what the volume (with its neighbourhood) holds at each point; (p, 0) without a volume."""
    points: Tensor
    """(p, 3) float32: where, in voxel space with corner origin."""
    previous: Tensor
    """(p, 3) float32: in mm along the grid's axes, from the point before to this one; 0 at a line's first."""
    targets: Tensor
    """(p, 3) float32: in mm, from this point to the next one; 0 where there is none."""
    offsets: Tensor
    """(n + 1,) int64, on the CPU."""
    last: Tensor
    """(p,) bool: where a line ends; all False unless ends are learnt."""
    lines: Tensor
    """(n,) int64: the number of each line among all lines of the feed's subjects, subject by subject; a line that was
    split keeps its number in both parts."""
    subject: Tensor
    """(n,) int64: the number of its subject in the feed."""
