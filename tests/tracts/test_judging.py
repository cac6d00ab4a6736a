"""Figures of judged points, on lines and fields whose figures are known by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_tracts import SPACE, along, subject, volume
from torch import Tensor

from treadle.tracts.batch import LineBatch
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.getters.settings import GetterSettings, build_getter
from treadle.tracts.judging import Judged, disagreement, groups_of, judge, principal_directions
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject

UNEVEN = Space(np.diag([2.0, 1.0, 1.0, 1.0]), (12, 12, 5))
STRAIGHT = np.float32([[1, 1, 1], [2, 1, 1], [3, 1, 1], [4, 1, 1]])
CORNER = np.float32([[1, 1, 1], [2, 1, 1], [2, 3, 1], [2, 5, 1]])
DIAGONAL = np.float32([[1, 5, 1], [2, 5, 1], [3, 7, 1]])  # in mm: 2 along x, then 2 along x and 2 along y


def plain(*lines: np.ndarray, name: str = "a", axis: tuple[float, float, float] = (1, 0, 0)) -> MemorySubject:
    """A field of fibres along `axis`, in voxels of 2 x 1 x 1 mm."""
    unit = np.float32(axis) / np.linalg.norm(axis)
    full = 0.1 * np.eye(3) + 0.7 * np.outer(unit, unit)
    tensor = full[[0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]].astype(np.float32)
    bundle = np.arange(len(lines), dtype=np.float32)[:, None] % 2
    given = Streamlines.of(lines)
    given = Streamlines(given.points, given.offsets, {"bundle": bundle})
    field = np.broadcast_to(tensor, (12, 12, 5, 6)).copy()
    return MemorySubject(name, UNEVEN, {"input": (field, "tensor")}, {"f": given})


def judged_of(*subjects: MemorySubject, says: Callable[[LineBatch], Tensor], ends: bool = False) -> Judged:
    feed = TractFeed(subjects, LinesSettings(batch_size=2), training=False, ends=ends)
    getter = build_getter(GetterSettings(ends=ends), 4)
    return judge(says, getter, feed.iterate(0), 6, "tensor")


def previous(batch: LineBatch) -> Tensor:
    return batch.previous


# Single figures ----------------------------------------------------------------------------------------------------


def test_disagreement_is_1_minus_the_cosine() -> None:
    x, y = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    given = torch.stack([x, x, x, x, 0 * x]), torch.stack([5 * x, y, -x, x + y, x])
    assert disagreement(*given).tolist() == pytest.approx([0, 1, 2, 1 - 0.5**0.5, 1], abs=1e-6)


def test_the_principal_axis_of_one_fibre_is_told_from_tensors_and_from_harmonics() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers([4, 4, 0], SPACE.shape, (200, 3))
    truth = along(2.0 * (voxels + 0.5))
    for kind, within in (("tensor", 1e-6), ("sh", 1e-3)):
        found = principal_directions(volume(kind)[tuple(voxels.T)], kind)
        assert found is not None and found.shape == (200, 3)
        assert (1 - np.abs((found * truth).sum(axis=1))).max() < within, kind
    assert principal_directions(np.ones((3, 4), np.float32), "") is None


# Lines -------------------------------------------------------------------------------------------------------------


def test_copying_a_straight_line_is_right_and_at_a_corner_as_wrong_as_the_corner_is_sharp() -> None:
    found = judged_of(plain(STRAIGHT, CORNER, DIAGONAL), says=previous)
    assert found.offsets.tolist() == [0, 3, 6, 8] and found.lines.tolist() == [0, 1, 2]
    straight, corner, diagonal = (found.copying[slice(*found.offsets[[k, k + 1]])] for k in range(3))
    assert np.isnan([straight[0], corner[0], diagonal[0]]).all()  # nothing leads there
    assert straight[1:].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert corner[1:].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert diagonal[1] == pytest.approx(1 - 0.5**0.5, abs=1e-6)  # 45 degrees in mm, not in voxels
    # A model that copies is as good as copying, but where there is nothing to copy: a direction of 0 is 1 off.
    later = ~np.isnan(found.copying)
    assert np.array_equal(found.angle[later], found.copying[later]) and (found.angle[~later] == 1).all()
    assert np.array_equal(found.loss[later], found.angle[later])
    assert found.principal[:4].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-5)
    assert found.principal[4:6].tolist() == pytest.approx([1, 1], abs=1e-5)


def test_figures_are_means_over_the_points_that_all_of_them_have() -> None:
    found = judged_of(plain(STRAIGHT, CORNER, DIAGONAL), says=lambda batch: batch.targets * 3)
    figures = found.figures()
    slanted = 1 - 0.5**0.5
    assert figures["angle"] == pytest.approx(0, abs=1e-6) and figures["loss"] == pytest.approx(0, abs=1e-6)
    assert figures["copying"] == pytest.approx((1 + slanted) / 5, abs=1e-6)  # of 8 points 3 are first ones
    assert figures["principal"] == pytest.approx((1 + 1 + slanted) / 5, abs=1e-5)
    assert figures["step_mm"] == pytest.approx((2 + 2 + 2 + 2 + 8**0.5) / 5)
    only = found.figures(np.array([False, True, False]))
    assert only["copying"] == pytest.approx(0.5, abs=1e-6) and only["step_mm"] == 2
    assert found.per_line(found.copying).tolist() == pytest.approx([0, 0.5, slanted], abs=1e-6)
    assert "end_missed" not in figures


def test_a_line_of_two_points_has_no_mean_of_copying() -> None:
    found = judged_of(plain(STRAIGHT, STRAIGHT[:2]), says=previous)
    per_line = found.per_line(found.copying)
    assert per_line[0] == pytest.approx(0, abs=1e-6) and np.isnan(per_line[1])


def test_points_that_repeat_have_no_direction_and_no_figure() -> None:
    twice = STRAIGHT[[0, 1, 1, 2]]
    found = judged_of(plain(twice), says=lambda batch: torch.ones(len(batch.points), 3))
    assert np.isnan(found.angle).tolist() == np.isnan(found.loss).tolist() == [False, True, False]
    assert np.isnan(found.copying).tolist() == [True, True, True]  # the third point: nothing moved to get there
    assert np.isnan(found.figures()["angle"])


def test_ends_that_are_missed_and_ends_that_are_not_there_are_counted() -> None:
    def says(batch: LineBatch) -> Tensor:
        """An end at the last point of lines of 4 points, and at the first of all."""
        told = batch.last & (torch.diff(batch.offsets)[torch.bucketize(torch.arange(len(batch.points)),
                             batch.offsets[1:], right=True)] == 4)  # fmt: skip
        told[batch.offsets[:-1]] = True
        return torch.cat([batch.targets, torch.where(told, 9.0, -9.0)[:, None]], dim=1)

    found = judged_of(plain(STRAIGHT, CORNER, DIAGONAL), says=says, ends=True)
    assert found.offsets.tolist() == [0, 4, 8, 11] and found.last.sum() == 3
    figures = found.figures()
    assert figures["end_missed"] == pytest.approx(1 / 3) and figures["end_false"] == pytest.approx(3 / 8)
    assert figures["angle"] == pytest.approx(0, abs=1e-6)
    assert np.isnan(found.angle[found.last]).all() and np.isnan(found.loss[found.last]).all()
    lines = found.streamlines(0, UNEVEN)
    assert np.array_equal(lines.points, np.concatenate([STRAIGHT, CORNER, DIAGONAL]))
    assert lines.per_point["end_error"][3, 0] < 0.01 and lines.per_point["end_error"][10, 0] > 0.99


def test_lines_go_out_with_their_last_points_and_the_figures_of_each() -> None:
    """Of two subjects, each alone; the last point has the figures of the step that leads there."""
    found = judged_of(plain(STRAIGHT), plain(CORNER, DIAGONAL, name="b"), says=previous)
    assert found.subject.tolist() == [0, 1, 1]
    lines = found.streamlines(1, UNEVEN)
    assert np.allclose(lines.points, np.concatenate([CORNER, DIAGONAL])) and lines.offsets.tolist() == [0, 4, 7]
    copying = lines.per_point["copying"][:, 0]
    assert copying.tolist() == pytest.approx([0, 1, 0, 0, 0, 1 - 0.5**0.5, 1 - 0.5**0.5], abs=1e-6)
    assert lines.per_line["angle"][:, 0].tolist() == pytest.approx([2 / 3, (2 - 0.5**0.5) / 2], abs=1e-6)
    assert len(found.streamlines(0, UNEVEN)) == 1


def test_groups_are_bundles_where_the_data_names_them_else_subjects() -> None:
    first, second = plain(STRAIGHT, CORNER), plain(DIAGONAL, name="b")
    found = judged_of(first, second, says=previous)
    groups = groups_of(found, [first, second], "f")
    assert {name: chosen.tolist() for name, chosen in groups.items()} == {
        "bundle 0": [True, False, True],
        "bundle 1": [False, True, False],
    }
    unnamed = MemorySubject("b", UNEVEN, second.given_volumes, {"f": Streamlines.of([DIAGONAL])})
    groups = groups_of(found, [first, unnamed], "f")
    assert {name: chosen.tolist() for name, chosen in groups.items()} == {
        "a": [True, True, False],
        "b": [False, False, True],
    }


def test_the_axis_of_the_small_heads_is_that_of_their_lines() -> None:
    for kind in ("tensor", "sh"):
        one = subject("one", 9, kind=kind)
        feed = TractFeed([one], LinesSettings(step_size=0.5), training=False, ends=False)
        getter = build_getter(GetterSettings(), 4)
        found = judge(lambda batch: batch.targets, getter, feed.iterate(0), one.volumes["input"].features, kind)
        figures = found.figures()
        assert figures["principal"] < 2e-3 and figures["step_mm"] == pytest.approx(0.5, abs=0.02)
