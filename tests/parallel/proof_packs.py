"""One process against two, for the examples and recipes: `make proof-parallel`; test_packs.py has the quick ones.

Where nothing is drawn in `step`, weights are those of one process but for the last bits of sums. With fixed parts they
are the same bits, noise and all. In any case all processes have the same digest, which each save has compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parallel.packs import differ, train
from tests.parallel.together import together


@pytest.mark.parametrize(
    ("name", "most"),
    [("growing_gaussians", 1e-5), ("ragged_sequences", 3e-5), ("image", 1e-6), ("splats", 1e-6), ("splats_adc", 1e-6)],
)
def test_the_weights_are_those_of_one_process(tmp_path: Path, name: str, most: float) -> None:
    (alone,) = together(1, tmp_path, train, name, str(tmp_path / "alone"), {})
    found = together(2, tmp_path, train, name, str(tmp_path / "run"), {})
    assert found[0]["digest"] == found[1]["digest"] and found[0]["step"] == alone["step"]
    assert differ(alone, found[0]) < most


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gan_2d", {}),
        ("growing_gaussians", {}),
        ("ragged_sequences", {}),
        ("image", {}),
        ("pix2pix", {"pool": 0}),
        ("tracts", {}),
        ("tracts-autoencoder", {}),
    ],
)
def test_with_parts_the_bits_are_those_of_one_process(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    settings = {"parts": 2} | settings
    (alone,) = together(1, tmp_path, train, name, str(tmp_path / "alone"), settings)
    found = together(2, tmp_path, train, name, str(tmp_path / "run"), settings)
    assert [one["digest"] for one in found] == [alone["digest"]] * 2


@pytest.mark.parametrize("name", ["nerf", "sdf"])
def test_what_draws_in_its_steps_is_pruned_alike_in_all(tmp_path: Path, name: str) -> None:
    found = together(2, tmp_path, train, name, str(tmp_path / "run"), {})
    assert found[0]["digest"] == found[1]["digest"]
