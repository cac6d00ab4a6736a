import math

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.phantom import VOXEL, make_phantom
from treadle.tracts.signal.tensor import principal


@pytest.mark.parametrize("seed", range(6))
def test_two_bundles_cross_in_about_96_voxels_and_all_lies_inside(seed: int) -> None:
    phantom = make_phantom(seed, lines=50)
    assert 80 <= phantom.crossing.sum() <= 115
    arc, straight, helix = (phantom.fractions[..., number] >= 0.5 for number in range(3))
    assert not (helix & (arc | straight)).any()
    for lines in phantom.bundles.values():
        assert phantom.space.inside(lines.points).all()


def test_the_ends_are_apart_and_the_lines_go_from_one_to_the_other() -> None:
    for seed in range(6):
        phantom = make_phantom(seed, lines=50)
        regions = [region for ends in phantom.ends.values() for region in ends]
        assert np.sum(regions, axis=0).max() == 1
        for name, lines in phantom.bundles.items():
            first, last = (lines.points[rows].astype(int) for rows in (lines.offsets[:-1], lines.offsets[1:] - 1))
            head, tail = (region[tuple(first.T)] for region in phantom.ends[name])
            assert (head ^ tail).all() and head.any() and tail.any()
            other_head, other_tail = (region[tuple(last.T)] for region in phantom.ends[name])
            assert (head == other_tail).all() and (tail == other_head).all()


def test_lines_stay_in_their_mask_and_follow_the_peaks() -> None:
    phantom = make_phantom(1, lines=100)
    for number, (name, lines) in enumerate(phantom.bundles.items()):
        for line in (lines[0], lines[50], lines[99]):
            voxels = tuple(line.astype(int).T)
            assert phantom.masks[name][voxels].mean() > 0.97  # a part of a line may graze a voxel's edge
            ahead = np.diff(line, axis=0)
            ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
            cosine = np.abs((phantom.peaks[voxels][:-1, number] * ahead).sum(axis=1))
            assert np.median(cosine) > math.cos(math.radians(8))
            assert np.abs(np.linalg.norm(np.diff(line, axis=0), axis=1) * VOXEL - 0.5).max() < 0.3


def test_the_signal_is_that_of_its_tensors() -> None:
    phantom = make_phantom(0, snr=math.inf, lines=1, shells=((1000.0, 30), (2500.0, 60)))
    assert phantom.dwi.shape == (24, 24, 12, 96) and list(np.unique(phantom.bvalues)) == [0, 1000, 2500]
    assert np.allclose(np.linalg.norm(phantom.directions[6:], axis=1), 1)
    x, y, z = np.argwhere(phantom.fractions[..., 0] == 1)[0]
    assert phantom.fractions[x, y, z, 1:].sum() == 0
    cosine = phantom.directions @ phantom.peaks[x, y, z, 0]
    expected = np.exp(-phantom.bvalues * (0.2e-3 + 1.5e-3 * cosine**2))
    assert np.allclose(phantom.dwi[x, y, z], expected, atol=1e-6)
    both = phantom.crossing & (phantom.fractions[..., :2] == 1).all(axis=-1)
    x, y, z = np.argwhere(both)[0]
    decays = np.exp(-phantom.bvalues * (0.2e-3 + 1.5e-3 * (phantom.peaks[x, y, z, :2] @ phantom.directions.T) ** 2))
    assert np.allclose(phantom.dwi[x, y, z], decays.mean(axis=0), atol=1e-6)


def test_the_noise_is_rician() -> None:
    clean, noisy = make_phantom(0, snr=math.inf, lines=1), make_phantom(0, snr=20, lines=1)
    bright = clean.dwi > 0.8
    difference = noisy.dwi[bright] - clean.dwi[bright]
    assert abs(difference.std() - 1 / 20) < 2e-3
    # A signal of nearly nothing becomes a Rayleigh distribution: its mean is sigma sqrt(pi / 2).
    dark = clean.dwi < 0.01
    assert dark.sum() > 1000 and abs(noisy.dwi[dark].mean() - math.sqrt(math.pi / 2) / 20) < 2e-3


def test_a_seed_gives_one_phantom_and_another_another() -> None:
    first, again, other = make_phantom(3, lines=5), make_phantom(3, lines=5), make_phantom(4, lines=5)
    assert np.array_equal(first.dwi, again.dwi)
    assert all(
        np.array_equal(a.points, b.points) for a, b in zip(first.bundles.values(), again.bundles.values(), strict=True)
    )
    shared = (first.mask & other.mask).sum() / (first.mask | other.mask).sum()
    assert shared < 0.7


def test_lines_may_leave_the_bundles_by_one_voxel() -> None:
    phantom = make_phantom(0, lines=1)
    from scipy.ndimage import binary_dilation

    assert np.array_equal(phantom.tracking_mask, binary_dilation(phantom.mask))


def test_the_subject_has_the_volume_and_the_lines() -> None:
    subject = make_phantom(0, lines=4).subject("sub-01")
    assert subject.volume("input").dtype == np.float32 and subject.volumes["input"].kind == "sh"
    assert subject.volumes["input"].features == subject.volume("input").shape[3] == 28
    lines = subject.streamlines("streamlines")
    assert lines.per_line["bundle"].ravel().tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("wrong", [{"plain": 0}, {"snr": 0.0}, {"lines": 0}, {"shells": ((0.0, 3),)}])
def test_wrong_numbers_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="a phantom needs"):
        make_phantom(0, **wrong)


def test_tensors_of_single_bundles_point_along_them() -> None:
    phantom = make_phantom(2, lines=1)
    subject = phantom.subject()
    assert subject.volumes["tensors"].kind == "tensor"
    single = (phantom.fractions.max(axis=-1) == 1) & (phantom.fractions.sum(axis=-1) == 1)
    found = principal(subject.volume("tensors"))[single]
    cosine = np.abs((found * phantom.ordered_peaks[single][:, 0]).sum(axis=1))
    assert single.sum() > 200 and np.median(np.degrees(np.arccos(np.minimum(cosine, 1)))) < 4
