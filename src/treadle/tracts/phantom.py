"""A phantom: three bundles that are known exactly, and the diffusion signal that a scanner would measure of them.

An arc and a straight bundle cross twice, a helix winds beside them, each placed anew by the seed. All three are tubes
around a curve; their fibres run parallel to it (a frame that does not turn about the curve carries them along, so that
at every point of a tube the direction is that of the nearest point of its curve).

The signal is a sum of compartments (Basser et al., 1994; multi-tensor as in Tuch et al., 2002): cylindrical tensors
where bundles are, isotropic tissue around them, fluid farther away, with Rician noise (Gudbjartsson and Patz, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from treadle.data.random import derive_seed
from treadle.errors import UsageError
from treadle.tracts.masks import dilated
from treadle.tracts.signal.harmonics import fit_harmonics
from treadle.tracts.signal.tensor import fit_tensors, normalised
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject

SHAPE = (24, 24, 12)
VOXEL = 2.0
"""Voxels, and the millimetres of one."""

ALONG, ACROSS = 1.7e-3, 0.2e-3  # mm2/s: along a bundle's fibres and across
_TISSUE, _FLUID = 0.9e-3, 3.0e-3  # mm2/s
_BRIGHT = {"fibres": 1.0, "tissue": 1.15, "fluid": 2.0}  # signals without diffusion weighting, of that of the fibres
_END = 4.0  # mm on either side of where a bundle ends that belong to its end region
_FINE = 4  # a voxel is looked at in so many parts along each axis


@dataclass(frozen=True, eq=False)
class Phantom:
    """What there is, and what is measured of it. Directions are along the grid's axes, which are the scanner's."""

    seed: int
    space: Space
    dwi: np.ndarray
    """(x, y, z, n) float32: the signal, 1 in fibres without weighting."""
    bvalues: np.ndarray
    """(n,) float64: s/mm2."""
    directions: np.ndarray
    """(n, 3) float64, of length 1; 0 where the b-value is 0."""
    bundles: Mapping[str, Streamlines]
    """"arc", "straight" and "helix": lines from end to end, half of them backward."""
    masks: Mapping[str, np.ndarray]
    """(x, y, z) bool of each bundle: the voxels it touches."""
    ends: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Of each bundle two regions (x, y, z) bool, around where it begins and ends."""
    fractions: np.ndarray
    """(x, y, z, 3) float32: how much of each voxel each bundle takes, in the order of `bundles`."""
    peaks: np.ndarray
    """(x, y, z, 3, 3) float32: the direction of each bundle in each voxel, 0 where it is not."""
    crossing: np.ndarray
    """(x, y, z) bool: where two bundles cross, each at least in half of the voxel."""

    @property
    def mask(self) -> np.ndarray:
        """(x, y, z) bool: the voxels that any bundle touches."""
        return np.logical_or.reduce(list(self.masks.values()))

    @property
    def tracking_mask(self) -> np.ndarray:
        """(x, y, z) bool: `mask` and the voxels that share a side with it, so that lines may leave the bundles."""
        return dilated(self.mask)

    @property
    def streamlines(self) -> Streamlines:
        """The lines of all bundles, with the number of its bundle for each ("bundle")."""
        parts = [
            Streamlines(lines.points, lines.offsets, {"bundle": np.full((len(lines), 1), number, np.float32)})
            for number, lines in enumerate(self.bundles.values())
        ]
        return Streamlines.concatenate(parts)

    @property
    def seeding_mask(self) -> np.ndarray:
        """(x, y, z) bool: the voxels of which a bundle takes at least half."""
        return np.asarray((self.fractions >= 0.5).any(axis=-1))

    @property
    def ordered_peaks(self) -> np.ndarray:
        """(x, y, z, 3, 3) float32: the directions in each voxel, as long as their bundle's part, the longest first."""
        order = np.argsort(-self.fractions, axis=-1, kind="stable")[..., None]
        return np.take_along_axis(self.peaks * self.fractions[..., None], order, axis=3)

    def subject(self, name: str = "phantom") -> MemorySubject:
        """As a subject with the lines "streamlines" and two volumes.

        "input" is the signal of the strongest shell in spherical harmonics of order 6, over that without weighting;
        "tensors" is the diffusion tensor, with the trace 1.
        """
        strongest = float(self.bvalues.max())
        harmonics = fit_harmonics(self.dwi, self.bvalues, self.directions, 6, shell=strongest)
        tensors = normalised(fit_tensors(self.dwi, self.bvalues, self.directions))
        volumes = {"input": (harmonics, "sh"), "tensors": (tensors, "tensor")}
        return MemorySubject(name, self.space, volumes, {"streamlines": self.streamlines})


