from __future__ import annotations

import numpy as np
import pytest
from turns import directions, turn

from treadle.errors import UsageError
from treadle.tracts.signal.harmonics import (
    basis,
    count_of,
    degrees,
    fit_harmonics,
    order_of,
    rotate,
    rotation_matrix,
)


def scheme(count=64):
    return np.array([0.0] * 2 + [1000.0] * count), np.concatenate([np.zeros((2, 3)), directions(count)])


def test_the_basis_is_that_of_dipy():
    shm = pytest.importorskip("dipy.reconst.shm")
    where = np.concatenate([directions(50), np.eye(3), -np.eye(3)])
    theta, phi = np.arccos(where[:, 2]), np.arctan2(where[:, 1], where[:, 0])
    expected, _, degree = shm.real_sh_descoteaux(8, theta, phi, legacy=False)
    np.testing.assert_allclose(basis(8, where), expected, atol=1e-12)
    np.testing.assert_array_equal(degrees(8), degree)


def test_the_fit_is_that_of_dipy():
    shm = pytest.importorskip("dipy.reconst.shm")
    sphere = pytest.importorskip("dipy.core.sphere").Sphere
    bvalues, gradients = scheme()
    dwi = np.random.default_rng(1).uniform(0.1, 0.9, (3, 66))
    dwi[:, :2] = 1
    expected = shm.sf_to_sh(
        dwi[:, 2:], sphere(xyz=gradients[2:]), sh_order_max=6, basis_type="descoteaux07", smooth=0.006, legacy=False
    )
    np.testing.assert_allclose(fit_harmonics(dwi * 700, bvalues, gradients, 6), expected, atol=1e-6)


def test_what_is_of_the_order_comes_back():
    bvalues, gradients = scheme()
    coefficients = np.random.default_rng(2).normal(size=(2, 3, 15)) * 0.02
    coefficients[..., 0] = 1.5
    signal = coefficients @ basis(4, gradients[2:]).T
    dwi = np.concatenate([np.ones((2, 3, 2)), signal], axis=-1) * 300
    assert signal.min() > 0 and signal.max() < 1
    np.testing.assert_allclose(fit_harmonics(dwi, bvalues, gradients, 4, smooth=0), coefficients, atol=1e-6)


def test_one_shell_of_several_is_fitted():
    bvalues, gradients = scheme()
    dwi = np.random.default_rng(1).uniform(0.1, 0.9, (3, 66))
    both = np.concatenate([bvalues, [3010.0, 2990.0]]), np.concatenate([gradients, directions(2, 9)])
    more = np.concatenate([dwi, np.full((3, 2), 0.5)], axis=1)
    with pytest.raises(UsageError, match=r"not one shell, but there are the b-values 1000, 3000"):
        fit_harmonics(more, *both)
    with pytest.raises(UsageError, match=r"no shell at b = 2000"):
        fit_harmonics(more, *both, shell=2000)
    np.testing.assert_array_equal(fit_harmonics(more, *both, shell=1000), fit_harmonics(dwi, bvalues, gradients))


def test_voxels_without_a_signal_are_zero_and_the_signal_is_cut_to_one():
    bvalues, gradients = scheme()
    dwi = np.full((4, 66), 0.5)
    dwi[0, :2], dwi[1, 9], dwi[2, 2:] = 0, np.inf, 90
    found = fit_harmonics(dwi, bvalues, gradients)
    assert (found[:2] == 0).all()
    ones = basis(0, gradients[2:])[0, 0]
    np.testing.assert_allclose(found[2], [1 / ones, *[0] * 27], atol=1e-4)


def test_turned_coefficients_are_a_turned_function():
    coefficients, rotation, where = np.random.default_rng(0).normal(size=(4, 45)), turn(), directions(40, 3)
    turned = rotate(coefficients, rotation)
    # The turned function has at R d what the other has at d.
    np.testing.assert_allclose(turned @ basis(8, where @ rotation.T).T, coefficients @ basis(8, where).T, atol=1e-12)
    np.testing.assert_allclose(rotate(turned, rotation.T), coefficients, atol=1e-12)
    matrix = rotation_matrix(8, np.stack([rotation, np.eye(3)]))
    np.testing.assert_allclose(matrix[0] @ matrix[0].T, np.eye(45), atol=1e-12)
    np.testing.assert_allclose(matrix[1], np.eye(45), atol=1e-12)
    assert (matrix[0][degrees(8)[:, None] != degrees(8)] == 0).all()


def test_counts_and_orders():
    assert [count_of(order) for order in (0, 2, 4, 6, 8)] == [1, 6, 15, 28, 45]
    assert [order_of(count) for count in (1, 6, 15, 28, 45)] == [0, 2, 4, 6, 8]
    for call, given in ((count_of, 3), (count_of, -2), (order_of, 7)):
        with pytest.raises(UsageError):
            call(given)


def test_gradients_that_do_not_fit_are_refused():
    bvalues, gradients = scheme()
    dwi = np.ones((2, 66))
    with pytest.raises(UsageError, match="no volume without a gradient"):
        fit_harmonics(dwi[:, 2:], bvalues[2:], gradients[2:])
    with pytest.raises(UsageError, match="0 0 0"):
        fit_harmonics(dwi, bvalues, np.zeros_like(gradients))
    with pytest.raises(UsageError, match="as many volumes"):
        fit_harmonics(dwi[:, 1:], bvalues, gradients)
