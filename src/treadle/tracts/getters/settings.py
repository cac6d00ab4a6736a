"""The settings of direction getters, and the getter that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from treadle.config.settings import Settings, require, setting
from treadle.tracts.getters.classes import SmoothSphereGetter, SphereGetter
from treadle.tracts.getters.fisher import FisherGetter, FisherMixtureGetter
from treadle.tracts.getters.gaussian import GaussianGetter, GaussianMixtureGetter
from treadle.tracts.getters.getter import DirectionGetter
from treadle.tracts.getters.regression import CosineGetter, CosineL2Getter, L2Getter
from treadle.tracts.getters.sphere import is_sphere

GETTERS: dict[str, Any] = {
    kind.name: kind
    for kind in (
        CosineGetter, L2Getter, CosineL2Getter, SphereGetter, SmoothSphereGetter,
        GaussianGetter, GaussianMixtureGetter, FisherGetter, FisherMixtureGetter,
    )
}  # fmt: skip
"""All direction getters, by name."""


@dataclass(kw_only=True)
class GetterSettings(Settings):
    """How directions are read from what a model says, and what is wrong about them."""

    getter: Literal[
        "cosine", "l2", "cosine-l2", "sphere", "smooth-sphere",
        "gaussian", "gaussian-mixture", "fisher", "fisher-mixture",
    ] = setting("cosine", common=True)  # fmt: skip
    """What is learnt of a direction: itself, by its cosine, its distance ("l2") or both; classes on a sphere, with the
    nearest or with all near ones right ("smooth-sphere"); or a distribution: Gaussian, or Fisher - von Mises, or a
    mixture of some. Classes and distributions can be sampled in tracking."""
    ends: bool = setting(False, common=True)
    """Learn where lines end, too (EOS)."""
    end_weight: float = setting(1.0, least=0)
    """What the loss of ends is multiplied by; classes have none of their own."""
    getter_dropout: float = setting(0.0, least=0, below=1)
    """The share of the getter's hidden numbers that are 0 in a step of training."""
    normalize_targets: float | None = setting(None, above=0)
    """l2, cosine-l2, gaussian, gaussian-mixture: the length that target directions are brought to; null leaves them as
    long as the steps of the lines, in mm."""
    entropy_weight: float = setting(0.0, least=0)
    """gaussian: how much of the entropy is taken from the loss, against sigmas that collapse."""
    mixtures: int = setting(3, least=1)
    """gaussian-mixture, fisher-mixture: how many distributions."""
    classes: int = setting(642, least=12)
    """sphere, smooth-sphere: directions, 10 f^2 + 2 for a whole f: 162, 362, 642, 812, 1002, ..., 2562."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "classes", is_sphere(self.classes), "10 f^2 + 2 for a whole f, as 162, 362, 642 or 812")
        kept = self.entropy_weight == 0 or self.getter == "gaussian"
        require(self, "entropy_weight", kept, f"0 for the getter {self.getter!r}: a Gaussian alone has such an entropy")
        kept = self.end_weight == 1 or "sphere" not in self.getter
        require(self, "end_weight", kept, f"1 for the getter {self.getter!r}: its end is a class among the others")


def build_getter(settings: GetterSettings, width: int) -> DirectionGetter:
    """The direction getter of `settings` for a model that says `width` numbers at each point."""
    given: dict[str, Any] = {"dropout": settings.getter_dropout, "ends": settings.ends}
    name = settings.getter
    if "sphere" in name:
        given["classes"] = settings.classes
    else:
        given["end_weight"] = settings.end_weight
    if "mixture" in name:
        given["mixtures"] = settings.mixtures
    if name == "gaussian":
        given["entropy_weight"] = settings.entropy_weight
    if "fisher" not in name and "sphere" not in name:
        given["normalize_targets"] = settings.normalize_targets
    getter: DirectionGetter = GETTERS[name](width, **given)
    return getter