def make_phantom(
    seed: int,
    *,
    shells: Sequence[tuple[float, int]] = ((2500.0, 60),),
    plain: int = 6,
    snr: float = 30.0,
    lines: int = 400,
    spacing: float = 0.5,
) -> Phantom:
    """Make a phantom; the same arguments give the same one, another seed other places and other noise.

    Args:
        seed: where the bundles are, which lines are drawn in them, and the noise.
        shells: b-value in s/mm2 and number of directions of each shell.
        plain: images without diffusion weighting.
        snr: the signal of fibres without weighting over the noise's standard deviation; `math.inf` for no noise.
        lines: of each bundle.
        spacing: mm between the points of a line, about.

    Raises:
        UsageError: a number out of its range.
    """
    if plain < 1 or lines < 1 or not snr > 0 or not spacing > 0 or any(b <= 0 or n < 1 for b, n in shells):
        raise UsageError("a phantom needs images without weighting, shells, lines, and a positive snr and spacing")
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "phantom")))
    tubes = _place(rng)
    corner = -VOXEL * np.array(SHAPE) / 2
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = corner + VOXEL / 2
    space = Space(affine, SHAPE)

    bundles = {name: tube.lines(lines, spacing, rng, corner) for name, tube in tubes.items()}
    found = [tube.fill(corner) for tube in tubes.values()]
    inside = np.stack([each.inside for each in found], axis=-1)  # (x, y, z, parts, bundles)
    tissue, fluid = _surroundings(inside, np.minimum.reduce([each.apart for each in found]))
    peaks = np.stack([each.direction for each in found], axis=-2)
    # Where tubes overlap, their fibres share the place.
    share = (inside / np.maximum(inside.sum(axis=-1, keepdims=True), 1)).mean(axis=3)
    bvalues, directions = _gradients(shells, plain)
    dwi = _signal(share, peaks, tissue, fluid, bvalues, directions)
    if math.isfinite(snr):
        noise = rng.standard_normal((2, *dwi.shape)) / snr
        dwi = np.hypot(dwi + noise[0], noise[1])
    fractions = inside.mean(axis=3)
    return Phantom(
        seed=seed,
        space=space,
        dwi=dwi.astype(np.float32),
        bvalues=bvalues,
        directions=directions,
        bundles=bundles,
        masks={name: fractions[..., number] > 0 for number, name in enumerate(tubes)},
        ends={name: each.ends for name, each in zip(tubes, found, strict=True)},
        fractions=fractions.astype(np.float32),
        peaks=peaks.astype(np.float32),
        crossing=(fractions >= 0.5).sum(axis=-1) >= 2,
    )


# Where the bundles are ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Filled:
    """What a tube does to the voxels."""

    inside: np.ndarray  # (x, y, z, parts) bool
    direction: np.ndarray  # (x, y, z, 3): 0 where the tube is not
    apart: np.ndarray  # (x, y, z): mm from the centre to the tube's curve
    ends: tuple[np.ndarray, np.ndarray]  # (x, y, z) bool each


