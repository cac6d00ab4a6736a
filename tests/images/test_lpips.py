from __future__ import annotations

import math

import pytest
import torch

from treadle.errors import UsageError
from treadle.images.lpips import LPIPS, lpips_metric

# What the package `lpips` 0.1.4 gives for the same stand-in weights and pictures: two of noise; one, and itself faded.
REFERENCE = {
    "alex": (0.01098470576107502, 2.419922748231329e-05),
    "vgg": (0.008315355516970158, 3.4848340874304995e-05),
}


@pytest.mark.parametrize("classifier", ["alex", "vgg"])
def test_as_the_reference(classifier, weights_file, noise):
    metric = lpips_metric(weights_file(LPIPS(classifier)))
    x, y, faded = noise(0), noise(1), ((noise(0) * 0.8 + 1) * 127.5).round() / 127.5 - 1
    figures = metric(torch.cat([x, x, x]), torch.cat([y, faded, x]))
    assert figures[0] == pytest.approx(REFERENCE[classifier][0], rel=1e-4)
    assert figures[1] == pytest.approx(REFERENCE[classifier][1], rel=1e-4)
    assert figures[2] == 0


@pytest.fixture
def metric(weights_file):
    return lpips_metric(str(weights_file(LPIPS("alex"))))


def test_symmetric_and_each_pair_by_itself(metric, noise):
    x, y = torch.cat([noise(0), noise(1)]), torch.cat([noise(2), noise(3)])
    both = metric(x, y)
    assert both == pytest.approx(metric(y, x), rel=1e-5)
    assert both == pytest.approx(metric(x[:1], y[:1]) + metric(x[1:], y[1:]), rel=1e-4)
    assert both[0] != both[1]


def test_gray_counts_as_colour_and_alpha_does_not(metric, noise):
    x, y = noise(0, channels=1), noise(1, channels=1)
    expected = metric(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1))
    assert metric(x, y) == expected
    x, y = noise(0, channels=4), noise(1, channels=4)
    assert metric(x, y) == metric(x[:, :3], y[:, :3])


def test_no_gradients_no_autocast(metric, noise):
    x, y = noise(0).requires_grad_(), noise(1)
    expected = metric(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert metric(x, y) == expected


def test_not_finite(metric, noise):
    broken = noise(0)
    broken[0, 0, 0, 0] = math.nan
    assert math.isnan(metric(broken, noise(1))[0])


def test_the_smallest_pictures(metric, noise):
    assert metric(noise(0, (32, 32)), noise(1, (32, 32)))[0] > 0
    with pytest.raises(UsageError, match=r"at least 32 x 32 pixels, not \(1, 3, 31, 64\)"):
        metric(noise(0, (31, 64)), noise(1, (31, 64)))
    with pytest.raises(UsageError, match="one shape"):
        metric(noise(0), noise(1, (64, 64)))


def test_the_file_of_something_else_is_refused(weights_file):
    path = weights_file(torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(UsageError, match=r"does not hold the weights of LPIPS: it has no tensor 'net.slice1.0.weight'"):
        lpips_metric(path)
