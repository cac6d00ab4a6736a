import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.errors import RunError, UsageError
from treadle.tracts.space import Space
from treadle.tracts.tracking.growing import REASONS
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.randomness import uniforms
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import Tracked, track

SPACE = Space(np.diag([2.0, 1.0, 1.0, 1.0]), (20, 40, 10))
EVERYWHERE = np.ones(SPACE.shape, bool)


class Field(Propagator):
    """Follows a function of the place; what it says at a seed is as good as its opposite."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def start(self, count: int) -> Any:
        return None

    def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        return self.function(points), torch.zeros(len(points)), None

    def keep(self, state: Any, indices: Tensor) -> Any:
        return None


class Wanderer(Propagator):
    """A recurrent propagator that draws: where it goes depends on all points so far, and on chance."""

    uniforms = 2

    def start(self, count: int) -> Tensor:
        return torch.zeros(count, 3)

    def advance(self, state: Tensor, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        state = 0.8 * state + 0.2 * torch.sin(points) + 0.3 * previous
        angle = 0.5 * (uniforms[:, :1] - 0.5)
        direction = state + torch.cat([angle, 0.5 * (uniforms[:, 1:] - 0.5), torch.zeros_like(angle)], dim=1)
        end = torch.sigmoid(4 * points[:, 2] - 36)
        return direction / direction.norm(dim=1, keepdim=True), end, state

    def keep(self, state: Tensor, indices: Tensor) -> Tensor:
        return state[indices]


def straight(points: Tensor) -> Tensor:
    return torch.tensor([1.0, 0.0, 0.0]).expand(len(points), 3)


def circle(points: Tensor) -> Tensor:
    """Around (20 mm, 20 mm) in the plane of x and y."""
    x, y = points[:, 0] * 2 - 20, points[:, 1] - 20
    return torch.stack([-y, x, torch.zeros_like(x)], 1) / torch.hypot(x, y)[:, None]


def settings(**given: Any) -> TrackingSettings:
    return TrackingSettings(**({"shortest": 0.0, "opposite": True} | given))


def tracked(propagator: Propagator, seeds: Any, mask: np.ndarray = EVERYWHERE, seed: int = 0, **given: Any) -> Tracked:
    return track(propagator, np.asarray(seeds, np.float32).reshape(-1, 3), SPACE, mask, settings(**given), seed=seed)


def names(found: Tracked) -> list[tuple[str, ...]]:
    return [tuple(REASONS[reason] for reason in row if reason >= 0) for row in found.reasons]


def test_a_straight_field_gives_straight_lines_from_wall_to_wall() -> None:
    found = tracked(Field(straight), [[10.25, 5.5, 3.5]], step=0.5)
    line = found.lines[0].astype(float)
    assert np.allclose(line[:, 1:], [5.5, 3.5])
    assert np.allclose(np.diff(line[:, 0]) * 2, -0.5, atol=1e-5)  # backward is from the seed on: the line is turned
    assert line[:, 0].max() == 19.75 and line[:, 0].min() == 0.0  # the next step would leave the volume
    assert names(found) == [("mask", "mask")]


def test_steps_are_in_millimetres_along_the_grids_axes() -> None:
    diagonal = Field(lambda points: torch.full((len(points), 3), 3**-0.5))
    line = tracked(diagonal, [[2.5, 2.5, 2.5]], step=1.0).lines[0].astype(float)
    assert np.allclose(np.linalg.norm(np.diff(line, axis=0) * [2, 1, 1], axis=1), 1, atol=1e-5)
    assert np.allclose(np.abs(np.diff(line, axis=0)), np.array([0.5, 1, 1]) / math.sqrt(3), atol=1e-5)


def test_a_circular_field_is_followed_as_closely_as_its_steps_allow() -> None:
    """After n steps along tangents of length s the distance is sqrt(r^2 + n s^2): so Euler's steps leave a circle."""
    found = tracked(Field(circle), [[15.0, 20.0, 5.0]], step=0.1, longest=40.0, backward=False)
    line = found.lines[0].astype(float)
    away = np.hypot(line[:, 0] * 2 - 20, line[:, 1] - 20)
    assert len(line) == 401 and names(found) == [("length",)]
    assert np.allclose(away, np.sqrt(100 + np.arange(401) * 0.01), atol=2e-4)
    # arctan(s / r) for each step.
    angle = np.unwrap(np.arctan2(line[:, 1] - 20, line[:, 0] * 2 - 20))
    assert angle[-1] == pytest.approx(np.arctan(0.1 / away[:-1]).sum(), abs=1e-3)