@dataclass(frozen=True, eq=False)
class _Tube:
    """A curve (n, 3) in mm around the middle of the volume, equally spaced, and the radius around it."""

    curve: np.ndarray
    radius: float

    @property
    def tangents(self) -> np.ndarray:
        """(n, 3), of length 1."""
        return _unit(np.gradient(self.curve, axis=0, edge_order=2))

    def lines(self, count: int, spacing: float, rng: np.random.Generator, corner: np.ndarray) -> Streamlines:
        """Lines parallel to the curve, evenly spread over the tube's section, in voxel space."""
        first, second = _frame(self.tangents)
        steps = np.linalg.norm(np.diff(self.curve, axis=0), axis=1)
        length = steps.sum()
        chosen = np.linspace(0, len(self.curve) - 1, max(2, round(length / spacing) + 1))
        low = np.minimum(chosen.astype(int), len(self.curve) - 2)
        part = (chosen - low)[:, None]

        def at(values: np.ndarray) -> np.ndarray:
            return values[low] * (1 - part) + values[low + 1] * part

        middle, first, second = at(self.curve), at(first), at(second)
        angle, away = rng.uniform(0, 2 * math.pi, count), self.radius * np.sqrt(rng.uniform(0, 1, count))
        u, v = (away * np.cos(angle))[:, None, None], (away * np.sin(angle))[:, None, None]
        points = (middle + u * first + v * second - corner) / VOXEL
        backward = rng.uniform(size=count) < 0.5
        points[backward] = points[backward, ::-1]
        return Streamlines(points.reshape(-1, 3), np.arange(count + 1) * len(middle))

    def fill(self, corner: np.ndarray) -> _Filled:
        """Which parts of which voxels lie in the tube, in which direction, and where its ends are."""
        centres = corner + VOXEL * (np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) + 0.5)
        places = centres.reshape(-1, 3)
        spacing = float(np.linalg.norm(self.curve[1] - self.curve[0]))
        beyond = math.ceil((_END + VOXEL) / spacing)
        tangents = self.tangents
        out = np.arange(1, beyond + 1)[:, None] * spacing
        longer = np.concatenate(
            [self.curve[0] - out[::-1] * tangents[0], self.curve, self.curve[-1] + out * tangents[-1]]
        )
        near, apart = _nearest(places, longer)
        along = (near - beyond) * spacing  # mm from where the curve begins
        length = (len(self.curve) - 1) * spacing
        around = apart <= self.radius + VOXEL * math.sqrt(
            0.75
        )  # half a diagonal: wherever a line ends, its voxel is in
        ends = [around & (np.abs(along - end) <= _END) for end in (0.0, length)]

        # Only what is near is looked at in parts.
        close = np.flatnonzero((apart <= self.radius + VOXEL) & (along >= -VOXEL) & (along <= length + VOXEL))
        grid = (np.stack(np.meshgrid(*[np.arange(_FINE)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5) / _FINE - 0.5
        fine = places[close, None] + VOXEL * grid
        near, apart_fine = _nearest(fine.reshape(-1, 3), longer)
        hit = (apart_fine <= self.radius) & (near >= beyond) & (near < beyond + len(self.curve))
        direction = np.where(hit[:, None], tangents[np.clip(near - beyond, 0, len(tangents) - 1)], 0)
        inside = np.zeros((len(places), _FINE**3), bool)
        inside[close] = hit.reshape(len(close), -1)
        mean = np.zeros((len(places), 3))
        mean[close] = direction.reshape(len(close), -1, 3).sum(axis=1)
        return _Filled(
            inside.reshape(*SHAPE, -1),
            _unit(mean).reshape(*SHAPE, 3),
            apart.reshape(SHAPE),
            (ends[0].reshape(SHAPE), ends[1].reshape(SHAPE)),
        )


def _place(rng: np.random.Generator) -> dict[str, _Tube]:
    """The three tubes: laid out for a straight volume, changed a little, then turned and mirrored."""

    def about(middle: float, change: float) -> float:
        return float(middle + change * rng.uniform(-1, 1))

    radius, centre = about(14.0, 0.6), np.array([about(0, 0.8), about(-11.0, 0.4), 0.0])
    lean_x, lean_y = about(0, 0.1), about(0, 0.1)

    def arc(angle: np.ndarray) -> np.ndarray:
        x, y = radius * np.cos(angle), radius * np.sin(angle)
        return centre + np.stack([x, y, lean_x * x + lean_y * y], -1)

    bend = math.radians(about(37, 3))
    ring = arc(np.linspace(-bend, math.pi + bend, 400))
    # The straight one goes through the arc on both sides.
    left, right = arc(np.radians([about(170, 6), about(10, 6)]))
    middle, towards = (left + right) / 2, _unit(right - left)
    half = about(21.5, 0.8)
    straight = middle + np.linspace(-half, half, 200)[:, None] * towards

    turns, across, long = about(1.5, 0.1), about(4.5, 0.2), about(36.0, 1.0)
    angle = about(0, math.pi) + rng.choice([-1, 1]) * np.linspace(0, 2 * math.pi * turns, 400)
    helix = np.stack([np.linspace(-long / 2, long / 2, 400), across * np.cos(angle), across * np.sin(angle)], -1)
    helix += [about(0, 1.5), about(13.9, 0.3), about(0, 2.0)]

    turn = math.radians(about(0, 5))
    c, s = math.cos(turn), math.sin(turn)
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    if rng.uniform() < 0.5:
        turned = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ turned
    turned = np.diag(rng.choice([-1, 1], 3)) @ turned
    widths = {"arc": (ring, 4.13), "straight": (straight, 4.13), "helix": (helix, 2.5)}
    return {name: _Tube(_even(curve @ turned.T), width) for name, (curve, width) in widths.items()}


def _even(curve: np.ndarray, spacing: float = 0.4) -> np.ndarray:
    """The curve (n, 3) by points that are `spacing` mm apart, about."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    places = np.linspace(0, along[-1], max(8, round(along[-1] / spacing) + 1))
    return np.stack([np.interp(places, along, curve[:, axis]) for axis in range(3)], -1)


def _frame(tangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two directions across a curve that are carried along it without turning about it (Bishop, 1975)."""
    start = np.eye(3)[np.argmin(np.abs(tangents[0]))]
    across = [_unit(np.cross(tangents[0], start))]
    for tangent in tangents[1:]:
        across.append(_unit(across[-1] - (across[-1] @ tangent) * tangent))
    first = np.stack(across)
    return first, np.cross(tangents, first)


def _nearest(places: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which point of the curve is the nearest to each place, (n,) int64, and how far it is."""
    squares = (curve**2).sum(axis=1)
    near = np.concatenate([np.argmin(squares - 2 * part @ curve.T, axis=1) for part in np.array_split(places, 8)])
    return near, np.linalg.norm(places - curve[near], axis=1)


# What is measured --------------------------------------------------------------------------------------------------


def _surroundings(inside: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each voxel is tissue, and how much fluid: what no bundle takes, the fluid far from all of them."""
    rest = 1 - inside.any(axis=-1).mean(axis=3)
    far = np.clip((apart - 8.0) / 4.0, 0, 1)
    return rest * (1 - far), rest * far


def _gradients(shells: Sequence[tuple[float, int]], plain: int) -> tuple[np.ndarray, np.ndarray]:
    """B-values and directions: each shell is a golden spiral over a half sphere."""
    bvalues, directions = [np.zeros(plain)], [np.zeros((plain, 3))]
    for turn, (bvalue, count) in enumerate(shells):
        height = (np.arange(count) + 0.5) / count
        angle = math.pi * (3 - math.sqrt(5)) * np.arange(count) + turn
        across = np.sqrt(1 - height**2)
        directions.append(np.stack([across * np.cos(angle), across * np.sin(angle), height], -1))
        bvalues.append(np.full(count, float(bvalue)))
    return np.concatenate(bvalues), np.concatenate(directions)


def _signal(
    share: np.ndarray,
    peaks: np.ndarray,
    tissue: np.ndarray,
    fluid: np.ndarray,
    bvalues: np.ndarray,
    directions: np.ndarray,
) -> np.ndarray:
    """The signal (x, y, z, n) without noise."""
    signal = _BRIGHT["tissue"] * tissue[..., None] * np.exp(-bvalues * _TISSUE)
    signal += _BRIGHT["fluid"] * fluid[..., None] * np.exp(-bvalues * _FLUID)
    for number in range(share.shape[-1]):
        there = share[..., number] > 0
        cosine = peaks[there][:, number] @ directions.T
        decay = np.exp(-bvalues * (ACROSS + (ALONG - ACROSS) * cosine**2))
        signal[there] += _BRIGHT["fibres"] * share[there][:, number, None] * decay
    return signal


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1; 0 stays 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
