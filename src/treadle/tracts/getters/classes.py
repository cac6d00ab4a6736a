"""Directions as classes: the points of a sphere, and the end of the line as one class more."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from treadle.tracts.directions import unit
from treadle.tracts.getters.continuous import head
from treadle.tracts.getters.drawing import component
from treadle.tracts.getters.getter import DirectionGetter
from treadle.tracts.getters.sphere import sphere

SPREAD = 0.1
"""How fast the share of a class falls with its angle to the target, in radians (as DeepTract, Benou & Riklin Raviv)."""

KNOWN = 20.0
"""The kappa of the Fisher - von Mises prior around a known direction."""


class ClassGetter(DirectionGetter):
    """A logit for each direction of a sphere; the last class is the end, where ends are learnt."""

    vertices: Tensor

    def __init__(self, width: int, *, dropout: float = 0.0, ends: bool = False, classes: int = 642) -> None:
        """
        Args:
            width: numbers per point that the model says.
            dropout: the share of the head's hidden numbers that are 0, in training.
            ends: whether to learn where lines end.
            classes: directions, see `sphere`.
        """
        super().__init__()
        self.ends, self.classes = ends, classes
        self.head = head(width, classes + ends, dropout)
        self.register_buffer("vertices", torch.from_numpy(sphere(classes)).float(), persistent=False)

    def forward(self, outputs: Tensor) -> Tensor:
        """Logits: (n, width) -> (n, classes), and the end's."""
        return self.head(outputs)

    def about(self, parameters: Tensor, directions: Tensor) -> Tensor:
        """Logits of a prior are added that is narrow around the known direction; see `DirectionGetter.about`.

        All directions together stay as likely, beside the end, as they are without it.
        """
        prior = KNOWN * unit(directions) @ self.vertices.to(parameters).T
        prior = prior - prior.logsumexp(1, keepdim=True) + torch.log(prior.new_tensor(float(self.classes)))
        return parameters + functional.pad(prior, (0, int(self.ends)))

    def loss(self, parameters: Tensor, targets: Tensor, last: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n,), and None: the end is a class among the others."""
        return self.errors(parameters.log_softmax(1), targets, last), None

    @abstractmethod
    def errors(self, logarithms: Tensor, targets: Tensor, last: Tensor) -> Tensor:
        """(n,) from the logarithms of probabilities; arguments as of `loss`."""

    def direction(self, parameters: Tensor) -> Tensor:
        """Of the likeliest class, (n, 3)."""
        return self.vertices.to(parameters)[parameters[:, : self.classes].argmax(1)]

    def end(self, parameters: Tensor) -> Tensor:
        """The probability of the end's class, (n,)."""
        return parameters.softmax(1)[:, -1] if self.ends else super().end(parameters)

    uniforms: ClassVar[int] = 1

    def sample(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Of a class that is drawn by its probability among the directions, (n, 3)."""
        drawn = component(parameters[:, : self.classes], self.given(uniforms)[:, 0])
        return self.vertices.to(parameters)[drawn]


class SphereGetter(ClassGetter):
    """-log softmax(z) of the class nearest to the target."""

    name: ClassVar[str] = "sphere"

    def errors(self, logarithms: Tensor, targets: Tensor, last: Tensor) -> Tensor:
        """(n,), see above."""
        nearest = (targets @ self.vertices.to(targets).T).argmax(1)
        if self.ends:
            nearest = nearest.masked_fill(last, self.classes)
        return functional.nll_loss(logarithms, nearest, reduction="none")


class SmoothSphereGetter(ClassGetter):
    """KL(q || softmax z), summed over the classes, where q falls with the angle to the target: q ~ exp(-angle / .1)."""

    name: ClassVar[str] = "smooth-sphere"

    def errors(self, logarithms: Tensor, targets: Tensor, last: Tensor) -> Tensor:
        """(n,), see above; at an end q is 1 for its class, and elsewhere 0 for it."""
        logits = self._angles(targets) / -SPREAD
        wanted = logits.softmax(1)
        entropy = (wanted * logits).sum(1) - logits.logsumexp(1)
        found = entropy - (wanted * logarithms[:, : self.classes]).sum(1)
        return torch.where(last, -logarithms[:, -1], found) if self.ends else found

    def _angles(self, targets: Tensor) -> Tensor:
        """(n, classes): angles in radians, from the chord, which is exact for small ones."""
        sides = [(a[:, None] - b).square() for a, b in zip(unit(targets).T, self.vertices.to(targets).T, strict=True)]
        return 2 * (0.5 * sum(sides[1:], sides[0]).sqrt()).clamp_max(1).asin()