def test_backward_is_the_other_half_of_the_circle() -> None:
    found = tracked(Field(circle), [[15.0, 20.0, 5.0]], step=0.1, longest=20.0, opposite=True)
    assert names(found) == [("length", "length")]  # forward took all that is allowed
    both = tracked(Field(circle), [[15.0, 20.0, 5.0]], step=0.1, longest=200.0, mask=half_plane())
    line = both.lines[0].astype(float)
    angle = np.unwrap(np.arctan2(line[:, 1] - 20, line[:, 0] * 2 - 20))
    assert (np.diff(angle) < 0).all() and angle.max() - angle.min() == pytest.approx(math.pi, abs=0.05)


def half_plane() -> np.ndarray:
    """Where x is at least 20 mm."""
    mask = np.zeros(SPACE.shape, bool)
    mask[10:] = True
    return mask


@pytest.mark.parametrize(("theta", "reason"), [(3.0, "angle"), (6.5, "length")])
def test_a_line_that_turns_more_than_theta_stops(theta: float, reason: str) -> None:
    """On a circle of 10 mm a step of 1 mm turns by 5.7 degrees."""
    found = tracked(Field(circle), [[15.0, 20.0, 5.0]], step=1.0, theta=theta, longest=30.0, backward=False)
    assert names(found) == [(reason,)]
    assert len(found.lines[0]) == (2 if reason == "angle" else 31)


def test_points_never_leave_the_mask_and_seeds_outside_of_it_are_counted() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros(SPACE.shape, bool)
    mask[4:15, 8:30, 2:9] = True
    seeds = rng.uniform([0, 0, 0], SPACE.shape, (300, 3)).astype(np.float32)
    found = tracked(Wanderer(), seeds, mask)
    voxels = found.lines.points.astype(int)
    assert mask[tuple(voxels.T)].all()
    within = mask[tuple(seeds.astype(int).T)]
    assert found.outside == (~within).sum() > 0
    assert len(found.lines) + found.short == within.sum()
    assert np.array_equal(found.seeds, seeds[found.numbers])


def test_short_lines_are_dropped_and_long_ones_end() -> None:
    mask = np.zeros(SPACE.shape, bool)
    mask[:, :20] = True
    mask[:3, 20:] = True  # lines here can be 6 mm long
    seeds = [[10.0, 5.0, 5.0], [1.5, 30.0, 5.0]]
    found = tracked(Field(straight), seeds, mask, shortest=8.0, longest=25.0, step=1.0)
    assert found.numbers.tolist() == [0] and found.short == 1
    assert found.lines.lengths.tolist() == [26]
    assert found.counts()["too short"] == 1 and found.counts()["stopped by length"] == 1
    assert tracked(Field(straight), seeds, mask, shortest=0.0, longest=25.0).short == 0


def test_a_likely_end_stops_the_line_at_that_point() -> None:
    class Ending(Field):
        def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> Any:
            return straight(points), (points[:, 0] > 12).float() * 0.6, None

    ends = tracked(Ending(straight), [[5.0, 5.0, 5.0]], step=1.0, eos_stop=0.6)
    assert ends.lines[0][:, 0].max() == 12.5 and names(ends) == [("end", "mask")]
    assert tracked(Ending(straight), [[5.0, 5.0, 5.0]], eos_stop=0.61).lines[0][:, 0].max() > 19
    assert tracked(Ending(straight), [[5.0, 5.0, 5.0]], eos_stop=None).lines[0][:, 0].max() > 19


def test_opposite_directions_are_turned_if_wanted() -> None:
    def fickle(points: Tensor) -> Tensor:
        sign = 1 - 2 * (points[:, :1].floor() % 2)
        return straight(points) * sign

    found = tracked(Field(fickle), [[10.0, 5.0, 5.0]], step=1.0)
    assert found.lines[0][:, 0].max() > 19 and found.lines[0][:, 0].min() < 1
    stuck = tracked(Field(fickle), [[10.0, 5.0, 5.0]], step=1.0, opposite=False)
    assert stuck.lines[0][:, 0].max() <= 11 and "angle" in names(stuck)[0]


