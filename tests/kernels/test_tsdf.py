"""The fusion's kernel against its reference, on any number of threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from treadle.kernels import tsdf, tsdf_reference

SHAPE = (9, 7, 11)


def views(count: int) -> list[dict[str, object]]:
    """Rough depth pictures with holes, edges and unknown pixels, from cameras around, one of them inside the volume."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = turn * torch.det(turn)
        pose[2, 3] = 2.0 if number else 0.1
        depth = 2 + 0.05 * torch.randn(13, 17, generator=generator)
        depth[:4] += 1
        depth[5:7, 3:9] = torch.inf
        depth[9, ::3] = -1
        image = torch.rand(13, 17, 3, generator=generator)
        found.append({"depth": depth, "image": image, "world_to_camera": pose})
    return found


def volume() -> list[torch.Tensor]:
    return [torch.ones(SHAPE), torch.zeros(SHAPE), torch.zeros(*SHAPE, 4)]


def fused(module: Any, tensors: list[torch.Tensor], count: int = 5, band: float = 0.5) -> list[torch.Tensor]:
    for view in views(count):
        module.integrate(*tensors, (-0.9, -0.7, -1.1), 0.2, **view, intrinsics=(11.0, 12.0, 8.3, 6.1), truncation=band)
    return tensors


@pytest.mark.parametrize("band", [0.5, 5.0])
def test_the_kernel_sums_as_its_reference(band: float) -> None:
    found = fused(tsdf, volume(), band=band)
    expected = fused(tsdf_reference, [t.double() for t in volume()], band=band)
    assert torch.equal(found[1].double(), expected[1])
    assert torch.equal(found[2][..., 3].double(), expected[2][..., 3])
    torch.testing.assert_close(found[0].double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2].double(), expected[2], atol=1e-5, rtol=0)
    seen, near = expected[1] > 0, expected[2][..., 3] > 0
    assert 0.2 < seen.double().mean() < 1 and 0.1 < near.double().mean() <= seen.double().mean()
    assert band > 1 or (expected[0].min() < -0.5 and (expected[0][seen] == 1).any())


def test_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(fused(tsdf, volume()))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("place", range(3))
def test_what_does_not_fit_is_refused(place: int) -> None:
    for change in (lambda t: t.double(), lambda t: t[:-1], lambda t: t.transpose(0, 1)):
        tensors = volume()
        tensors[place] = change(tensors[place])
        with pytest.raises(ValueError, match=r"contiguous float32|do not fit"):
            fused(tsdf, tensors, 1)
