import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.tracts.phantom import make_phantom
from treadle.tracts.space import Space
from treadle.tracts.tracking.baselines import Peaks, Straight
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import track


def ask(propagator: Peaks | Straight, point: list[float], previous: list[float]) -> list[float]:
    arguments = torch.tensor([point]), torch.tensor([previous]), torch.zeros(1, 0)
    direction, end, _ = propagator.advance(propagator.start(1), *arguments)
    assert end.tolist() == [0.0]
    return direction[0].tolist()


def test_of_two_peaks_the_one_that_fits_the_line_is_taken_with_its_sign() -> None:
    peaks = np.zeros((3, 3, 3, 2, 3), np.float32)
    peaks[..., 0, 0], peaks[..., 1, 1] = 1, 1
    follow = Peaks(peaks)
    assert ask(follow, [1.5, 1.5, 1.5], [0.2, 0.9, 0.0]) == [0, 1, 0]
    assert ask(follow, [1.2, 1.9, 1.5], [-0.9, 0.2, 0.0]) == [-1, 0, 0]
    assert ask(follow, [1.5, 1.5, 1.5], [0.0, 0.0, 0.0]) == [1, 0, 0]  # at a seed the first leads


def test_between_voxels_peaks_are_interpolated_with_corner_origin() -> None:
    peaks = np.zeros((2, 1, 1, 3), np.float32)
    peaks[0, 0, 0], peaks[1, 0, 0] = [1, 0, 0], [0, -1, 0]
    follow = Peaks(peaks)
    towards = [0.5, 0.5, 0.0]
    assert ask(follow, [0.5, 0.5, 0.5], towards) == [1, 0, 0]  # a voxel's centre
    assert ask(follow, [1.5, 0.5, 0.5], towards) == [0, 1, 0]
    assert np.allclose(ask(follow, [0.75, 0.5, 0.5], towards), np.array([0.75, 0.25, 0]) / np.hypot(0.75, 0.25))
    assert np.allclose(ask(follow, [1.25, 0.5, 0.5], towards), np.array([0.25, 0.75, 0]) / np.hypot(0.75, 0.25))
    assert ask(follow, [-3.0, 9.0, 0.5], towards) == [1, 0, 0]  # outside: as at the border


def test_another_bundles_direction_and_a_weak_one_are_not_followed() -> None:
    peaks = np.zeros((2, 1, 1, 3), np.float32)
    peaks[0, 0, 0], peaks[1, 0, 0] = [0.5, 0, 0], [0, 1, 0]
    assert ask(Peaks(peaks), [1.0, 0.5, 0.5], [1.0, 0.2, 0.0]) == [1, 0, 0]
    assert ask(Peaks(peaks), [1.5, 0.5, 0.5], [1.0, 0.2, 0.0]) == [0, 0, 0]
    assert ask(Peaks(peaks, least=0.2), [1.0, 0.5, 0.5], [1.0, 0.2, 0.0]) == [1, 0, 0]
    assert ask(Peaks(peaks, least=0.3), [1.0, 0.5, 0.5], [1.0, 0.2, 0.0]) == [0, 0, 0]  # half of 0.5 is left


def test_copying_goes_straight_on() -> None:
    peaks = np.zeros((2, 2, 2, 3), np.float32)
    peaks[..., 0] = 1
    copy = Straight(Peaks(peaks))
    assert ask(copy, [1.0, 1.0, 1.0], [0.0, 0.0, -0.5]) == [0, 0, -1]
    assert ask(copy, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]) == [1, 0, 0]


def test_true_peaks_lead_through_the_crossings_of_a_phantom() -> None:
    phantom = make_phantom(0, lines=1)
    follow = Peaks(phantom.ordered_peaks)
    pure = (phantom.fractions[..., 1] == 1) & (phantom.fractions[..., 0] == 0)
    seeds = place_seeds(pure, seed=0, total=60)
    found = track(follow, seeds, phantom.space, phantom.tracking_mask, TrackingSettings(), seed=0)
    ends = found.lines.points[np.stack([found.lines.offsets[:-1], found.lines.offsets[1:] - 1])].astype(int)
    head, tail = phantom.ends["straight"]
    arrived = np.array([[head[tuple(p)], tail[tuple(p)]] for p in ends.reshape(-1, 3)]).reshape(2, -1, 2)
    assert (arrived[0, :, 0] & arrived[1, :, 1] | arrived[0, :, 1] & arrived[1, :, 0]).mean() > 0.95


def test_lines_of_a_principal_direction_stay_in_a_straight_tube() -> None:
    space = Space(np.eye(4), (30, 9, 9))
    peaks = np.zeros((30, 9, 9, 3), np.float32)
    peaks[:, 3:6, 3:6, 0] = 1
    mask = np.ones((30, 9, 9), bool)
    seeds = place_seeds(peaks[..., 0] > 0, seed=0, per_voxel=1)
    found = track(Peaks(peaks), seeds, space, mask, TrackingSettings(step=0.5), seed=0)
    assert len(found.lines) == len(seeds)
    assert np.allclose(found.lines.millimetres([1, 1, 1]), 29.5, atol=0.6)


def test_peaks_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="expected directions"):
        Peaks(np.zeros((2, 2, 2, 4)))
