from __future__ import annotations

import warnings

import numpy as np
import pytest
from turns import directions, turn

from treadle.errors import UsageError
from treadle.tracts.signal.tensor import (
    fit_tensors,
    fractional_anisotropy,
    matrices,
    normalised,
    principal,
    rotate,
    rotation_matrix,
)


def scheme():
    bvalues = np.array([0.0] * 3 + [1000.0] * 30)
    return bvalues, np.concatenate([np.zeros((3, 3)), directions(30)])


def truth(shape=(4, 5), seed=1):
    rng = np.random.default_rng(seed)
    values = np.array([1.7e-3, 4e-4, 2e-4])
    found = np.empty((*shape, 6))
    for index in np.ndindex(*shape):
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        matrix = axes @ np.diag(values) @ axes.T
        found[index] = matrix[np.triu_indices(3)]
    return found


def signal(tensors, bvalues, gradients, size=800.0):
    along = np.einsum("ni,...ij,nj->...n", gradients, matrices(tensors), gradients)
    return size * np.exp(-bvalues * along)


def test_a_signal_without_noise_gives_its_tensor_back():
    bvalues, gradients = scheme()
    tensors = truth()
    np.testing.assert_allclose(fit_tensors(signal(tensors, bvalues, gradients), bvalues, gradients), tensors, atol=1e-9)


def test_noisy_fits_are_those_of_dipy():
    dti = pytest.importorskip("dipy.reconst.dti")
    gradients_of = pytest.importorskip("dipy.core.gradients").gradient_table
    bvalues, gradients = scheme()
    clean = signal(truth(), bvalues, gradients)
    noisy = np.abs(clean + np.random.default_rng(3).normal(size=clean.shape) * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = dti.TensorModel(gradients_of(bvalues, bvecs=gradients), fit_method="WLS").fit(noisy)
    ours = fit_tensors(noisy, bvalues, gradients)
    lower = fitted.lower_triangular()  # xx xy yy xz yz zz
    np.testing.assert_allclose(ours, lower[..., [0, 1, 3, 2, 4, 5]], atol=2e-9)
    np.testing.assert_allclose(fractional_anisotropy(ours), fitted.fa, atol=1e-5)
    agreement = np.abs((principal(ours) * fitted.evecs[..., 0]).sum(axis=-1))
    assert agreement.min() > 1 - 1e-6


def test_voxels_without_a_signal_have_no_tensor():
    bvalues, gradients = scheme()
    dwi = signal(truth((4,)), bvalues, gradients)
    dwi[1], dwi[2, 5], dwi[3, 7] = 0, np.nan, 0
    found = fit_tensors(dwi, bvalues, gradients)
    assert (found[1:3] == 0).all() and np.isfinite(found).all() and (found[[0, 3]] != 0).all()
    assert (principal(found)[1] == 0).all() and fractional_anisotropy(found)[1] == 0
    assert (normalised(found)[1] == 0).all()


def test_normalised_tensors_say_directions_alone():
    tensors = truth()
    found = normalised(tensors)
    np.testing.assert_allclose(found[..., [0, 3, 5]].sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(normalised(tensors * 7), found, atol=1e-6)
    np.testing.assert_allclose(found * 2.3e-3, tensors, atol=1e-9)
    # An eigenvalue below 0 counts as 0.
    np.testing.assert_allclose(normalised(np.array([3.0, 0, 0, 1, 0, -2])), [0.75, 0, 0, 0.25, 0, 0], atol=1e-7)
    assert (normalised(np.array([-3.0, 0, 0, -1, 0, -2])) == 0).all()


def test_anisotropy_of_a_line_and_of_a_ball():
    np.testing.assert_allclose(fractional_anisotropy(np.array([[1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 1, 0, 1]])), [1, 0])
    below, without = np.array([3.0, 0, 0, 1, 0, -2]), np.array([3.0, 0, 0, 1, 0, 0])
    assert fractional_anisotropy(below) == fractional_anisotropy(without) < 1


def test_a_turned_tensor_is_turned():
    tensors, rotation = truth(), turn()
    expected = rotation @ matrices(tensors) @ rotation.T
    np.testing.assert_allclose(matrices(rotate(tensors, rotation)), expected, atol=1e-18)
    stacked = rotation_matrix(np.stack([rotation, np.eye(3)]))
    np.testing.assert_allclose(stacked[0], rotation_matrix(rotation))
    np.testing.assert_allclose(stacked[1], np.eye(6), atol=1e-15)
    along = principal(rotate(tensors, rotation))
    assert np.abs((along * (principal(tensors) @ rotation.T)).sum(axis=-1)).min() > 1 - 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, b, g: (d[..., :-1], b, g), "as many volumes"),
        (lambda d, b, g: (d, b, g[:, :2]), "as many volumes"),
        (lambda d, b, g: (d[..., 3:], b[3:], g[3:]), "do not determine"),
        (lambda d, b, g: (d, b, np.tile(g[3], (33, 1))), "do not determine"),
        (lambda d, b, g: (d, b * np.nan, g), "NaN"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(change, words):
    bvalues, gradients = scheme()
    with pytest.raises(UsageError, match=words):
        fit_tensors(*change(signal(truth(), bvalues, gradients), bvalues, gradients))
