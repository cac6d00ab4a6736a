"""The settings that say what a field is made of: its grid and its decoder; and what is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from treadle.config.settings import Settings, require, setting
from treadle.fields.decoder import Decoder, Output
from treadle.fields.encoding import PositionalGrid
from treadle.fields.grid import Grid
from treadle.fields.grids import triplane
from treadle.fields.grids.codebook import CodebookGrid
from treadle.fields.grids.dense import LOG2_MOST, DenseGrid
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.grids.octree import OctreeGrid
from treadle.fields.grids.summed import SummedGrid
from treadle.fields.grids.triplane import TriplaneGrid
from treadle.fields.siren import Siren
from treadle.kernels import octree_index

Kind = Literal["hash", "dense", "octree", "triplane", "codebook", "none"]

DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "hash": {"levels": 8, "features": 4, "log2_size": 15, "n_min": 16, "n_max": 512},
    "dense": {"levels": 3, "features": 4, "n_min": 16, "n_max": 64},
    "octree": {"levels": 4, "features": 4, "base": 3},
    "triplane": {"levels": 4, "features": 8, "base": 4},
    "codebook": {"levels": 4, "features": 4, "base": 3, "bits": 4},
    "none": {},
}
"""What each grid has, and what that is where the settings say null."""

POSITIONAL = {"codebook": 2, "triplane": 4}
"""Frequencies of the points' encoding where the settings say null; 0 for other grids."""

FINEST = {"octree": octree_index.FINEST, "codebook": octree_index.FINEST, "triplane": triplane.FINEST}
"""The finest level that there may be."""


@dataclass(kw_only=True)
class GridSettings(Settings):
    """Features of space, and what makes values of them.

    A trainer's settings inherit it beside `TrainerConfig`; to have other defaults for a grid they give another
    `grid_defaults`.
    """

    grid_defaults: ClassVar[Mapping[str, Mapping[str, int]]] = DEFAULTS

    grid: Kind = setting("hash", common=True)
    """Where features are kept: "hash" (tables shared by hashing), "dense" (every vertex), "octree" (the corners of
    occupied cells; prunes), "triplane" (three planes per level), "codebook" (an octree that stores indices; prunes, and
    is exported small), "none" (the decoder sees the points alone)."""
    levels: int | None = setting(None, least=1, most=32, common=True)
    """Resolutions, from coarse to fine; null takes 8 (hash), 3 (dense) or 4."""
    features: int | None = setting(None, least=1, most=8, common=True)
    """Learnt values per vertex and level; null takes 4, for a triplane 8."""
    log2_size: int | None = setting(None, least=1, most=LOG2_MOST, common=True)
    """hash: base-two logarithm of the most vertices stored per level; null takes 15."""
    n_min: int | None = setting(None, least=2, most=2**20)
    """hash, dense: vertices per axis of the coarsest level; null takes 16."""
    n_max: int | None = setting(None, least=2, most=2**20, common=True)
    """hash, dense: vertices per axis of the finest level; null takes 512 (hash) or 64 (dense)."""
    base: int | None = setting(None, least=0, most=12)
    """octree, codebook, triplane: the coarsest level l, of 2^l cells per axis; the finest is base + levels - 1. null
    takes 3, for a triplane 4."""
    bits: int | None = setting(None, least=1, most=8)
    """codebook: bits of an index, for 2^bits entries in the dictionary of each level; null takes 4."""
    combine: Literal["concatenate", "sum"] = setting("concatenate")
    """How the levels' features come together: side by side, or added up."""
    positional: int | None = setting(None, least=0, most=16, common=True)
    """Frequencies of sines and cosines of the points that the decoder sees beside the features; 0 for none, null takes
    2 for a codebook and 4 for a triplane, whose features alone tell places badly apart, else 0."""
    decoder: Literal["mlp", "siren"] = setting("mlp", common=True)
    """What makes values of features: layers with ReLU, or (grid: none) with sines, as SIREN has them."""
    hidden: int = setting(64, least=1, common=True)
    """Width of the decoder's hidden layers."""
    layers: int = setting(2, least=0, common=True)
    """Hidden layers of the decoder; SIREN's first layer of sines comes before them."""
    omega: float = setting(30.0, above=0)
    """siren: the factor within every sine; smaller ones fit smoother functions."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        super().__post_init__()
        own = self.grid_defaults[self.grid]
        for name in ("levels", "features", "log2_size", "n_min", "n_max", "base", "bits"):
            require(self, name, name in own or getattr(self, name) is None, f"null: a grid {self.grid!r} has none")
        found = self.grid_arguments()
        if "n_max" in found:
            require(self, "n_max", found["n_max"] >= found["n_min"], f"at least n_min, {found['n_min']}")
        if "base" in found:
            finest = FINEST[self.grid]
            require(
                self, "levels", found["base"] + found["levels"] - 1 <= finest, f"base + levels at most {finest + 1}"
            )
        alone = self.decoder == "mlp" or self.grid == "none"
        require(self, "decoder", alone, f"'mlp' over a grid ({self.grid!r}); 'siren' goes with grid: none")

    def grid_arguments(self) -> dict[str, int]:
        """What the chosen grid is built with: each of its settings, or where that is null its default."""
        own = self.grid_defaults[self.grid]
        given = {name: getattr(self, name) for name in own}
        return {name: own[name] if value is None else value for name, value in given.items()}

    @property
    def frequencies(self) -> int:
        """Those of the points' encoding: `positional`, or where that is null the grid's own."""
        return POSITIONAL.get(self.grid, 0) if self.positional is None else self.positional


def build_grid(settings: GridSettings, dimensions: int = 3, cells: Tensor | None = None) -> Grid:
    """The grid that `settings` describe, with the points' encoding behind its features where `positional` asks for it.

    Args:
        settings: what to build.
        dimensions: of the points: 3, or for hash, dense and none also 2.
        cells: (m, 3) integers, for octree and codebook the occupied cells of the finest level (base + levels - 1), each
            coordinate from 0 to 2^level - 1. None takes all cells, to be pruned later.

    Raises:
        UsageError: a setting that does not fit, by name.
    """
    arguments = settings.grid_arguments()
    kind = settings.grid
    if kind == "none":
        return PositionalGrid(None, settings.frequencies, dimensions)
    require(settings, "grid", dimensions == 3 or kind in ("hash", "dense"), f"hash, dense or none in {dimensions}D")
    grid = _built(kind, arguments, dimensions, cells)
    if settings.combine == "sum":
        grid = SummedGrid(grid)
    return PositionalGrid(grid, settings.frequencies) if settings.frequencies else grid


def _built(kind: Kind, arguments: Mapping[str, int], dimensions: int, cells: Tensor | None) -> Grid:
    if kind == "hash":
        return HashEncoding(dimensions, **arguments)
    if kind == "dense":
        return DenseGrid(dimensions, **arguments)
    if kind == "octree":
        return OctreeGrid(cells, **arguments)
    if kind == "triplane":
        return TriplaneGrid(**arguments)
    return CodebookGrid(cells, **arguments)


def build_decoder(settings: GridSettings, width: int, outputs: int, output: Output = "none") -> Decoder | Siren:
    """The decoder that `settings` describe, from a grid's `width` to `outputs` values.

    `output` "sigmoid" is the perceptron's alone; a SIREN ends linearly, whoever needs another end applies it.
    """
    if settings.decoder == "siren":
        return Siren(width, outputs, settings.hidden, settings.layers, settings.omega)
    return Decoder(width, outputs, settings.hidden, settings.layers, output)