def test_a_place_without_direction_ends_the_line() -> None:
    def ends(points: Tensor) -> Tensor:
        return torch.where(points[:, :1] < 14, straight(points), torch.nan)

    found = tracked(Field(ends), [[10.0, 5.0, 5.0]], step=1.0)
    assert names(found) == [("direction", "mask")] and found.lines[0][:, 0].max() == 14.0
    nowhere = tracked(Field(lambda points: torch.zeros(len(points), 3)), [[10.0, 5.0, 5.0]])
    assert len(nowhere.lines) == 0 and nowhere.short == 1


def one_by_one(seeds: np.ndarray, mask: np.ndarray, seed: int, **given: Any) -> list[np.ndarray]:
    """The same tracking written out for one line at a time, its past walked through from its far end."""
    use = settings(**given)
    wanderer, found = Wanderer(), []
    sizes = torch.tensor(SPACE.voxel_sizes, dtype=torch.float32)
    most = int(use.longest / use.step) + 1

    def ok(point: Tensor) -> bool:
        voxel = point.floor().long()
        inside = bool((voxel >= 0).all() and (voxel < torch.tensor(SPACE.shape)).all())
        return inside and bool(mask[tuple(voxel.tolist())])

    for number, place in enumerate(seeds):
        points = [torch.from_numpy(place)]
        if not ok(points[0]):
            continue
        first = None
        for purpose in ("forward", "backward"):
            state, previous, tick = wanderer.start(1), torch.zeros(1, 3), 0
            alone = len(points) == 1
            while True:
                here = points[tick][None]
                chance = torch.from_numpy(uniforms(seed, purpose, np.array([number]), 2, tick))
                direction, end, state = wanderer.advance(state, here, previous, chance)
                if tick == 0 and purpose == "forward":
                    first = direction
                if tick == 0 and purpose == "backward" and alone:
                    direction = -first
                if tick + 1 == len(points):
                    if use.opposite and (direction * previous).sum() < 0:
                        direction = -direction
                    turn = (direction * previous).sum() / previous.norm()
                    new = here + direction * use.step / sizes
                    if end >= use.eos_stop or len(points) >= most or not ok(new[0]):
                        break
                    if tick and turn < math.cos(math.radians(use.theta)):
                        break
                    points.append(new[0])
                previous = (points[tick + 1][None] - here) * sizes
                tick += 1
            if purpose == "forward":
                points = points[::-1]
        if len(points) > 1 and (len(points) - 1) * use.step >= use.shortest:
            found.append(torch.stack(points).numpy())
    return found


