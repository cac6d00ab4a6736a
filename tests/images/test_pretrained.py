from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from treadle.errors import UsageError
from treadle.images.pixels import seen_by_networks
from treadle.images.pretrained import fill, read_tensors


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def read(path, network):
    fill(network, read_tensors(path, "a small network"), path, "a small network")


def test_filled_networks_hold_the_file_and_are_for_evaluation(network, weights_file):
    path = weights_file(network, lambda tensors: tensors.update(extra=torch.zeros(1)))
    read(path, network)
    tensors = read_tensors(path, "a small network")
    assert set(tensors) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "extra"}
    for name in set(tensors) - {"extra"}:
        assert torch.equal(network.state_dict()[name], tensors[name])
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_half_precision_files_are_widened(network, weights_file):
    path = weights_file(network, lambda tensors: tensors.update({"0.bias": torch.ones(4).half()}))
    read(path, network)
    assert network[0].bias.dtype == torch.float32
    assert network[0].bias.tolist() == [1, 1, 1, 1]


def without(name):
    return lambda tensors: tensors.pop(name)


def with_(name, value):
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("1.running_var"), "does not hold the weights of a small network: it has no tensor '1.running_var'"),
        (with_("0.bias", torch.zeros(5)), r"'0.bias' has the shape \(5,\), expected \(4,\)"),
        (with_("0.bias", torch.full((4,), math.nan)), "damaged: '0.bias' has values that are NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_named(network, weights_file, change, message):
    path = weights_file(network, change)
    with pytest.raises(UsageError, match=message) as caught:
        read(path, network)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_safetensors_file_is_refused(tmp_path, network):
    with pytest.raises(UsageError, match=r"no file .*missing.safetensors: expected the weights of a small network"):
        read(tmp_path / "missing.safetensors", network)
    torch.save({"0.bias": torch.zeros(4)}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"weights.pth is not a safetensors file .*convert"):
        read(tmp_path / "weights.pth", network)


@pytest.mark.parametrize(("channels", "kept"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])])
def test_rgb(noise, channels, kept):
    picture = noise(0, channels=channels)
    seen = seen_by_networks(picture.double() + 0.3 / 127.5)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, picture[:, kept])


def test_rgb_clips():
    assert seen_by_networks(torch.tensor([-5.0, 5.0]).reshape(1, 1, 1, 2))[0, 2, 0].tolist() == [-1, 1]
