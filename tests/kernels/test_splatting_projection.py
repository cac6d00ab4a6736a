"""Projection and spherical harmonics, against the reference, finite differences, and formulas written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from treadle.kernels.splatting import project, spherical_harmonics
from treadle.kernels.splatting_reference import harmonics, project_reference, spherical_harmonics_reference

SIZE, LENS = (40, 30), (45.0, 50.0, 21.0, 14.0)
BOTH = pytest.mark.parametrize("function", [project, project_reference])
DOUBLE = torch.float64


def cloud(count=8, seed=0, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    means = spread * torch.randn(count, 3, generator=generator, dtype=DOUBLE)
    quaternions = torch.randn(count, 4, generator=generator, dtype=DOUBLE)
    scales = 0.1 * torch.randn(count, 3, generator=generator, dtype=DOUBLE).exp()
    opacities = torch.rand(count, generator=generator, dtype=DOUBLE) * 0.9 + 0.05
    pose = torch.eye(4, dtype=DOUBLE)
    pose[2, 3] = 3.0
    return means, quaternions, scales, opacities, pose


def one(mean, scale=(0.1, 0.1, 0.1), opacity=0.5, dtype=DOUBLE, function=project, **options):
    """The projection of one splat, not turned, in the camera's own frame."""
    turn = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=dtype)
    rows = torch.tensor([mean], dtype=dtype), turn, torch.tensor([scale], dtype=dtype)
    return function(*rows, torch.tensor([opacity], dtype=dtype), torch.eye(4, dtype=dtype), LENS, SIZE, **options)


def by_hand(mean, quaternion, scale, opacity, pose):
    """One splat with numpy's own inverse and determinant."""
    fx, fy, cx, cy = LENS
    rotation = pose[:3, :3]
    t = rotation @ mean + pose[:3, 3]
    w, (x, y, z) = quaternion[0], quaternion[1:]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + 2 * (w * cross + cross @ cross) / (quaternion @ quaternion)
    limits = [
        (-c / f - 0.15 * p / f, (p - c) / f + 0.15 * p / f) for f, c, p in zip(LENS, LENS[2:], SIZE, strict=False)
    ]
    u, v = (np.clip(t[k] / t[2], *limits[k]) for k in range(2))
    jacobian = np.array([[fx, 0, -fx * u], [0, fy, -fy * v]]) / t[2]
    half = jacobian @ rotation @ turn @ np.diag(scale)
    sharp = half @ half.T
    blurred = sharp + 0.3 * np.eye(2)
    conic = np.linalg.inv(blurred)
    compensation = math.sqrt(np.linalg.det(sharp) / np.linalg.det(blurred))
    reach = min(3.33, math.sqrt(2 * math.log(255 * opacity * compensation)))
    center = np.array([fx * t[0] / t[2] + cx, fy * t[1] / t[2] + cy])
    return center, conic[[0, 0, 1], [0, 1, 1]], t[2], compensation, reach * np.sqrt(np.diag(blurred))


@BOTH
def test_both_paths_follow_the_definition(function):
    means, quaternions, scales, opacities, pose = cloud()
    pose[:3, :3] = torch.linalg.qr(torch.eye(3, dtype=DOUBLE) + 0.2 * means[:3])[0]
    pose[:3, :3] *= pose[:3, :3].diagonal().sign()
    found = function(means, quaternions, scales, opacities, pose, LENS, SIZE, antialiased=True)
    assert (found.extents > 0).all()
    for row in range(len(means)):
        wanted = by_hand(*(value[row].numpy() for value in (means, quaternions, scales, opacities)), pose.numpy())
        for values, expected in zip(found, wanted, strict=True):
            np.testing.assert_allclose(values[row].numpy(), expected, rtol=1e-9)


@BOTH
@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_equal_finite_differences(function, antialiased):
    means, quaternions, scales, opacities, pose = cloud(5)
    means[0] = torch.tensor([2.6, 0.1, 0.3])  # beyond the clamp, in the picture by its size
    scales[0] = torch.tensor([0.9, 0.7, 0.5])
    assert (project(means, quaternions, scales, opacities, pose, LENS, SIZE).extents > 0).all()

    def all_but_boxes(*leaves):
        return function(*leaves[:3], opacities, leaves[3], LENS, SIZE, antialiased=antialiased)[:4]

    leaves = [value.clone().requires_grad_() for value in (means, quaternions, scales, pose)]
    assert torch.autograd.gradcheck(all_but_boxes, leaves, eps=1e-6, atol=1e-6, rtol=1e-6)


