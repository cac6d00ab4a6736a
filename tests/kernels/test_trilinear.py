from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.kernels.trilinear import interpolate, neighbourhood
from treadle.kernels.trilinear_reference import interpolate_reference


def make(shape=(5, 4, 3), features=6, count=700, seed=0):
    generator = torch.Generator().manual_seed(seed)
    volume = torch.randn(*shape, features, generator=generator)
    points = (torch.rand(count, 3, generator=generator) * 1.4 - 0.2) * torch.tensor([float(size) for size in shape])
    return volume, points


def by_hand(volume, point):
    """One point in plain Python: corners clamped, weights not."""
    found = np.zeros(volume.shape[3])
    low = [int(np.floor(x - 0.5)) for x in point]
    for corner in np.ndindex(2, 2, 2):
        weight = 1.0
        at = []
        for axis in range(3):
            share = point[axis] - 0.5 - low[axis]
            weight *= share if corner[axis] else 1 - share
            at.append(min(max(low[axis] + corner[axis], 0), volume.shape[axis] - 1))
        found += weight * volume[tuple(at)]
    return found


@pytest.mark.parametrize("features", [1, 6, 8, 12, 28])
def test_what_is_read_follows_the_definition(features):
    volume, points = make(features=features, count=60)
    special = torch.tensor([[0.5, 0.5, 0.5], [0, 0, 0], [5, 4, 3], [2.5, 1.5, 1.5], [4.5, 3.5, 2.5]])
    points = torch.cat((points, special))
    expected = torch.tensor(np.array([by_hand(volume.double().numpy(), p) for p in points.double().tolist()]))
    torch.testing.assert_close(interpolate_reference(volume.double(), points.double()), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(interpolate(volume, points).double(), expected, rtol=0, atol=5e-6)


def test_the_centre_of_a_voxel_has_its_value():
    volume, _ = make()
    index = torch.cartesian_prod(*(torch.arange(size) for size in volume.shape[:3]))
    assert torch.equal(interpolate(volume, index + 0.5), volume.reshape(-1, 6))


@pytest.mark.parametrize("features", [3, 28])
@pytest.mark.parametrize("kind", ["axes", "grid"])
def test_neighbours_are_read_as_points_would_be(kind, features):
    volume, points = make(features=features, count=1100)
    offsets = neighbourhood(kind, [0.7, 1.4])
    found = interpolate(volume, points, offsets)
    assert found.shape == (1100, len(offsets) * features)
    for number, offset in enumerate(offsets):
        part = found[:, number * features : (number + 1) * features]
        assert torch.equal(part, interpolate(volume, points + offset))
    expected = interpolate_reference(volume.double(), points.double(), offsets.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("features", [6, 28])
def test_any_number_of_threads_gives_the_same_bits(features):
    volume, points = make((9, 8, 7), features, 5000)
    offsets, before, found = neighbourhood("axes"), torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            found.append(interpolate(volume, points, offsets))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@given(
    st.lists(
        st.tuples(*[st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38])] * 3),
        max_size=8,
    ),
    st.tuples(*[st.integers(1, 3)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_no_point_reads_outside_the_volume(points, shape):
    for features in (1, 20):
        # What lies beside the volume in memory would be seen, even with the weight 0.
        size = shape[0] * shape[1] * shape[2] * features
        room = torch.full((2000 + size,), float("inf"))
        room[1000 : 1000 + size] = 1.0
        volume = room[1000 : 1000 + size].view(*shape, features)
        given_points = torch.tensor(points, dtype=torch.float32).reshape(-1, 3)
        found = interpolate(volume, given_points)
        unknown = given_points.isnan().any(dim=1)
        assert found[unknown].isnan().all()
        torch.testing.assert_close(found[~unknown], torch.ones(int((~unknown).sum()), features))
        torch.testing.assert_close(interpolate_reference(volume, given_points), found, equal_nan=True)


def test_infinite_points_read_the_border():
    volume, _ = make()
    found = interpolate(volume, torch.tensor([[float("inf"), -float("inf"), 1.5]]))
    assert torch.equal(found[0], volume[4, 0, 1])


def test_neighbourhoods_have_their_points():
    assert torch.equal(neighbourhood("none"), torch.zeros(1, 3))
    for kind, radius, count in (("axes", 1, 7), ("axes", [1, 2], 13), ("grid", 0.5, 27), ("grid", [1, 2], 125)):
        found = neighbourhood(kind, radius)
        assert len(found) == count == len({tuple(row) for row in found.tolist()})
        assert not found[0].any()
        assert torch.equal(found.sum(dim=0), torch.zeros(3))
    assert set(neighbourhood("grid", 0.5).unique().tolist()) == {-0.5, 0.0, 0.5}
    assert (neighbourhood("axes", [1, 2]) != 0).sum(dim=1).tolist() == [0, *[1] * 12]


@pytest.mark.parametrize(
    ("kind", "radius"),
    [("ball", 1), ("axes", 0), ("axes", [2, 1]), ("axes", [1, 2, 3]), ("grid", [1, 3]), ("axes", float("inf")),
     ("axes", float("nan")), ("axes", [])],
)  # fmt: skip
def test_other_neighbourhoods_are_refused(kind, radius):
    with pytest.raises(UsageError):
        neighbourhood(kind, radius)


def test_no_points_and_doubles_and_what_does_not_fit():
    volume, points = make()
    assert interpolate(volume, points[:0], neighbourhood("axes")).shape == (0, 42)
    assert interpolate(volume.double(), points.double()).dtype == torch.float64
    assert torch.equal(interpolate(volume.transpose(0, 1), points), interpolate(volume.transpose(0, 1).clone(), points))
    for wrong in (
        (volume[0], points),
        (volume[:0], points),
        (volume, points[:, :2]),
        (volume, points.double()),
        (volume, points, torch.zeros(3)),
        (volume.long(), points.long()),
        (volume, points.to("meta")),
    ):
        with pytest.raises(UsageError, match="trilinear"):
            interpolate(*wrong)
