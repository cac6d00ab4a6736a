"""Generation-validation, on lines whose ends are known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.tracts.generation import Held, generate, hold
from treadle.tracts.scoring.connectivity import bloc_regions
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Connectivity, MemorySubject, Subject
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.settings import TrackingSettings

SPACE = Space(np.diag([2.0, 1.0, 1.0, 1.0]), (10, 8, 4))
SETTINGS = TrackingSettings(step=1.0, theta=90, shortest=0)


class Straight(Propagator):
    """Goes along one direction, whatever was before."""

    def __init__(self, direction: tuple[float, float, float]) -> None:
        self.direction = torch.tensor(direction)

    def start(self, count: int) -> Any:
        return None

    def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        back = (previous @ self.direction < 0)[:, None]
        along = torch.where(back, -self.direction, self.direction)
        return along, torch.zeros(len(points)), state

    def keep(self, state: Any, indices: Tensor) -> Any:
        return state


EVERYWHERE = np.ones(SPACE.shape, bool)


def lines(*ends: tuple[float, float, float]) -> Streamlines:
    """Straight lines of three points along x, (first x, last x, y); their middle is at x = 5, z is 2.5.

    By steps of half a voxel one reaches x = 0 and x = 9.5 from there: at x = 10 the volume ends.
    """
    return Streamlines.of([np.float32([[a, y, 2.5], [5, y, 2.5], [b, y, 2.5]]) for a, b, y in ends])


def subject(given: Streamlines, **more: Any) -> MemorySubject:
    return MemorySubject("a", SPACE, {"v": (np.ones((10, 8, 4, 1), np.float32), "")}, {"f": given}, **more)


def measured(
    given: Streamlines, direction: tuple[float, float, float], mask: np.ndarray | None = None, blocs: int = 2
) -> dict[str, float]:
    inside = EVERYWHERE if mask is None else mask
    held = [Held(subject(given), given, bloc_regions(SPACE.shape, (blocs,) * 3), SPACE, inside)]
    return generate(held, lambda _: Straight(direction), SETTINGS, seed=0)


@pytest.mark.parametrize("turned", [False, True])
def test_lines_that_end_where_the_real_ones_do_are_0_mm_off(turned: bool) -> None:
    """Either way round is right."""
    ends = (9.5, 0.0, 1.5) if turned else (0.0, 9.5, 1.5)
    assert measured(lines(ends), (1.0, 0.0, 0.0)) == {"endpoint_distance": 0.0, "connectivity": 1.0}


def test_distances_are_in_millimetres_a_mean_over_both_ends_and_lines() -> None:
    mask = np.ones(SPACE.shape, bool)
    mask[8:] = False  # lines stop at x = 7.5: one end of the first line is 4 mm off, the second line is right
    found = measured(lines((0, 9.5, 1.5), (0, 7.5, 5.5)), (1.0, 0.0, 0.0), mask)
    assert found == {"endpoint_distance": pytest.approx(4 / 2 / 2), "connectivity": 1.0}


def test_a_line_that_goes_another_way_links_other_regions() -> None:
    found = measured(lines((0, 9.5, 1.5)), (0.0, 1.0, 0.0))
    # It ends at (5, 0.5) and (5, 7.5) instead of (0, 1.5) and (9.5, 1.5): the nearer way round counts.
    ways = [np.hypot(10, 1) + np.hypot(9, 6), np.hypot(10, 6) + np.hypot(9, 1)]
    assert found == {"endpoint_distance": pytest.approx(min(ways) / 2), "connectivity": 0.0}


def test_what_does_not_grow_ends_where_it_began() -> None:
    mask = np.ones(SPACE.shape, bool)
    mask[:, :4] = False  # the middle of the first line is outside
    found = measured(lines((0, 9.5, 1.5), (0, 9.5, 5.5)), (1.0, 0.0, 0.0), mask)
    assert found["endpoint_distance"] == pytest.approx((10 + 9) / 2 / 2)
    assert found["connectivity"] == 0.5


def test_subjects_count_by_their_lines() -> None:
    several, one = lines((0, 9.5, 1.5), (0, 9.5, 2.5), (0, 9.5, 3.5)), lines((0, 9.5, 5.5))
    regions = bloc_regions(SPACE.shape, (2, 2, 2))
    held = [Held(subject(given), given, regions, SPACE, EVERYWHERE) for given in (several, one)]
    ways = iter([Straight((1.0, 0.0, 0.0)), Straight((0.0, 1.0, 0.0))])
    found = generate(held, lambda _: next(ways), SETTINGS, seed=0)
    assert found["connectivity"] == 0.75


def names(held: list[Held]) -> list[int]:
    return [len(one.lines) for one in held]


def test_lines_are_chosen_evenly_from_all_subjects_and_have_a_middle() -> None:
    many = lines(*((0, 10, 0.1 * k) for k in range(60)))
    few = lines(*((0, 10, 0.1 * k) for k in range(20)))
    short = Streamlines.of([np.float32([[1, 1, 1], [2, 1, 1]])])
    subjects: list[Subject] = [subject(many), subject(few), subject(short)]
    held = hold(subjects, "f", "v", 40, 4)
    assert names(held) == [30, 10]
    chosen = held[1].lines.points[::3, 1]
    assert chosen[0] == 0 and chosen[-1] == few.points[-1, 1] and (np.diff(chosen) > 0.15).all()
    assert names(hold(subjects, "f", "v", 1000, 4)) == [60, 20]
    assert names(hold(subjects, "f", "v", 1, 4)) == [1, 1]  # each subject is heard
    assert hold([subject(short)], "f", "v", 10, 4) == []


def test_regions_are_the_datas_own_where_it_has_some() -> None:
    given = lines((0, 10, 1.5))
    labels = np.zeros((10, 8, 4, 1), np.float32)
    labels[:5], labels[8:] = 7, 3

    def regions(known: Connectivity | None) -> np.ndarray:
        one = MemorySubject("a", SPACE, {"v": (labels, "")}, {"f": given}, {} if known is None else {"f": known})
        return hold([one], "f", "v", 1, 4)[0].regions

    matrix = np.zeros((2, 2))
    assert np.array_equal(np.unique(regions(None)), np.arange(64))
    assert np.array_equal(np.unique(regions(Connectivity(matrix, blocs=(2, 1, 3)))), np.arange(6))
    assert regions(Connectivity(matrix, labels="v"))[[0, 6, 9], 0, 0].tolist() == [1, -1, 0]