def test_many_splats_equal_the_reference_with_their_gradients():
    leaves = [value.requires_grad_() for value in cloud(3000, seed=1, spread=2.0)]
    results = []
    for function in (project, project_reference):
        flat = function(*leaves, LENS, SIZE)
        weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE) for x in flat[:3]]
        total = sum((x * w).sum() for x, w in zip(flat, weights, strict=False))
        wanted = [leaf for leaf in leaves if leaf is not leaves[3]]
        results.append([*flat, *torch.autograd.grad(total, wanted)])
    shown = (results[0][4][:, 0] > 0).sum()
    assert 300 < shown < 2700  # some are culled, for every reason there is
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())


@BOTH
@pytest.mark.parametrize(
    ("what", "mean", "more"),
    [
        ("behind the camera", (0.0, 0.0, -1.0), {}),
        ("nearer than near", (0.0, 0.0, 0.19), {}),
        ("to the left", (-30.0, 0.0, 5.0), {}),
        ("below", (0.0, 30.0, 5.0), {}),
        ("transparent", (0.0, 0.0, 5.0), {"opacity": 0.0039}),
        ("without opacity", (0.0, 0.0, 5.0), {"opacity": 0.0}),
        ("too thin for its opacity", (0.0, 0.0, 5.0), {"scale": (1e-4, 1e-4, 1e-4), "antialiased": True}),
        ("not a number", (math.nan, 0.0, 5.0), {}),
        ("of infinite depth", (0.0, 0.0, math.inf), {}),
        ("of no number's size", (0.0, 0.0, 5.0), {"scale": (math.nan, 0.1, 0.1)}),
        ("of infinite size", (0.0, 0.0, 5.0), {"scale": (math.inf, 0.1, 0.1)}),
        ("of no number's opacity", (0.0, 0.0, 5.0), {"opacity": math.nan}),
    ],
)
def test_culled_is_zero_and_gets_no_gradient(function, what, mean, more):
    flat = one(mean, function=function, **more)
    for name in ("centers", "conics", "depths", "extents"):
        assert (getattr(flat, name) == 0).all(), name
    means, quaternions, scales, opacities, pose = (value.clone() for value in cloud(2))
    means[1], opacities[1] = torch.tensor(mean) - pose[:3, 3], more.get("opacity", 0.5)
    scales[1], quaternions[1] = torch.tensor(more.get("scale", (0.1, 0.1, 0.1))), torch.tensor([1.0, 0, 0, 0])
    leaves = [value.requires_grad_() for value in (means, quaternions, scales, pose)]
    antialiased = more.get("antialiased", False)
    flat = function(*leaves[:3], opacities, pose, LENS, SIZE, antialiased=antialiased)
    assert flat.extents[:, 0].gt(0).tolist() == [True, False]
    *rows, of_pose = torch.autograd.grad(sum(x.sum() for x in flat[:4]), leaves)
    assert of_pose.isfinite().all()
    for gradient in rows:
        assert gradient.isfinite().all() and gradient[0].abs().sum() > 0 and (gradient[1] == 0).all()


@BOTH
def test_a_quaternion_of_zero_is_culled(function):
    means, quaternions, scales, opacities, pose = cloud(2)
    quaternions[1] = 0
    assert function(means, quaternions, scales, opacities, pose, LENS, SIZE).extents[:, 0].gt(0).tolist() == [
        True,
        False,
    ]


@BOTH
def test_just_within_near_and_just_opaque_enough_are_kept(function):
    assert (one((0.0, 0.0, 0.2), function=function).extents > 0).all()
    assert (one((0.0, 0.0, 5.0), opacity=0.00393, function=function, scale=(1.0, 1.0, 1.0)).extents > 0).all()


def test_huge_and_needle_thin_splats_keep_a_conic_in_float32():
    huge = one((0.0, 0.0, 5.0), scale=(1e4, 1e4, 1e4), dtype=torch.float32)
    assert (huge.extents > 1e4).all() and huge.conics.isfinite().all()
    assert huge.conics[0, 0] > 0 and huge.conics[0, 2] > 0
    # A needle of 1,000 : 1 across the diagonal: by the difference of products, float32 would leave nothing of its det.
    turn = torch.tensor([[math.cos(math.pi / 8), 0, 0, math.sin(math.pi / 8)]])
    rows = torch.tensor([[0.0, 0.0, 5.0]]), turn, torch.tensor([[500.0, 1e-3, 1e-3]]), torch.tensor([0.9])
    needle = project(*rows, torch.eye(4), LENS, SIZE)
    exact = project_reference(*(row.double() for row in rows), torch.eye(4, dtype=DOUBLE), LENS, SIZE)
    torch.testing.assert_close(needle.conics.double(), exact.conics, rtol=1e-4, atol=0)


