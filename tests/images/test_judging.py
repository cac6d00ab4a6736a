from __future__ import annotations

import math

import pytest
import torch

from treadle.images.judging import measure, psnr


def pair(offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.randint(0, 200, (12, 10, 3), generator=torch.Generator().manual_seed(0)) / 255
    return target + offset, target


def test_psnr_is_that_of_pictures_in_eight_bits() -> None:
    image, target = pair(0.1 / 255)
    assert measure(image, target) == {"psnr": math.inf, "ssim": pytest.approx(1), "l1": 0}
    found = measure(target + 10.2 / 255, target)
    assert found["psnr"] == pytest.approx(-20 * math.log10(10 / 255))
    assert found["l1"] == pytest.approx(10 / 255)
    assert 0.5 < found["ssim"] < 1
    assert measure(target * 0 + 7, target)["psnr"] == measure(target * 0 + 1, target)["psnr"], "brighter than white"


def test_an_empty_background_does_not_flatter_the_object() -> None:
    image, target = pair(0.0)
    inside = torch.zeros(12, 10, dtype=torch.bool)
    inside[3:6, 2:5] = True
    image = torch.where(inside[..., None], target + 20 / 255, target)
    found = measure(image, target, object=inside)
    assert found["psnr_object"] == pytest.approx(-20 * math.log10(20 / 255))
    assert found["psnr"] == pytest.approx(found["psnr_object"] - 10 * math.log10(9 / 120))


def test_what_is_masked_does_not_count() -> None:
    image, target = pair(0.0)
    mask = torch.ones(12, 10, dtype=torch.bool)
    mask[:6] = False
    image = torch.where(mask[..., None], target, 1 - target)
    found = measure(image, target, mask=mask, object=~mask)
    assert found["psnr"] == math.inf and found["ssim"] == pytest.approx(1) and found["l1"] == 0
    assert math.isnan(found["psnr_object"]), "there is nothing of the object left to measure"


def test_corrected_colours_leave_the_shape() -> None:
    image, target = pair(0.0)
    found = measure(image * 0.6 + 0.1, target, corrected=True)
    assert found["psnr_corrected"] > 45 > 25 > found["psnr"]
    assert "psnr_corrected" not in measure(image, target)


def test_what_is_not_finite_has_no_figure() -> None:
    image, target = pair(0.0)
    image[0, 0, 0] = math.nan
    assert math.isnan(measure(image, target)["psnr"])
    assert math.isnan(psnr(image, target, torch.zeros(12, 10, dtype=torch.bool)))
