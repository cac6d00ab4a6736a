from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.splats.cloud import Cloud
from treadle.splats.rendering import normals_of, render

CAMERA = Camera(20, 16, 20.0, 20.0, 10.0, 8.0, np.eye(4))


def one(depth: float = 4.0, opacity: float = 0.9) -> Cloud:
    """A flat splat that faces the camera, thinner than it is wide."""
    scales = torch.tensor([[0.5, 0.5, 0.01]])
    return Cloud(
        torch.tensor([[0.0, 0.0, depth]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scales.log(),
        torch.tensor([opacity]).logit(), torch.tensor([[1.0, 0.0, -1.0]]),
        torch.zeros(1, 15, 3), {"label": torch.tensor([[0.25, 4.0]])},
    )  # fmt: skip


def test_all_that_can_be_seen_of_a_splat() -> None:
    background = torch.tensor([0.1, 0.2, 0.3])
    seen = render(one(), CAMERA, background=background, depth=True, normals=True, extra=["label"])
    assert seen.image.shape == (16, 20, 3) and seen.depth.shape == seen.alpha.shape == (16, 20)
    middle, corner = (8, 10), (0, 0)
    alpha = seen.alpha[middle].item()
    assert 0.85 < alpha <= 0.9 and seen.alpha[corner] == 0
    color = 0.5 + 0.28209479 * torch.tensor([1.0, 0.0, -1.0])
    torch.testing.assert_close(seen.image[middle], alpha * color + (1 - alpha) * background)
    torch.testing.assert_close(seen.image[corner], background)
    assert seen.depth[middle].item() == pytest.approx(4) and seen.depth[corner] == 0
    torch.testing.assert_close(seen.normals[middle], torch.tensor([0.0, 0.0, -alpha]))
    torch.testing.assert_close(seen.extra["label"][middle], alpha * torch.tensor([0.25, 4.0]))
    plain = render(one(), CAMERA, background=background)
    torch.testing.assert_close(plain.image, seen.image)
    assert plain.depth is None and plain.normals is None and plain.extra == {}


def test_depth_is_the_mean_of_what_is_seen_and_not_of_what_is_behind() -> None:
    near, far = one(2.0, 0.5), one(8.0, 0.99)
    far.log_scales += 2
    both = Cloud(*(torch.cat([getattr(near, name), getattr(far, name)]) for name in
                   ("means", "quaternions", "log_scales", "logits", "dc", "rest")))  # fmt: skip
    seen = render(both, CAMERA, depth=True)
    a, b = 0.5, 0.99 * 0.5
    assert seen.depth[8, 10].item() == pytest.approx((a * 2 + b * 8) / (a + b), rel=0.02)


def test_a_pose_goes_before_the_cameras_and_gets_a_gradient() -> None:
    pose = torch.eye(4)
    pose[0, 3] = 0.6  # the splat is 3 pixels further right
    pose.requires_grad_()
    seen = render(one(), CAMERA, pose=pose)
    assert seen.projection.centers[0].tolist() == pytest.approx([13, 8])
    seen.image[:, 14:].sum().backward()
    assert pose.grad[0, 3] > 0, "to the right there would be more of it there"
    shifted = np.eye(4)
    shifted[0, 3] = 0.6
    assert torch.equal(render(one(), replace(CAMERA, world_to_camera=shifted)).image, seen.image)


def test_harmonics_up_to_a_degree() -> None:
    cloud = one()
    cloud.rest[0, 1] = 1.0  # along z
    assert torch.equal(render(cloud, CAMERA, degree=0).image, render(one(), CAMERA).image)
    assert render(cloud, CAMERA).image[8, 10, 1] > render(one(), CAMERA).image[8, 10, 1] + 0.2
    assert torch.equal(render(cloud, CAMERA, degree=3).image, render(cloud, CAMERA).image)
    few = replace(cloud, rest=cloud.rest[:, :3].contiguous())
    assert torch.equal(render(few, CAMERA, degree=3).image, render(cloud, CAMERA, degree=1).image)


def test_splats_smaller_than_a_pixel_are_fainter_where_it_is_antialiased() -> None:
    cloud = one()
    cloud.log_scales[:] = -6
    thick, thin = render(cloud, CAMERA).alpha.sum(), render(replace(cloud, antialiased=True), CAMERA).alpha.sum()
    assert 0 <= thin < 0.01 * thick
    large = replace(one(), antialiased=True)
    assert render(large, CAMERA).alpha.sum() == pytest.approx(render(one(), CAMERA).alpha.sum().item(), rel=0.1)


def test_normals_are_the_shortest_axes_and_face_the_eye() -> None:
    cloud = one()
    cloud.quaternions[0] = torch.tensor([1.0, 1.0, 0.0, 0.0])  # a quarter turn about x: the thin axis along y
    for eye, expected in (((0.0, 5.0, 4.0), 1.0), ((0.0, -5.0, 4.0), -1.0)):
        normal = normals_of(cloud, torch.tensor(eye))[0]
        assert normal.tolist() == pytest.approx([0, expected, 0], abs=1e-6)


def test_nothing_at_all_and_an_unknown_attribute() -> None:
    none = Cloud(*(getattr(one(), name)[:0] for name in ("means", "quaternions", "log_scales", "logits", "dc", "rest")))
    seen = render(none, CAMERA, background=torch.ones(3), depth=True)
    assert (seen.image == 1).all() and (seen.depth == 0).all()
    with pytest.raises(UsageError, match="the splats have no attribute 'labels'; did you mean 'label'"):
        render(one(), CAMERA, extra=["labels"])


def test_what_is_too_near_is_not_drawn() -> None:
    assert render(one(4.0), CAMERA, near=3.9).alpha.max() > 0.5
    assert render(one(4.0), CAMERA, near=4.1).alpha.max() == 0
    assert render(one(0.25), CAMERA).alpha.max() > 0.5 and render(one(0.15), CAMERA).alpha.max() == 0