def test_no_splats_at_all():
    nothing = [torch.zeros(0, *shape, requires_grad=True) for shape in ((3,), (4,), (3,), ())]
    pose = torch.eye(4, requires_grad=True)
    flat = project(*nothing, pose, LENS, SIZE)
    assert [tuple(value.shape) for value in flat] == [(0, 2), (0, 3), (0,), (0,), (0, 2)]
    assert (torch.autograd.grad(flat.centers.sum(), pose)[0] == 0).all()
    dc, rest, eye = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 15, 3), torch.zeros(3)
    colors = spherical_harmonics(dc, rest, nothing[0], eye, 3)
    assert colors.shape == (0, 3) and torch.autograd.grad(colors.sum(), dc)[0].shape == (0, 3)


def test_strided_parameters_give_the_same():
    means, quaternions, scales, opacities, pose = cloud(6)
    wide = torch.zeros(6, 6, dtype=DOUBLE)
    wide[:, ::2] = means
    turned = torch.empty(4, 6, dtype=DOUBLE).copy_(quaternions.T).T
    results = []
    for leaves in ((means.clone(), quaternions.clone()), (wide[:, ::2], turned)):
        leaves = [leaf.requires_grad_() for leaf in leaves]
        flat = project(*leaves, scales, opacities, pose, LENS, SIZE)
        results.append([*flat, *torch.autograd.grad(flat.conics.sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_harmonics_are_orthonormal_in_the_order_of_the_files():
    nodes, weights = np.polynomial.legendre.leggauss(8)
    turns = np.arange(16) * (2 * math.pi / 16)
    z, turn = (grid.ravel() for grid in np.meshgrid(nodes, turns, indexing="ij"))
    flat = np.sqrt(1 - z * z)
    directions = torch.from_numpy(np.stack((flat * np.cos(turn), flat * np.sin(turn), z), axis=1))
    bases = harmonics(directions, 3).numpy()
    area = np.repeat(weights, 16) * (2 * math.pi / 16)
    np.testing.assert_allclose(bases.T @ (area[:, None] * bases), np.eye(16), atol=1e-12)
    slope = math.sqrt(3 / (4 * math.pi))
    np.testing.assert_allclose(bases[:, 1:4], slope * directions.numpy()[:, [1, 2, 0]] * [-1, 1, -1], atol=1e-12)
    # Those of order m vary as the m-th power of x + i y: m = -l ... l within each degree.
    for degree in range(4):
        for order in range(-degree, degree + 1):
            wave = np.sin(-order * turn) if order < 0 else np.cos(order * turn)
            column = bases[:, degree * (degree + 1) + order]
            share = (column * wave).reshape(8, 16).sum(1) / (wave * wave).reshape(8, 16).sum(1)
            np.testing.assert_allclose(column.reshape(8, 16), share[:, None] * wave.reshape(8, 16), atol=1e-12)


def colored(count=40, kept=15):
    generator = torch.Generator().manual_seed(4)
    dc = torch.randn(count, 3, generator=generator, dtype=DOUBLE)
    rest = 0.5 * torch.randn(count, kept, 3, generator=generator, dtype=DOUBLE)
    means = torch.randn(count, 3, generator=generator, dtype=DOUBLE)
    return [*(value.requires_grad_() for value in (dc, rest, means)), torch.tensor([0.3, -0.2, -3.0], dtype=DOUBLE)]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colors_equal_the_reference_with_their_gradients(degree):
    leaves = colored()
    leaves[3].requires_grad_()
    visible = torch.arange(40) % 3 > 0
    results = []
    for function in (spherical_harmonics, spherical_harmonics_reference):
        colors = function(*leaves, degree, visible)
        weights = torch.randn(colors.shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
        total = (colors * weights).sum()
        results.append([colors, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    colors, *gradients = results[0]
    assert (colors[~visible] == 0).all() and all((gradient[~visible] == 0).all() for gradient in gradients[:3])
    assert (gradients[1][:, (degree + 1) ** 2 - 1 :] == 0).all()
    assert ((colors == 0)[visible] == (gradients[0] == 0)[visible]).all()  # what is clipped gets nothing


def test_colors_of_gradients_equal_finite_differences():
    leaves = [value.detach().requires_grad_() for value in colored(6)]
    assert torch.autograd.gradcheck(lambda *x: spherical_harmonics(*x, 3), leaves, eps=1e-6, atol=1e-7)


def test_a_splat_at_the_eye_and_one_that_is_no_number():
    dc, rest, means, eye = (value.detach() for value in colored(3))
    means[0] = eye
    means[1] = math.nan
    means.requires_grad_()
    for function in (spherical_harmonics, spherical_harmonics_reference):
        colors = function(dc, rest, means, eye, 1)
        torch.testing.assert_close(colors[0], (0.28209479177387814 * dc[0] + 0.5).clamp(min=0))
        assert colors[1].isnan().all() and colors[2].isfinite().all()
        gradient = torch.autograd.grad(colors[0].sum(), means)[0]
        assert (gradient[0] == 0).all()
