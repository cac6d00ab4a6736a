"""What a discriminator and its generator minimize: five kinds of adversarial loss, and two gradient penalties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from treadle.errors import UsageError, nearest


class Kind(NamedTuple):
    """One kind of adversarial loss: what is averaged over logits of real pictures, of fakes, and by the generator."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


ADVERSARIAL = {
    # Binary cross-entropy with the generator's non-saturating loss (Goodfellow 2014, https://arxiv.org/abs/1406.2661):
    # -log sigmoid(logit) is softplus(-logit).
    "bce": Kind(lambda d: functional.softplus(-d), functional.softplus, lambda d: functional.softplus(-d)),
    # Least squares (Mao 2017, https://arxiv.org/abs/1611.04076) with the targets 1 and 0.
    "lsgan": Kind(lambda d: (d - 1).square(), torch.square, lambda d: (d - 1).square()),
    # Hinge (Lim and Ye 2017, https://arxiv.org/abs/1705.02894).
    "hinge": Kind(lambda d: torch.relu(1 - d), lambda d: torch.relu(1 + d), torch.neg),
    # Wasserstein (Arjovsky 2017, https://arxiv.org/abs/1701.07875): needs `gradient_penalty`.
    "wgan": Kind(torch.neg, lambda d: d, torch.neg),
    # Classes of pixels (Sushko 2021, https://arxiv.org/abs/2012.04781): `SegmentingDiscriminator` gives (N, 2, ...),
    # the log likelihoods of the right class and of being made.
    "oasis": Kind(lambda d: -d[:, 0], lambda d: -d[:, 1], lambda d: -d[:, 0]),
}
"""The kinds of adversarial loss by name."""


@dataclass(frozen=True)
class Adversarial:
    """The adversarial losses of one kind, as scalars; without state.

    Logits may have any shape (but for "oasis") and are averaged; half precision is computed in float32.

    Args:
        mode: "bce", "lsgan", "hinge", "wgan" or "oasis".

    Raises:
        UsageError: an unknown mode.

    Example:
        adversarial = Adversarial("lsgan")
        d_loss = 0.5 * (adversarial.real(D(y)) + adversarial.fake(D(G(x).detach())))
        g_loss = adversarial.generator(D(G(x)))
    """

    mode: str = "bce"

    def __post_init__(self) -> None:
        if self.mode not in ADVERSARIAL:
            raise UsageError(f"adversarial loss {self.mode!r} is unknown{nearest(self.mode, ADVERSARIAL)}")

    def real(self, logits: Tensor) -> Tensor:
        """What the discriminator minimizes where it saw real pictures."""
        return ADVERSARIAL[self.mode].real(_full(logits)).mean()

    def fake(self, logits: Tensor) -> Tensor:
        """What the discriminator minimizes where it saw generated pictures."""
        return ADVERSARIAL[self.mode].fake(_full(logits)).mean()

    def generator(self, logits: Tensor) -> Tensor:
        """What the generator minimizes: the discriminator should take its pictures for real ones."""
        return ADVERSARIAL[self.mode].generator(_full(logits)).mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The WGAN-GP penalty, mean of (|gradient| - 1)^2 between real and fake (https://arxiv.org/abs/1704.00028).

    The critic is what the Wasserstein loss averages: the mean of a sample's logits. Everything runs in float32, also
    under autocast. The discriminator should not use batch norm, which ties samples together.

    Args:
        discriminator: called with float32 (N, ...), gives logits (N, ...). For a conditional one close over the
            condition: `lambda y: D(torch.cat([x, y], 1))`.
        real, fake: (N, ...) each; no gradient flows into them.
        generator: for the N positions between real and fake; by default torch's global one.

    Returns:
        A scalar that can be differentiated by the discriminator's parameters.

    Raises:
        UsageError: shapes that differ, logits that do not depend on the pictures, or gradients that are switched off.
    """
    if real.shape != fake.shape:
        raise UsageError(f"gradient_penalty: real is {tuple(real.shape)} and fake {tuple(fake.shape)}: make them alike")
    real, fake = _full(real.detach()), _full(fake.detach())
    share = torch.rand((len(real), *[1] * (real.dim() - 1)), generator=generator, dtype=real.dtype, device=real.device)
    between = torch.lerp(fake, real, share).requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        critic = discriminator(between).reshape(len(between), -1).mean(1)
        norms = torch.linalg.vector_norm(_gradient(critic, between, "gradient_penalty").flatten(1), dim=1)
        return (norms - 1).square().mean()


def r1(logits: Tensor, real: Tensor) -> Tensor:
    """The R1 penalty on real pictures, 1/2 |gradient|^2, its weight the paper's gamma (https://arxiv.org/abs/1801.04406).

    It is averaged over logits: each patch of a PatchGAN counts as the discriminator it is, so the weight does not
    depend on their number. (The gradients of different patches are summed first, as if they did not overlap.)

    Args:
        logits: what the discriminator gave for `real`, any shape.
        real: the pictures; `real.requires_grad_()` must have come before the discriminator saw them.

    Returns:
        A float32 scalar that can be differentiated by the discriminator's parameters.

    Raises:
        UsageError: `real` does not require gradients, or the logits do not depend on it.
    """
    with torch.autocast(real.device.type, enabled=False):
        return 0.5 * _full(_gradient(logits, real, "r1")).square().sum() / logits.numel()


def _gradient(outputs: Tensor, inputs: Tensor, caller: str) -> Tensor:
    """The gradient of the sum of `outputs` by `inputs`, itself differentiable."""
    if outputs.requires_grad and inputs.requires_grad:
        (gradient,) = torch.autograd.grad(_full(outputs).sum(), inputs, create_graph=True, allow_unused=True)
        if gradient is not None:
            return gradient
    raise UsageError(
        f"{caller}: the logits have no gradient by the pictures: call it in training, with pictures that "
        "had requires_grad_() before the discriminator saw them"
    )


def _full(values: Tensor) -> Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()
