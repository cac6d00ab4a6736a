from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from treadle.engine.settings import TrainerConfig
from treadle.errors import UsageError
from treadle.fields.decoder import Decoder, decoded
from treadle.fields.settings import DEFAULTS, GridSettings, Kind, build_decoder, build_grid
from treadle.fields.siren import Siren

SMALL = {
    "hash": {"log2_size": 8, "levels": 2, "n_max": 20},
    "dense": {"levels": 2, "n_min": 3, "n_max": 5},
    "octree": {"levels": 2, "base": 1},
    "triplane": {"levels": 2, "base": 2},
    "codebook": {"levels": 2, "base": 1, "bits": 2},
}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("combine", ["concatenate", "sum"])
@pytest.mark.parametrize("positional", [0, 2])
def test_what_is_built_is_what_is_asked_for(kind, combine, positional):
    settings = GridSettings(grid=kind, combine=combine, positional=positional, **SMALL[kind])
    grid = build_grid(settings)
    features = settings.grid_arguments()["features"] * (3 if kind == "triplane" else 1)
    expected = features * (1 if combine == "sum" else 2) + (15 if positional else 0)
    assert grid.width == expected and grid.levels == 2 and grid.dimensions == 3
    decoder = build_decoder(settings, grid.width, 5)
    assert decoded(grid, decoder, torch.rand(7, 3) * 2 - 1).shape == (7, 5)
    assert decoded(grid, decoder, torch.rand(7, 3) * 2 - 1, 0).shape == (7, 5)


def test_every_grid_has_defaults_that_fit_its_settings():
    assert set(DEFAULTS) == set(get_args(Kind))
    for kind, own in DEFAULTS.items():
        assert GridSettings(grid=kind).grid_arguments() == own


def test_what_is_null_is_the_grids_own_and_what_is_given_is_kept():
    assert GridSettings(grid="hash", levels=5).grid_arguments() == {**DEFAULTS["hash"], "levels": 5}


def test_a_codebook_and_a_triplane_see_the_points_unless_told_otherwise():
    assert [GridSettings(grid=kind).frequencies for kind in DEFAULTS] == [0, 0, 0, 4, 2, 0]
    assert GridSettings(grid="codebook", positional=0).frequencies == 0
    widths = [build_grid(GridSettings(grid="codebook", levels=2, base=1, positional=p)).width for p in (None, 0, 3)]
    assert widths == [8 + 15, 8, 8 + 21]


def test_without_a_grid_the_decoder_sees_the_points():
    assert build_grid(GridSettings(grid="none")).width == 3
    assert build_grid(GridSettings(grid="none", positional=6), 2).width == 26
    settings = GridSettings(grid="none", decoder="siren", hidden=9, layers=2, omega=20.0)
    siren = build_decoder(settings, 3, 4)
    assert (
        isinstance(siren, Siren)
        and siren.omega == 20
        and [layer.out_features for layer in siren.layers] == [9, 9, 9, 4]
    )
    assert decoded(build_grid(settings), siren, torch.rand(7, 3)).shape == (7, 4)


def test_the_decoder_ends_as_asked():
    decoder = build_decoder(GridSettings(hidden=7, layers=3), 12, 4, "sigmoid")
    assert isinstance(decoder, Decoder) and decoder.output == "sigmoid"
    assert [tuple(layer.weight.shape) for layer in decoder.layers] == [(7, 12), (7, 7), (7, 7), (4, 7)]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"grid": "hash", "bits": 3}, "bits is 3: expected null: a grid 'hash' has none"),
        ({"grid": "octree", "log2_size": 14}, "log2_size is 14: expected null"),
        ({"grid": "none", "features": 2}, "features is 2: expected null"),
        ({"grid": "dense", "n_max": 8}, "n_max is 8: expected at least n_min, 16"),
        ({"grid": "octree", "levels": 9}, r"levels is 9: expected base \+ levels at most 11"),
        ({"grid": "triplane", "base": 12, "levels": 2}, "levels is 2"),
        ({"decoder": "siren"}, "decoder is 'siren': expected 'mlp' over a grid"),
        ({"grid": "voxels"}, "grid is 'voxels'"),
        ({"features": 9}, "features is 9: expected between 1 and 8"),
        ({"positional": 17}, "positional is 17"),
        ({"omega": 0.0}, "omega is 0.0"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(given_, message):
    with pytest.raises(UsageError, match=message):
        GridSettings(**given_)


@pytest.mark.parametrize("kind", ["octree", "triplane", "codebook"])
def test_pictures_have_no_grids_of_space(kind):
    with pytest.raises(UsageError, match=rf"grid is '{kind}': expected hash, dense or none in 2D"):
        build_grid(GridSettings(grid=kind), 2)


def test_a_trainer_inherits_them_and_may_have_defaults_of_its_own():
    @dataclass(kw_only=True)
    class Config(GridSettings, TrainerConfig):
        grid_defaults = {**DEFAULTS, "hash": {**DEFAULTS["hash"], "levels": 3}}
        hidden: int = 32

    config = Config(max_steps=5)
    assert config.grid_arguments()["levels"] == 3 and config.hidden == 32 and config.max_steps == 5
    with pytest.raises(UsageError, match="hidden is 0: expected at least 1"):
        Config(hidden=0)


@examples(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["hash", "dense"]), levels=st.integers(1, 4), n_min=st.integers(2, 6), more=st.integers(0, 9)
)
def test_any_layout_is_built_or_refused_by_name(kind, levels, n_min, more):
    settings = GridSettings(grid=kind, levels=levels, n_min=n_min, n_max=n_min + more)
    grid = build_grid(settings)
    assert grid(torch.zeros(2, 3)).shape == (2, grid.width)
