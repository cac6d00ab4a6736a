"""The SPADE generator: its formula, noise that is drawn or fixed, any size, gradients everywhere, as ONNX too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.export.onnx import Exportable, write_onnx
from treadle.gans.spade import SpadeGenerator, Stage, drawn_noise, key_of, still_noise


def one_hot(n=1, classes=4, height=16, width=24):
    labels = torch.randint(classes, (n, height, width), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def noisy(network):
    """With as much noise as training may have given it; it begins with none."""
    torch.manual_seed(1)
    for stage in network.decoder:
        torch.nn.init.normal_(stage.noise)
    return network


@settings(max_examples=20, deadline=None)
@given(
    classes=st.integers(1, 5),
    channels=st.integers(1, 4),
    features=st.integers(1, 5),
    downs=st.integers(2, 4),
    rows=st.integers(2, 3),
    columns=st.integers(2, 4),
)
def test_any_options_keep_the_size_and_the_range(classes, channels, features, downs, rows, columns):
    network = SpadeGenerator(classes, channels, features=features, downs=downs)
    assert (network.multiple, network.least) == (2**downs, 2 * 2**downs)
    x = torch.rand(2, classes, rows * network.multiple, columns * network.multiple)
    out = network(x)
    assert out.shape == (2, channels, *x.shape[2:]) and out.abs().max() <= 1


@pytest.mark.parametrize("n", [1, 2])
def test_a_stage_is_its_formula(n):
    torch.manual_seed(0)
    stage = Stage(5, 4, 3).double().eval()
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter)
    x, kept, told = (torch.randn(n, c, s, s, dtype=torch.float64) for c, s in ((3, 4), (2, 8), (3, 8)))
    joined = torch.cat([torch.nn.functional.interpolate(x, (8, 8), mode="bilinear"), kept], 1)
    continued = torch.nn.functional.pad(joined, (1, 1, 1, 1), "replicate")
    found = torch.nn.functional.conv2d(continued, stage.conv.weight)
    key = torch.arange(n)
    found = found + stage.noise * still_noise(found, key)
    mean, deviation = found.mean((2, 3), keepdim=True), found.var((2, 3), unbiased=False, keepdim=True) + 1e-5
    found = (found - mean) / deviation.sqrt()
    table, shifts = stage.modulation.weight[:, :, 0, 0], stage.modulation.bias
    modulation = torch.einsum("oc,nchw->nohw", table, told) + shifts[:, None, None]
    found = found * (1 + modulation[:, :4]) + modulation[:, 4:]
    torch.testing.assert_close(stage(x, kept, told, key), found.where(found > 0, 0.2 * found))


def test_a_batch_of_one_is_normalized_in_training_as_in_evaluation(monkeypatch):
    network, x = noisy(SpadeGenerator(4, features=4, downs=2)), one_hot()
    monkeypatch.setattr("treadle.gans.spade.drawn_noise", lambda values: still_noise(values, key_of(x)))
    torch.testing.assert_close(network.train()(x), network.eval()(x), rtol=1e-4, atol=1e-5)


def test_every_parameter_is_trained():
    network = noisy(SpadeGenerator(4, 2, features=4, downs=3)).train()
    (network(one_hot(1, 4, 16, 16)) - 0.5).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_in_training_noise_is_drawn_and_in_evaluation_the_output_is_a_function_of_the_input():
    network, x = noisy(SpadeGenerator(4, features=4, downs=2)), one_hot()
    torch.manual_seed(0)
    first, second = network(x), network(x)
    torch.manual_seed(0)
    assert torch.equal(network(x), first) and not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(x), network(x))
    torch.testing.assert_close(network(x.expand(3, -1, -1, -1))[2:], network(x))


def test_noise_has_mean_0_and_variance_1_and_no_pattern():
    x = torch.zeros(2, 32, 128, 128)
    key = torch.tensor([3, 3])
    still, drawn = still_noise(x, key), drawn_noise(x)
    assert still.shape == drawn.shape == (2, 1, 128, 128)
    for noise in (still, drawn):
        assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
        power = torch.fft.fft2(noise[0, 0]).abs().square() / 128**2
        assert power.flatten()[1:].max() < 16  # white noise has 10 at most, where a lattice would have thousands
    large = still_noise(torch.zeros(1, 32, 200, 150), key[:1])
    assert torch.equal(large[..., :128, :128], still[:1]) and torch.equal(still[0], still[1])  # by place and picture
    for other in (still_noise(torch.zeros(1, 64, 128, 128), key[:1]), still_noise(x[:1], key[:1] + 1)):
        assert abs((still[:1] * other).mean()) < 0.03


def test_pictures_have_noise_of_their_own_in_a_batch_as_alone():
    network = noisy(SpadeGenerator(4, features=4, downs=2)).eval()
    first, second = one_hot(), one_hot().flip(1)
    assert key_of(torch.cat([first, second])).tolist() == [int(key_of(first)), int(key_of(second))]
    assert key_of(first) != key_of(second)
    torch.testing.assert_close(network(torch.cat([first, second])), torch.cat([network(first), network(second)]))


def test_flat_areas_have_texture_that_only_noise_can_give():
    torch.manual_seed(0)
    network, wall = SpadeGenerator(4, features=4, downs=2).eval(), torch.zeros(1, 4, 64, 64)
    wall[:, 1] = 1
    inner = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    assert network(wall)[inner].std((2, 3)).max() < 1e-6
    assert noisy(network)(wall)[inner].std((2, 3)).min() > 1e-3


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="multiples of 8, at least 16"):
        SpadeGenerator(4, features=2, downs=3)(torch.zeros(1, 4, 8, 16))


@pytest.mark.parametrize(("name", "least"), [("in_channels", 1), ("out_channels", 1), ("features", 1), ("downs", 2)])
def test_arguments_out_of_range_are_refused(name, least):
    with pytest.raises(UsageError, match=f"{name} is {least - 1}: expected a whole number of at least {least}"):
        SpadeGenerator(**{name: least - 1})


def test_it_leaves_as_onnx_with_its_noise(tmp_path):
    pytest.importorskip("onnxruntime")
    network = noisy(SpadeGenerator(4, features=4, downs=2)).eval()
    shapes = write_onnx(Exportable(network, (4, 32, 32), {2: "height", 3: "width"}, 4), tmp_path / "spade.onnx")
    assert (1, 4, 36, 32) in shapes and max(shapes.values()) < 1e-5