@pytest.mark.parametrize("given", [{}, {"theta": 25.0, "longest": 12.0, "shortest": 4.0}, {"opposite": False}])
def test_a_batch_is_what_single_lines_would_be(given: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    seeds = rng.uniform([0, 0, 0], SPACE.shape, (120, 3)).astype(np.float32)
    mask = rng.uniform(size=SPACE.shape) < 0.98
    given = {"longest": 40.0, **given}
    found = tracked(Wanderer(), seeds, mask, seed=5, **given)
    expected = one_by_one(seeds, mask, 5, **given)
    assert len(found.lines) == len(expected) > 30
    assert max(len(line) for line in expected) > 10
    for index, line in enumerate(expected):
        assert np.allclose(found.lines[index], line, atol=1e-4)


def test_lines_are_the_same_in_any_batch_and_in_any_company() -> None:
    rng = np.random.default_rng(2)
    seeds = rng.uniform([0, 0, 0], SPACE.shape, (300, 3)).astype(np.float32)
    whole = tracked(Wanderer(), seeds, longest=30.0)
    for batch in (1, 37, 128):
        parts = tracked(Wanderer(), seeds, longest=30.0, batch=batch)
        assert parts.lines.points.tobytes() == whole.lines.points.tobytes()
        assert np.array_equal(parts.lines.offsets, whole.lines.offsets)
        assert np.array_equal(parts.reasons, whole.reasons) and np.array_equal(parts.numbers, whole.numbers)
    fewer = tracked(Wanderer(), seeds[:100], longest=30.0)
    assert np.array_equal(fewer.lines.points, whole.lines.points[: len(fewer.lines.points)])


def test_another_seed_draws_other_lines() -> None:
    seeds = np.full((5, 3), 5.0)
    first, again, other = (tracked(Wanderer(), seeds, seed=seed, longest=20.0) for seed in (1, 1, 2))
    assert np.array_equal(first.lines.points, again.lines.points)
    assert not np.array_equal(first.lines.points[:50], other.lines.points[:50])
    assert not np.array_equal(first.lines[0][:10], first.lines[1][:10])  # equal places, other numbers


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3])
def test_a_tracking_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path, after: int) -> None:
    seeds = np.random.default_rng(3).uniform([0, 0, 0], SPACE.shape, (90, 3)).astype(np.float32)
    use = settings(batch=20, longest=30.0, compress=0.1)
    whole = track(Wanderer(), seeds, SPACE, EVERYWHERE, use, seed=0)
    done: list[int] = []

    class Counting(Wanderer):
        batches = 0

        def start(self, count: int) -> Tensor:
            if Counting.batches == 2 * after + 1:  # in the middle of a batch: it has grown forward alone
                Counting.batches = -100
                raise Stopped
            Counting.batches += 1
            return super().start(count)

    directory = tmp_path / "parts"
    with pytest.raises(Stopped):
        track(Counting(), seeds, SPACE, EVERYWHERE, use, seed=0, directory=directory, progress=done.append)
    assert done == [20 * (number + 1) for number in range(after)]
    Counting.batches = 0
    Counting.batches = -100
    resumed = track(Counting(), seeds, SPACE, EVERYWHERE, use, seed=0, directory=directory)
    assert Counting.batches == -100 + 2 * (5 - after)  # the batches that were done are read
    assert resumed.lines.points.tobytes() == whole.lines.points.tobytes()
    assert resumed.counts() == whole.counts() and np.array_equal(resumed.seeds, whole.seeds)


def test_batches_of_another_tracking_are_refused_and_damaged_ones_named(tmp_path: Path) -> None:
    seeds = np.full((3, 3), 5.0, np.float32)
    given: dict[str, Any] = {"seed": 0, "directory": tmp_path, "identity": "weights"}
    track(Wanderer(), seeds, SPACE, EVERYWHERE, settings(longest=20.0), **given)
    for changed in (given | {"seed": 1}, given | {"identity": "others"}):
        with pytest.raises(UsageError, match="another tracking"):
            track(Wanderer(), seeds, SPACE, EVERYWHERE, settings(longest=20.0), **changed)
    with pytest.raises(UsageError, match="another tracking"):
        track(Wanderer(), seeds + 1, SPACE, EVERYWHERE, settings(longest=20.0), **given)
    (part,) = tmp_path.glob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(RunError, match="is damaged"):
        track(Wanderer(), seeds, SPACE, EVERYWHERE, settings(longest=20.0), **given)


def test_compression_leaves_out_points_and_keeps_the_line() -> None:
    seeds = np.random.default_rng(4).uniform([14, 18, 1], [16, 22, 9], (20, 3))
    full = tracked(Field(circle), seeds, step=0.5, longest=40.0)
    thin = tracked(Field(circle), seeds, step=0.5, longest=40.0, compress=0.1)
    assert len(thin.lines.points) < len(full.lines.points) / 3
    assert len(thin.lines) == len(full.lines)
    assert np.array_equal(thin.lines[3][[0, -1]], full.lines[3][[0, -1]])


def test_what_cannot_be_tracked_is_refused() -> None:
    with pytest.raises(UsageError, match="seeds of the shape"):
        track(Wanderer(), np.zeros((0, 3)), SPACE, EVERYWHERE, settings(), seed=0)
    with pytest.raises(UsageError, match="the mask has"):
        track(Wanderer(), np.zeros((1, 3)), SPACE, EVERYWHERE[1:], settings(), seed=0)
    with pytest.raises(UsageError, match="shortest"):
        settings(shortest=10.0, longest=5.0)
    with pytest.raises(UsageError, match="per_voxel"):
        settings(per_voxel=1, total=10)
