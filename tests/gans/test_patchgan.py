"""The PatchGAN: receptive fields by gradients, the paper's size, spectral norm, errors in one line."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treadle.errors import UsageError
from treadle.gans.patchgan import HALVINGS, PatchGAN, least_size


def test_it_is_the_papers_discriminator():
    with torch.device("meta"):
        network = PatchGAN()
        assert network(torch.empty(1, 6, 256, 256)).shape == (1, 1, 30, 30)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_768_705
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 512, 1]
    assert [conv.stride[0] for conv in convolutions] == [2, 2, 2, 1, 1]
    assert [isinstance(layer[1], nn.BatchNorm2d) for layer in network.layers[:-1]] == [False, True, True, True]


@pytest.mark.parametrize("field", HALVINGS)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_logit_sees_exactly_its_field(field, norm):
    """In float64 and with positive weights no gradient within the field can cancel or vanish."""
    torch.manual_seed(0)
    network = PatchGAN(1, features=2, field=field, norm=norm).double().eval()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    x = torch.rand(1, 1, 2 * field, 2 * field, dtype=torch.float64, requires_grad=True)
    logits = network(x)
    row, column = logits.shape[-2] // 2, logits.shape[-1] // 2
    logits[0, 0, row, column].backward()
    seen = x.grad[0, 0] != 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    assert rows.numel() == columns.numel() == field
    assert int(rows[-1] - rows[0]) == field - 1 and seen.sum() == field**2


@settings(max_examples=30, deadline=None)
@given(
    field=st.sampled_from(sorted(HALVINGS)),
    channels=st.integers(1, 7),
    features=st.integers(1, 4),
    norm=st.sampled_from(["batch", "instance", "none"]),
    spectral=st.booleans(),
    height=st.integers(0, 20),
    width=st.integers(0, 20),
)
def test_any_options_give_a_map_of_logits(field, channels, features, norm, spectral, height, width):
    network = PatchGAN(channels, features=features, field=field, norm=norm, spectral=spectral)
    assert network.least == least_size(field)
    height, width = max(2, network.least + height), network.least + width  # in training a norm wants two pixels
    out = network(torch.randn(1, channels, height, width))
    if field == 1:
        assert out.shape == (1, 1, height, width)
    else:
        assert out.shape == (1, 1, height // 2 ** HALVINGS[field] - 2, width // 2 ** HALVINGS[field] - 2)
    assert out.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_one_pixel_patches_are_the_papers_pixelgan(norm):
    """Three 1 x 1 convolutions: to `features`, twice as many (the one that has a norm), and a logit for each pixel."""
    network = PatchGAN(6, field=1, norm=norm)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convolutions] == [(6, 64), (64, 128), (128, 1)]
    assert {(conv.kernel_size, conv.stride, conv.padding) for conv in convolutions} == {((1, 1), (1, 1), (0, 0))}
    assert [conv.bias is None for conv in convolutions] == [False, norm != "none", False]
    x = torch.randn(1, 6, 3, 5)
    plain = network.eval()(x)
    assert plain.shape == (1, 1, 3, 5)
    if norm == "none":  # a pixel's logit depends on nothing else: pixels in another order, their logits in that order
        torch.testing.assert_close(network(x.flip(2, 3)), plain.flip(2, 3))
        assert network(x[..., :1, :1]).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("field", [field for field in HALVINGS if field > 1])
def test_one_pixel_less_than_its_least_is_refused(field):
    network = PatchGAN(1, features=1, field=field)
    assert network(torch.zeros(2, 1, network.least, network.least)).shape == (2, 1, 1, 1)
    with pytest.raises(UsageError, match=rf"{network.least - 1} x {network.least} .* at least {network.least}$"):
        network(torch.zeros(2, 1, network.least, network.least - 1))
    with pytest.raises(RuntimeError, match="size"):
        network.layers(torch.zeros(2, 1, network.least, network.least - 1))  # it is no needless limit


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("spectral", [False, True])
def test_every_parameter_gets_a_gradient_from_one_picture_of_the_smallest_size(norm, spectral):
    torch.manual_seed(0)
    network = PatchGAN(2, features=4, field=70, norm=norm, spectral=spectral).train()
    network(torch.randn(1, 2, network.least, network.least)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_spectral_norm_bounds_the_largest_singular_value():
    def largest(network):
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
        return [torch.linalg.matrix_norm(weight.flatten(1), 2).item() for weight in weights]

    torch.manual_seed(0)
    network = PatchGAN(3, features=8, field=34, norm="none", spectral=True).train()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for _ in range(50):
            network(x)
    assert largest(network.eval()) == pytest.approx([1.0] * 4, abs=0.02)
    assert max(largest(PatchGAN(3, features=8, field=34, norm="none"))) < 0.98


def test_spectral_norm_is_of_a_function_that_stands_still_in_eval_mode():
    network = PatchGAN(3, features=4, field=16, spectral=True).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        torch.testing.assert_close(network(x)[:1], network(x[:1]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"in_channels": 0}, "in_channels is 0: expected a whole number of at least 1"),
        ({"features": 0}, "features is 0"),
        ({"field": 71}, "field is 71: a PatchGAN's receptive field is one of [1, 16, 34, 70, 142] pixels"),
        ({"field": "70"}, "field is '70'"),
        ({"field": [70]}, "field is [70]"),
        ({"norm": "layer"}, "norm is 'layer'; known: batch, instance, none"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments, said):
    with pytest.raises(UsageError) as raised:
        PatchGAN(**arguments)
    assert said in str(raised.value) and "\n" not in str(raised.value)
