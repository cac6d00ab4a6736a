from __future__ import annotations

import math

import numpy as np
import torch

from treadle.cameras.poses import Exposures, Poses
from treadle.images.judging import color_corrected


def test_a_pose_is_the_files_own_until_it_has_learnt_otherwise() -> None:
    poses, pose = Poses(3), torch.randn(4, 4)
    assert torch.equal(poses(1, pose), pose)
    with torch.no_grad():
        poses.quaternions[1] = torch.tensor([2.0, 0.0, 0.0, 2.0])  # a quarter turn about z, of any length
        poses.translations[1] = torch.tensor([1.0, 2.0, 3.0])
    moved = poses(1, pose)
    turned = torch.stack([-pose[1], pose[0], pose[2]])
    expected = turned + torch.tensor([1.0, 2.0, 3.0])[:, None] * pose[3]
    assert torch.allclose(moved[:3], expected, atol=1e-6)
    assert torch.equal(poses(2, pose), pose)
    moved.sum().backward()
    assert (poses.translations.grad[[0, 2]] == 0).all() and (poses.translations.grad[1] != 0).any()


def test_an_exposure_is_an_affine_map_of_colours() -> None:
    exposures, image = Exposures(2), torch.rand(4, 5, 3)
    assert torch.equal(exposures(0, image), image)
    with torch.no_grad():
        exposures.affine.copy_(torch.randn(2, 3, 4))
    affine = (exposures.affine[1] - exposures.affine[0]) / 2 + torch.eye(3, 4)
    assert torch.allclose(exposures(1, image), image @ affine[:, :3].T + affine[:, 3], atol=1e-5)


def test_all_exposures_together_leave_the_colours() -> None:
    exposures, image = Exposures(5), torch.rand(4, 5, 3)
    with torch.no_grad():
        exposures.affine.copy_(torch.randn(5, 3, 4))
    mean = sum(exposures(index, image) for index in range(5)) / 5
    assert torch.allclose(mean, image, atol=1e-5)


def test_colour_correction_takes_out_any_affine_map_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((12, 10, 3), np.float32))
    target = image @ torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.7, 0.1], [0.05, 0.0, 0.8]]).T + 0.05
    assert (color_corrected(image, target) - target).abs().max() < 1e-4
    blurred = image.roll(3, 0)
    assert (color_corrected(blurred, image) - image).abs().mean() > 0.1
    mask = torch.ones(12, 10, dtype=torch.bool)
    mask[:6] = False
    spoiled = torch.where(mask[..., None], target, 1 - target)
    assert (color_corrected(image, spoiled, mask) - target).abs().max() < 1e-4
    flat = torch.full((4, 4, 3), 0.5)
    assert math.isclose(color_corrected(flat, flat).mean().item(), 0.5, abs_tol=1e-4)
