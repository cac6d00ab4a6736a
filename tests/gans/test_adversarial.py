from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treadle.checkpoint.plain import is_stateless
from treadle.errors import UsageError
from treadle.gans.adversarial import ADVERSARIAL, Adversarial, gradient_penalty, r1


def log_sigmoid(d):
    return -math.log1p(math.exp(-d)) if d > 0 else d - math.log1p(math.exp(d))


BY_HAND = {
    # mode: what one logit adds where it is real, where it is fake, and for the generator
    "bce": (lambda d: -log_sigmoid(d), lambda d: -log_sigmoid(-d), lambda d: -log_sigmoid(d)),
    "lsgan": (lambda d: (d - 1) ** 2, lambda d: d**2, lambda d: (d - 1) ** 2),
    "hinge": (lambda d: max(0.0, 1 - d), lambda d: max(0.0, 1 + d), lambda d: -d),
    "wgan": (lambda d: -d, lambda d: d, lambda d: -d),
}
MODES = sorted(BY_HAND)


def parts(mode):
    losses = Adversarial(mode)
    return losses.real, losses.fake, losses.generator


def test_the_modes_are_those_tested_here():
    assert sorted(ADVERSARIAL) == sorted([*MODES, "oasis"])  # that one is test_oasis.py's


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None)
@given(logits=st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=12))
def test_each_mode_is_its_formula(mode, logits):
    for loss, formula in zip(parts(mode), BY_HAND[mode], strict=True):
        expected = sum(formula(d) for d in logits) / len(logits)
        given = torch.tensor(logits).reshape(1, 1, -1, 1)
        torch.testing.assert_close(loss(given), torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(loss(given.double()).item(), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("mode", "best_real", "best_fake", "lowest"),
    [("lsgan", 1.0, 0.0, 0.0), ("bce", 50.0, -50.0, 0.0), ("hinge", 1.0, -1.0, 0.0), ("wgan", 50.0, -50.0, -50.0)],
)
def test_a_discriminator_that_is_right_is_at_the_lowest(mode, best_real, best_fake, lowest):
    real, fake, generator = parts(mode)
    elsewhere = torch.linspace(-50, 50, 401)
    for loss, best in ((real, best_real), (fake, best_fake)):
        assert loss(torch.tensor(best)).item() == pytest.approx(lowest, abs=1e-6)
        assert min(loss(d).item() for d in elsewhere) >= lowest - 1e-6
    assert generator(torch.tensor(best_real)) < generator(torch.tensor(best_fake))


@pytest.mark.parametrize("mode", MODES)
def test_undecided_the_discriminator_is_pulled_apart_and_the_generator_up(mode):
    # At 1/2, between the targets of least squares and within the margins of hinge, everybody has something to do.
    for loss, direction in zip(parts(mode), (-1, 1, -1), strict=True):
        logits = torch.full((2, 1, 3, 3), 0.5, requires_grad=True)
        loss(logits).backward()
        assert (logits.grad.sign() == direction).all()


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_computed_in_full(mode):
    logits = torch.randn(2, 1, 15, 15)
    for loss in parts(mode):
        with torch.autocast("cpu", torch.bfloat16):
            assert loss(logits).equal(loss(logits.clone()))
            low = loss(logits.bfloat16())
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, loss(logits.bfloat16().float()), rtol=0, atol=0)


def test_the_generator_learns_also_where_the_discriminator_is_sure():
    logits = torch.tensor([-30.0], requires_grad=True)
    Adversarial("bce").generator(logits).backward()
    assert logits.grad.item() == pytest.approx(-1)


def test_an_unknown_mode_is_refused_and_a_known_one_has_no_state():
    with pytest.raises(UsageError, match=r"'ls-gan' is unknown; did you mean 'lsgan'\?"):
        Adversarial("ls-gan")
    assert is_stateless(Adversarial("hinge"))


