from __future__ import annotations

from typing import Any

import pytest
import torch

from treadle.errors import UsageError
from treadle.tracts.models.embeddings import Convolutions
from treadle.tracts.models.settings import ModelSettings, build_model


@pytest.mark.parametrize(("side", "kernels"), [(3, [3]), (3, [2, 2]), (5, [3, 2])])
def test_the_grid_is_convolved_in_place(side: int, kernels: list[int]) -> None:
    """Against the same convolutions on a volume: the centre stands first in a row, the others follow, x slowest."""
    torch.manual_seed(0)
    volume = torch.randn(4, 5, side, side, side)
    cells = volume.flatten(2).transpose(1, 2)
    centre = side**3 // 2
    rows = torch.cat([cells[:, centre : centre + 1], cells[:, :centre], cells[:, centre + 1 :]], dim=1).flatten(1)
    embed = Convolutions(5 * side**3, side**3, [6, 7][: len(kernels)], kernels)
    wanted = volume
    for layer in embed.layers:
        wanted = layer(wanted).relu()
    assert torch.allclose(embed(rows), wanted.flatten(1), atol=1e-6)
    assert embed(rows).shape == (4, embed.width) and embed(rows[:0]).shape == (0, embed.width)


def test_neighbourhoods_are_in_that_order() -> None:
    trilinear = pytest.importorskip("treadle.kernels.trilinear")
    offsets = trilinear.neighbourhood("grid", 1.0)
    embed = Convolutions(27 * 3, 27, [1], [3])
    with torch.no_grad():
        embed.layers[0].weight.zero_()
        embed.layers[0].weight[0, 0, 2, 1, 0] = 1  # reads the first feature at (+1, 0, -1)
        embed.layers[0].bias.zero_()
    found = embed(torch.eye(27).repeat_interleave(3, dim=1))[:, 0].tolist()
    assert [offsets[k].tolist() for k in range(27) if found[k]] == [[1.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("given", "neighbours", "said"),
    [
        ({}, 7, "reads a grid of 27 or 125 neighbours: there are 7"),
        ({"kernels": [3, 2], "filters": [4, 4]}, 27, "do not fit into a grid of 3 voxels"),
        ({"kernels": [3, 1]}, 27, "1 filters and 2 kernels"),
    ],
)
def test_a_grid_is_needed_and_kernels_that_fit(given: dict[str, Any], neighbours: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_model(ModelSettings(embedding="cnn", **given), 2 * neighbours, neighbours)


def test_a_model_can_look_at_a_grid(lines: Any) -> None:
    model = build_model(ModelSettings(embedding="cnn", filters=[4, 8], kernels=[2, 2], dropout=0.5), 54, 27)
    assert model(*lines([3, 5], 54)).shape == (8, 100)
