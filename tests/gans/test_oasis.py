"""The discriminator that sorts pixels into classes: its formula, what it prefers, its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from treadle.errors import UsageError
from treadle.gans.adversarial import Adversarial
from treadle.gans.oasis import SegmentingDiscriminator


def pictures(n=2, classes=3, height=16, width=24):
    """Label maps with a rare class, one-hot, and pictures."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes - 1, (n, height, width), generator=generator)
    labels[0, :4, :4] = classes - 1
    x = functional.one_hot(labels, classes).movedim(-1, 1).double()
    return x, torch.randn(n, 3, height, width, generator=generator, dtype=torch.float64)


def discriminator(classes=3, downs=2):
    torch.manual_seed(0)
    return SegmentingDiscriminator(classes, features=4, downs=downs).double().eval()


def test_its_losses_are_those_of_the_paper():
    network, (x, y) = discriminator(), pictures()
    loss = Adversarial("oasis")
    verdict = network(torch.cat([x, y], 1))
    likely = network.logits(y).log_softmax(1)
    assert verdict.shape == (2, 2, 8, 12) and likely.shape == (2, 4, 8, 12)
    labels = x[:, :, ::2, ::2]
    right = torch.zeros((), dtype=torch.float64)
    for each in range(3):  # every class counts alike: the mean over its pixels, then over classes
        there = labels[:, each] == 1
        right -= likely[:, each][there].mean() / 3
    torch.testing.assert_close(loss.real(verdict).double(), right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.generator(verdict).double(), right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.fake(verdict).double(), -likely[:, 3].mean(), rtol=1e-5, atol=1e-6)


def test_a_class_that_is_not_there_has_no_part_in_it():
    network, (x, y) = discriminator(4), pictures(classes=3)
    x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    likely, labels = network.logits(y).log_softmax(1), x[:, :, ::2, ::2]
    means = [likely[:, each][labels[:, each] == 1].mean() for each in range(3)]
    found = Adversarial("oasis").real(network(torch.cat([x, y], 1)))
    torch.testing.assert_close(found.double(), -torch.stack(means).mean(), rtol=1e-5, atol=1e-6)


def test_pixels_that_an_augmentation_moved_in_do_not_count():
    network, (x, y) = discriminator(), pictures()
    x[:, :, :, 12:] = 0
    likely, labels = network.logits(y).log_softmax(1)[..., :6], x[:, :, ::2, ::2][..., :6]
    verdict, loss = network(torch.cat([x, y], 1)), Adversarial("oasis")
    means = [likely[:, each][labels[:, each] == 1].mean() for each in range(3)]
    torch.testing.assert_close(loss.real(verdict).double(), -torch.stack(means).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.fake(verdict).double(), -likely[:, 3].mean(), rtol=1e-5, atol=1e-6)
    nothing = network(torch.cat([torch.zeros_like(x), y], 1))
    assert loss.real(nothing) == loss.fake(nothing) == 0


def test_it_learns_what_is_real_and_teaches_where_classes_lie():
    torch.manual_seed(0)
    network, loss = SegmentingDiscriminator(3, features=8, downs=2).train(), Adversarial("oasis")
    x, _ = (each.float() for each in pictures())
    x = functional.interpolate(x[:, :, :4, :6], scale_factor=4)
    y = (x - 0.5) * 2  # each class has a colour of its own
    noise = torch.randn_like(y)
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (loss.real(network(torch.cat([x, y], 1))) + loss.fake(network(torch.cat([x, noise], 1)))).backward()
        optimizer.step()
    assert loss.real(network(torch.cat([x, y], 1))) < 0.3
    wrong = y.roll(1, 1)  # the colours of other classes
    generator = [loss.generator(network(torch.cat([x, each], 1))) for each in (y, wrong, noise)]
    assert generator[0] < generator[1] and generator[0] < generator[2]


def test_every_parameter_and_the_picture_have_gradients():
    network, (x, y) = discriminator(downs=3).train(), pictures()
    y.requires_grad_()
    Adversarial("oasis").generator(network(torch.cat([x, y], 1))).backward()
    assert y.grad is not None and (y.grad != 0).float().mean() > 0.99
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 15), (30, 21)])
def test_it_judges_pictures_of_any_size(height, width):
    verdict = SegmentingDiscriminator(3, features=2, downs=3)(torch.rand(1, 6, height, width))
    assert verdict.shape == (1, 2, height // 2, width // 2) and verdict.isfinite().all()


def test_convolutions_are_of_spectral_norm_1_but_for_the_head():
    network = SegmentingDiscriminator(3, features=4, downs=3).train()
    for _ in range(60):
        network.logits(torch.zeros(1, 3, 16, 16))
    for conv in [*network.encoder, *network.decoder]:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_what_it_cannot_judge_is_refused():
    with pytest.raises(UsageError, match="a picture of 12 x 7 pixels: the network takes at least 8"):
        SegmentingDiscriminator(3, features=2, downs=3)(torch.zeros(1, 6, 7, 12))
    for name, least in {"classes": 2, "channels": 1, "features": 1, "downs": 2}.items():
        with pytest.raises(UsageError, match=f"{name} is {least - 1}"):
            SegmentingDiscriminator(**{"classes": 3, name: least - 1})