def linear(n=8, patches=1):
    """D(x) = w x for x of shape (2, n/2), the same at every patch, and |w|."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(n))
    return weight, lambda x: (x.flatten(1) @ weight)[:, None].expand(-1, patches)


@pytest.mark.parametrize("patches", [1, 9])
def test_the_gradient_penalty_of_a_linear_critic(patches):
    weight, discriminator = linear(patches=patches)
    penalty = gradient_penalty(discriminator, torch.randn(5, 2, 4), torch.randn(5, 2, 4))
    penalty.backward()
    norm = weight.detach().norm()
    torch.testing.assert_close(penalty.detach(), (norm - 1) ** 2)
    torch.testing.assert_close(weight.grad, 2 * (norm - 1) * weight.detach() / norm)


def test_the_gradient_penalty_looks_between_real_and_fake():
    seen = []

    def discriminator(x):
        seen.append(x.detach())
        return x.square().sum((1, 2, 3))

    real, fake = torch.ones(64, 3, 4, 4), torch.full((64, 3, 4, 4), 3.0)
    first = gradient_penalty(discriminator, real, fake, torch.Generator().manual_seed(1))
    again = gradient_penalty(discriminator, real, fake, torch.Generator().manual_seed(1))
    between = seen[0]
    assert first == again and (seen[1] == between).all()
    assert (between == between[:, :1, :1, :1]).all()  # one position per sample
    assert 1 <= between.min() < 1.2 and 2.8 < between.max() <= 3 and between[:, 0, 0, 0].unique().numel() > 60
    norms = 2 * between.flatten(1).norm(dim=1)
    torch.testing.assert_close(first.detach(), (norms - 1).square().mean())


def test_the_gradient_penalty_draws_from_the_global_generator_and_leaves_its_inputs_alone():
    weight, discriminator = linear()
    real, fake = torch.randn(2, 2, 4, requires_grad=True), torch.randn(2, 2, 4, requires_grad=True)
    torch.manual_seed(3)
    gradient_penalty(lambda x: discriminator(x).square(), real, fake).backward()
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.rand(2)
    assert after == torch.rand(1)
    assert real.grad is None and fake.grad is None and weight.grad is not None


@pytest.mark.parametrize("patches", [1, 4])
def test_r1_of_a_linear_discriminator(patches):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8))
    real = torch.randn(5, patches, 8, requires_grad=True)
    penalty = r1(real @ weight, real)  # each patch sees its own row
    penalty.backward()
    torch.testing.assert_close(penalty.detach(), 0.5 * weight.detach().square().sum())
    torch.testing.assert_close(weight.grad, weight.detach())


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1))


def test_the_gradient_penalty_is_the_same_under_autocast():
    discriminator, real, fake = network(), torch.randn(3, 3, 16, 16), torch.randn(3, 3, 16, 16)
    plain = gradient_penalty(discriminator, real, fake, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        low = gradient_penalty(discriminator, real, fake, torch.Generator().manual_seed(0))
        halves = gradient_penalty(discriminator, real.bfloat16(), fake, torch.Generator().manual_seed(0))
    assert low.dtype == halves.dtype == torch.float32
    torch.testing.assert_close(low, plain, rtol=0, atol=0)
    torch.testing.assert_close(halves, plain, rtol=0.02, atol=0)
    low.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in discriminator.parameters() if p.dim() > 1)


def test_r1_under_autocast_is_full_precision_of_half_precision_logits():
    discriminator, real = network(), torch.randn(3, 3, 16, 16).requires_grad_()
    plain = r1(discriminator(real), real)
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(real)
        low = r1(logits, real)
    assert logits.dtype == torch.bfloat16 and low.dtype == torch.float32
    torch.testing.assert_close(low, plain, rtol=0.05, atol=0)
    low.backward()
    assert discriminator[0].weight.grad.abs().max() > 0


def test_penalties_that_would_be_wrong_are_refused():
    _, discriminator = linear()
    real = torch.randn(2, 2, 4)
    with pytest.raises(UsageError, match=r"r1: the logits have no gradient .* requires_grad_\(\)"):
        r1(discriminator(real), real)
    with pytest.raises(UsageError, match="r1: the logits have no gradient"):
        r1(discriminator(real), real.clone().requires_grad_())
    with pytest.raises(UsageError, match="gradient_penalty: the logits have no gradient"), torch.no_grad():
        gradient_penalty(discriminator, real, real)
    with pytest.raises(UsageError, match=r"real is \(2, 2, 4\) and fake \(1, 2, 4\)"):
        gradient_penalty(discriminator, real, real[:1])
