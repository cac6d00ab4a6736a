from __future__ import annotations

import numpy as np
import pytest

from treadle.tracts.feeds.draws import normals, rotations, streams, uniforms

LINES = np.arange(20_000)


def test_a_number_depends_on_seed_epoch_line_and_counter_alone():
    whole = uniforms(streams(3, 1, LINES), 5)
    assert uniforms(streams(3, 1, LINES[[7]]), 5)[0] == whole[7]
    assert uniforms(streams(3, 1, LINES[[7, 7]]), np.array([4, 5]))[1] == whole[7]
    for other in (streams(4, 1, LINES), streams(3, 2, LINES), streams(3, 1, LINES + 20_000)):
        assert np.intersect1d(uniforms(other, 5), whole).size == 0
    assert np.intersect1d(uniforms(streams(3, 1, LINES), 6), whole).size == 0


def test_numbers_are_uniform_and_do_not_tell_of_one_another():
    for values in (uniforms(streams(0, 0, LINES), 0), uniforms(streams(0, 0, LINES[:1]), LINES)):
        assert 0 < values.min() and values.max() < 1  # noqa: SIM300
        counts = np.histogram(values, 20, (0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees of freedom, p = .001
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.025
    one, other = (uniforms(streams(0, epoch, LINES), 0) for epoch in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.025


def test_normal_numbers_are_normal():
    stats = pytest.importorskip("scipy.stats")
    values = normals(streams(1, 0, LINES), np.full(len(LINES), 16))
    for axis in range(3):
        assert stats.kstest(values[:, axis], "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.025


def test_rotations_turn_evenly():
    found = rotations(streams(2, 0, LINES), 4)
    np.testing.assert_allclose(found @ np.swapaxes(found, 1, 2), np.broadcast_to(np.eye(3), found.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(found), 1)
    # A fixed direction comes anywhere on the sphere, and the angle has the density (1 - cos) / pi.
    ends = found @ np.array([0.6, 0, 0.8])
    assert np.abs(ends.mean(axis=0)).max() < 0.02
    np.testing.assert_allclose(ends.T @ ends / len(ends), np.eye(3) / 3, atol=0.01)
    angle = np.arccos(np.clip((np.trace(found, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert abs(angle.mean() - (np.pi / 2 + 2 / np.pi)) < 0.02
