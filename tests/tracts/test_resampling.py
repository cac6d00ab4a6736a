"""Resampled and compressed lines: where their points lie, what stays, and how far they are from what they were."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.resampling import compress, resample_count, resample_step
from treadle.tracts.streamlines import Streamlines

SIZES = np.array([2.0, 1.5, 1.0])


def arcs(count: int = 20, seed: int = 0) -> Streamlines:
    """Arcs of some 100 uneven steps each, in voxels of SIZES, with their place along the arc as data of the points."""
    generator = np.random.default_rng(seed)
    lines, along = [], []
    for _ in range(count):
        angle = np.sort(generator.uniform(0, 2.5, generator.integers(60, 140)))
        frame = np.linalg.qr(generator.normal(size=(3, 3)))[0]
        radius = generator.uniform(8, 25)
        lines.append((radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) @ frame + 60) / SIZES)
        along.append(angle[:, None])
    packed = Streamlines.of(lines)
    names = np.arange(count, dtype=np.float32)[:, None]
    return Streamlines(
        packed.points, packed.offsets, {"name": names}, {"angle": np.concatenate(along).astype(np.float32)}
    )


def steps(line: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(line.astype(np.float64), axis=0) * SIZES, axis=1)


def distance_to(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """From each point to the nearest place on a line, in mm."""
    points, line = points * SIZES, line * SIZES
    starts, along = line[:-1], np.diff(line, axis=0)
    share = np.einsum("psk,sk->ps", points[:, None] - starts, along) / np.maximum((along**2).sum(1), 1e-12)
    nearest = starts + np.clip(share, 0, 1)[:, :, None] * along
    return np.linalg.norm(points[:, None] - nearest, axis=2).min(1)


def test_a_step_is_even_and_near_what_was_asked_for() -> None:
    lines = arcs()
    found = resample_step(lines, 1.0, SIZES)
    for index in range(len(lines)):
        np.testing.assert_array_equal(found[index][[0, -1]], lines[index][[0, -1]])
        length = lines.millimetres(SIZES)[index]
        assert len(found[index]) == round(length) + 1
        # Chords of an arc are a little shorter than the arc between their ends.
        np.testing.assert_allclose(steps(found[index]), length / round(length), rtol=5e-3)
        assert distance_to(found[index].astype(np.float64), lines[index].astype(np.float64)).max() < 1e-4


def test_resampling_agrees_with_dipys() -> None:
    streamline = pytest.importorskip("dipy.tracking.streamline")
    lines = arcs()
    found = resample_count(lines, 17, SIZES)
    for index in range(len(lines)):
        expected = streamline.set_number_of_points((lines[index] * SIZES).astype(np.float32), nb_points=17)
        np.testing.assert_allclose(found[index] * SIZES, expected, atol=1e-4)


def test_what_is_known_of_points_goes_along() -> None:
    lines = arcs()
    found = resample_step(lines, 0.7, SIZES)
    np.testing.assert_array_equal(found.per_line["name"], lines.per_line["name"])
    for index in range(len(lines)):
        begin, end = found.offsets[index : index + 2]
        old = lines.per_point["angle"][lines.offsets[index] : lines.offsets[index + 1], 0]
        angle = np.linspace(old[0], old[-1], end - begin)
        np.testing.assert_allclose(found.per_point["angle"][begin:end, 0], angle, atol=5e-3)


def test_compressed_lines_stay_within_the_tolerance_with_few_points() -> None:
    lines = arcs()
    for tolerance in (0.02, 0.2):
        found = compress(lines, tolerance, SIZES)
        assert len(found.points) < len(lines.points) / 3
        for index in range(len(lines)):
            np.testing.assert_array_equal(found[index][[0, -1]], lines[index][[0, -1]])
            away = distance_to(lines[index].astype(np.float64), found[index].astype(np.float64))
            assert away.max() <= tolerance + 1e-5
            assert steps(found[index]).max() <= 10.0
            begin, end = found.offsets[index : index + 2]
            assert (np.diff(found.per_point["angle"][begin:end, 0]) > 0).all()


def test_compression_agrees_with_dipys() -> None:
    streamline = pytest.importorskip("dipy.tracking.streamlinespeed")
    lines = arcs()
    found = compress(lines, 0.1, SIZES)
    for index in range(len(lines)):
        places = lines[index].astype(np.float64) * SIZES
        expected = streamline.compress_streamlines(places, tol_error=0.1, max_segment_length=10)
        np.testing.assert_allclose(found[index] * SIZES, expected, atol=1e-5)


def test_a_straight_line_is_cut_where_a_segment_gets_too_long() -> None:
    line = np.zeros((101, 3))
    line[:, 0] = np.arange(101) / 4
    found = compress(Streamlines.of([line]), 0.1, (1, 1, 1))
    assert found.points[:, 0].tolist() == [0, 9.75, 19.5, 25]


def test_a_hairpin_is_no_straight_line() -> None:
    """Its point of return lies on the line through the others, and far from the segment between them."""
    found = compress(Streamlines.of([[[0, 0, 0], [5, 0, 0], [1, 0, 0]]]), 0.1, (1, 1, 1))
    assert len(found.points) == 3


@pytest.mark.parametrize("kept", [1, 0])
def test_lines_of_one_point_and_none(kept: int) -> None:
    lines = Streamlines.of([np.zeros((3, 3)), np.full((kept, 3), 2.0), [[1, 1, 1], [4, 1, 1]], np.zeros((0, 3))])
    stepped = resample_step(lines, 1.0, (1, 1, 1))
    assert stepped.lengths.tolist() == [2, kept, 4, 0]
    assert stepped[2][:, 0].tolist() == [1, 2, 3, 4]
    assert compress(lines, 0.1, (1, 1, 1)).lengths.tolist() == [2, kept, 2, 0]
    with pytest.raises(UsageError, match="has no point to resample"):
        resample_count(lines, 5)
    some = resample_count(lines.select(np.arange(2 if kept else 1)), 5)
    assert set(some.lengths) == {5}
    assert (some.points[-5:] == (2 if kept else 0)).all()


def test_no_lines_at_all() -> None:
    lines = Streamlines.of([])
    for found in (resample_step(lines, 1.0, SIZES), resample_count(lines, 5), compress(lines, 0.1, SIZES)):
        assert len(found) == 0


@pytest.mark.parametrize("call", [lambda x: resample_step(x, 0, SIZES), lambda x: resample_step(x, np.nan, SIZES),
                                  lambda x: resample_count(x, 1), lambda x: compress(x, -1, SIZES)])  # fmt: skip
def test_what_cannot_be_asked_for(call: object) -> None:
    with pytest.raises(UsageError, match="expected"):
        call(arcs(2))  # type: ignore[operator]


def test_what_becomes_of_a_line_does_not_depend_on_the_others() -> None:
    # Lengths of a whole number of steps and a half, exactly: behind others, the rounding of a sum would decide.
    rng = np.random.default_rng(0)
    bent = [rng.normal(size=(9, 3)).cumsum(axis=0) for _ in range(40)]
    halves = [np.outer(np.arange(2 * k), [0.125, 0, 0]) + rng.integers(0, 9, 3) for k in range(2, 42)]
    alone = [Streamlines.of([line]) for line in (*bent, *halves)]
    together = Streamlines.concatenate(alone)
    for resample in (
        lambda lines: resample_step(lines, 0.5, SIZES),
        lambda lines: resample_count(lines, 7, SIZES),
        lambda lines: compress(lines, 0.1, SIZES),
    ):
        found = resample(together)
        for k, line in enumerate(alone):
            np.testing.assert_array_equal(found[k], resample(line)[0])
