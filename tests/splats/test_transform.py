"""A cloud in other coordinates looks the same from where one stood; and cropping, thinning, turning up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.spz import read_spz, write_spz
from treadle.splats.transform import (
    harmonic_rotation,
    harmonics,
    inside,
    opaque,
    select,
    transformed,
)


def similarity(seed: int, factor: float = 1.0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = factor * q, random.normal(size=3)
    return matrix


def directions(seed: int, count: int = 50) -> NDArray[np.float64]:
    found = np.random.default_rng(seed).normal(size=(count, 3))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def colors(cloud: Cloud, towards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each splat in each direction: (n, directions, 3)."""
    basis = np.concatenate([harmonics(towards, degree) for degree in range(cloud.degree + 1)], 1)
    return np.einsum("dk,nkc->ndc", basis, torch.cat([cloud.dc[:, None], cloud.rest], 1).double().numpy())


def covariances(cloud: Cloud) -> NDArray[np.float64]:
    w, x, y, z = torch.nn.functional.normalize(cloud.quaternions.double(), dim=1).unbind(1)
    columns = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
               2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
               2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    spread = torch.stack(columns, 1).view(-1, 3, 3) * cloud.log_scales.double().exp()[:, None]
    return (spread @ spread.mT).numpy()


@pytest.mark.parametrize("degree", range(4))
def test_the_basis_is_orthonormal(degree: int) -> None:
    heights, weights = np.polynomial.legendre.leggauss(8)
    turns = np.arange(16) * np.pi / 8
    flat = np.sqrt(1 - heights**2)[:, None]
    grid = np.stack([flat * np.cos(turns), flat * np.sin(turns), np.broadcast_to(heights[:, None], (8, 16))], -1)
    basis = harmonics(grid.reshape(-1, 3), degree)
    gram = basis.T @ (basis * np.repeat(weights * np.pi / 8, 16)[:, None])
    np.testing.assert_allclose(gram, np.eye(2 * degree + 1), atol=1e-12)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("seed", range(3))
def test_harmonics_turn_exactly(degree: int, seed: int) -> None:
    rotation, towards = similarity(seed)[:3, :3], directions(seed)
    matrix = harmonic_rotation(rotation, degree)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2 * degree + 1), atol=1e-12)
    coefficients = np.random.default_rng(seed).normal(size=2 * degree + 1)
    before = harmonics(towards, degree) @ coefficients
    after = harmonics(towards @ rotation.T, degree) @ (matrix @ coefficients)
    np.testing.assert_allclose(after, before, atol=1e-12)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_it_looks_the_same_from_where_one_stood(cloud: Cloud, degree: int, factor: float) -> None:
    cloud = replace(cloud, rest=cloud.rest[:, : (degree + 1) ** 2 - 1], extra={"heat": cloud.logits})
    matrix = similarity(7, factor)
    found = transformed(cloud, matrix)
    linear, towards = matrix[:3, :3], directions(1)
    np.testing.assert_allclose(found.means, cloud.means.double().numpy() @ linear.T + matrix[:3, 3], atol=1e-6)
    expected = linear @ covariances(cloud) @ linear.T
    np.testing.assert_allclose(covariances(found), expected, atol=1e-6 * np.abs(expected).max())
    turned = towards @ (linear / factor).T
    np.testing.assert_allclose(colors(found, turned), colors(cloud, towards), atol=1e-6)
    assert torch.equal(found.logits, cloud.logits) and torch.equal(found.extra["heat"], cloud.extra["heat"])
    assert found.degree == degree and found.rest.dtype == found.means.dtype == torch.float32


def test_there_and_back_is_the_same(cloud: Cloud) -> None:
    matrix = similarity(3, 2.0)
    found = transformed(transformed(cloud, matrix), np.linalg.inv(matrix))
    for name in ("means", "log_scales", "rest"):
        torch.testing.assert_close(getattr(found, name), getattr(cloud, name), atol=2e-6, rtol=0)
    np.testing.assert_allclose(covariances(found), covariances(cloud), rtol=1e-4, atol=1e-8)


def test_spz_turns_about_x_as_a_similarity_does(cloud: Cloud, tmp_path: object) -> None:
    """Its table of signs is this rotation: the file holds what the turned cloud has."""
    from pathlib import Path

    half = np.diag([1.0, -1.0, -1.0, 1.0])
    assert isinstance(tmp_path, Path)
    write_spz(tmp_path / "a.spz", cloud)
    write_spz(tmp_path / "b.spz", transformed(cloud, half))
    a, b = read_spz(tmp_path / "a.spz"), read_spz(tmp_path / "b.spz")
    turned = transformed(a, half)
    torch.testing.assert_close(turned.means, b.means, atol=2e-4, rtol=0)
    assert float((turned.rest - b.rest).abs().max()) <= 16 / 128 + 1e-6
    assert float((turned.rest - b.rest).abs().mean()) < 0.01


@pytest.mark.parametrize("matrix", [np.diag([1, 1, -1, 1]), np.diag([1, 2, 1, 1]), np.eye(3), np.zeros((4, 4)),
                                    np.full((4, 4), np.nan)])  # fmt: skip
def test_other_matrices_are_refused(cloud: Cloud, matrix: NDArray[np.float64]) -> None:
    with pytest.raises(UsageError, match="splats can be turned"):
        transformed(cloud, matrix.astype(float))


def test_a_box_and_a_threshold_choose(cloud: Cloud) -> None:
    box = (-1.0, -2.0, -3.0, 0.5, 2.0, 3.0)
    rows = inside(cloud, box) & opaque(cloud, 0.5)
    expected = (cloud.means[:, 0] >= -1) & (cloud.means[:, 0] <= 0.5) & (cloud.logits >= 0)
    assert torch.equal(rows, expected) and 0 < int(rows.sum()) < 300
    found = select(replace(cloud, extra={"heat": cloud.logits}), rows)
    assert len(found) == len(found.extra["heat"]) == int(rows.sum()) and torch.equal(found.rest, cloud.rest[rows])
    assert opaque(cloud, 0).all()


def test_bad_choices_are_named(cloud: Cloud) -> None:
    for call, said in [
        (lambda: inside(cloud, (0, 0, 0, 1, 1)), "--crop 0,0,0,1,1: expected x0,y0,z0,x1,y1,z1"),
        (lambda: inside(cloud, (0, 0, 2, 1, 1, 1)), "the lower corner first"),
        (lambda: inside(cloud, (0, 0, float("nan"), 1, 1, 1)), "--crop"),
        (lambda: opaque(cloud, 1.5), "--min-opacity 1.5: expected 0 to 1"),
    ]:
        with pytest.raises(UsageError, match=said):
            call()
