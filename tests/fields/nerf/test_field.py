from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.nerf.field import NeRFField, as_density, contracted, encoded_directions, expanded


def make(**given) -> NeRFField:
    torch.manual_seed(0)
    field = NeRFField(HashEncoding(3, levels=4, features=2, log2_size=10, n_min=4, n_max=16), hidden=16, **given)
    with torch.no_grad():
        field.grid.table.uniform_(-1, 1)
    return field


def somewhere(count: int, reach: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(count, 3, generator=generator) * 2 - 1) * reach
    return points, torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


def test_it_says_density_and_colour_and_either_alone() -> None:
    field, (points, directions) = make(), somewhere(50)
    both = field(points, directions)
    assert {name: tuple(values.shape) for name, values in both.items()} == {"density": (50, 1), "color": (50, 3)}
    assert (both["density"] > 0).all() and (both["color"] > 0).all() and (both["color"] < 1).all()
    alone = field(points, channels=("density",))
    assert set(alone) == {"density"} and torch.equal(alone["density"], both["density"])
    assert torch.equal(field.density(points), both["density"][:, 0])
    with pytest.raises(UsageError, match="give directions"):
        field(points)


def test_the_colour_depends_on_the_direction_and_the_density_does_not() -> None:
    field, (points, directions) = make(), somewhere(50)
    one, other = field(points, directions), field(points, -directions)
    assert torch.equal(one["density"], other["density"])
    assert (one["color"] - other["color"]).abs().max() > 1e-3


def test_coarser_levels_of_detail_are_other_fields() -> None:
    field, (points, _) = make(), somewhere(50)
    assert torch.equal(field.density(points, lod=3), field.density(points))
    assert not torch.equal(field.density(points, lod=0), field.density(points))


def test_directions_are_encoded_by_four_octaves_of_sines_and_cosines() -> None:
    _, directions = somewhere(100)
    found = encoded_directions(directions)
    parts = [directions]
    for octave in range(4):
        angle = directions.double() * 2**octave
        parts += [angle.sin(), angle.cos()]
    assert found.shape == (100, 27)
    assert torch.allclose(found.double(), torch.cat([part.double() for part in parts], 1), atol=3e-6)


def test_contraction_leaves_the_middle_and_brings_all_else_within_two() -> None:
    points, _ = somewhere(200)
    assert torch.equal(contracted(points), points)
    far, _ = somewhere(200, 50.0)
    inside = contracted(far)
    assert inside.abs().max() < 2
    assert torch.allclose(torch.nn.functional.normalize(inside, dim=1), torch.nn.functional.normalize(far, dim=1))
    assert torch.allclose(expanded(inside), far, rtol=1e-3)
    # From mip-NeRF 360: (2 - 1/|x|) x/|x|.
    assert torch.allclose(
        contracted(torch.tensor([[4.0, 0, 0], [0, -2, 1]])), torch.tensor([[1.75, 0, 0], [0, -1.5, 0.75]])
    )


def test_a_bound_and_a_contraction_say_where_points_lie_in_the_grid() -> None:
    points, _ = somewhere(60)
    plain = make()
    assert torch.equal(make(bound=4.0).density(points * 4), plain.density(points))
    assert torch.allclose(make(contracted=True).density(expanded(points * 2)), plain.density(points), rtol=1e-3)
    with pytest.raises(UsageError, match="bound"):
        make(bound=0.0)


@pytest.mark.parametrize("activation", ["exp", "softplus", "relu"])
def test_densities_are_never_negative_nor_infinite_and_have_gradients(activation: str) -> None:
    raw = torch.tensor([-1e4, -20.0, -1, 0.5, 3, 1e4], requires_grad=True)
    density = as_density(raw, activation)
    density.sum().backward()
    assert (density >= 0).all() and density.isfinite().all() and raw.grad.isfinite().all()
    assert (raw.grad >= 0).all() and raw.grad[4] > 0
    assert density[4] > density[3]
    if activation == "exp":
        assert raw.grad[0] > 0, "there is a way back from nothing"
        assert torch.allclose(raw.grad[2:5], density[2:5])


def test_gradients_reach_points_and_directions() -> None:
    field, (points, directions) = make(), somewhere(20)
    points, directions = points.requires_grad_(), directions.requires_grad_()
    found = field(points, directions)
    (found["density"].sum() + found["color"].sum()).backward()
    assert points.grad.abs().sum() > 0 and directions.grad.abs().sum() > 0


@pytest.mark.parametrize(("given", "said"), [({"activation": "exq"}, "exp"), ({"bound": -1.0}, "bound")])
def test_what_cannot_be_is_refused(given: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(**given)
    with pytest.raises(UsageError, match="3 dimensions"):
        NeRFField(HashEncoding(2))
