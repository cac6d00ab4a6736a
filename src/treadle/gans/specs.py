"""The objectives of pix2pix and CycleGAN as specs: named loss terms that a recipe chooses as "extended+vgg"."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from treadle.engine.curves import Curve
from treadle.engine.objective import Objective
from treadle.engine.terms import Spec, Term, terms_of
from treadle.errors import UsageError, nearest
from treadle.gans.image_losses import coarse, l1, l2, laplacian, lattice_below, sobel
from treadle.gans.perceptual import Perceptual

_SPECS: dict[str, Spec] = {}


def register_spec(name: str, spec: Spec) -> None:
    """Make a spec known by name: sub-spec name to its terms. The first sub-spec is the one used when none is named.

    Raises:
        UsageError: the name is taken, or the spec has no sub-spec.

    Example:
        register_spec("mine", {"basic": [Term("G_L1", l1, weight=100.0, tags=("generator",))], "sobel": [...]})
    """
    if name in _SPECS:
        raise UsageError(f"an objective spec named {name!r} is registered already; choose another name")
    if not spec:
        raise UsageError(f"objective spec {name!r} is empty; give at least one sub-spec with its terms")
    _SPECS[name] = {sub: tuple(terms) for sub, terms in spec.items()}


def find_spec(name: str) -> Spec:
    """The spec registered as `name`; raises UsageError for an unknown one."""
    if name not in _SPECS:
        raise UsageError(f"no objective spec is named {name!r}{nearest(name, _SPECS)}")
    return _SPECS[name]


def spec_terms(spec: str | Spec, subspecs: Sequence[str]) -> Iterator[Term]:
    """Yield the terms of the named sub-specs in order, or of the first where none is named.

    Raises:
        UsageError: an unknown spec or sub-spec.
    """
    return terms_of(find_spec(spec), subspecs, spec) if isinstance(spec, str) else terms_of(spec, subspecs)


GENERATOR, DISCRIMINATOR = ("generator",), ("discriminator",)

# Isola 2017 (https://arxiv.org/abs/1611.07004). The discriminator's objective is halved, so it learns more slowly.
_BASIC = (
    Term("G_GAN", weight=1.0, tags=GENERATOR),
    Term("G_L1", l1, weight=100.0, tags=GENERATOR),
    Term("D_real", weight=0.5, tags=DISCRIMINATOR),
    Term("D_fake", weight=0.5, tags=DISCRIMINATOR),
)

register_spec(
    "pix2pix",
    {
        "basic": _BASIC,
        "extended": (
            *_BASIC,
            # At the largest difference there can be, 2, its pull (2 * 25 * 2) is that of L1 (100): it adds to the worst
            # errors and leaves small ones to L1, which blurs less.
            Term("G_L2", l2, weight=25.0, tags=GENERATOR),
            Term("G_SOBEL", sobel, weight=3.0, tags=GENERATOR),
            Term("G_LAP", laplacian, weight=1.0, tags=GENERATOR),
        ),
        # These have only their own terms, to be added: "basic+vgg", "extended+vgg+r1".
        "vgg": (Term("G_VGG", weight=10.0, tags=GENERATOR),),  # as in pix2pixHD
        "coarse": (Term("G_COARSE", coarse, weight=25.0, tags=GENERATOR),),  # in place of most of L1
        "lattice": (Term("G_LATTICE", lattice_below, weight=4.0, tags=GENERATOR),),
        # The papers' gamma and lambda, 10 each, halved as the rest of the discriminator's objective is.
        "r1": (Term("D_R1", weight=5.0, tags=DISCRIMINATOR),),
        "gp": (Term("D_GP", weight=5.0, tags=DISCRIMINATOR),),
    },
)

# Zhu 2017 (https://arxiv.org/abs/1703.10593) as its authors train it: the weight of identity is half that of the cycle.
# G_AB makes B of A and D_B judges it; G_CYCLE_A compares G_BA(G_AB(a)) with a, G_IDENTITY_A compares G_BA(a) with a.
register_spec(
    "cyclegan",
    {
        "basic": (
            Term("G_GAN_AB", weight=1.0, tags=GENERATOR),
            Term("G_GAN_BA", weight=1.0, tags=GENERATOR),
            Term("G_CYCLE_A", l1, weight=10.0, tags=GENERATOR),
            Term("G_CYCLE_B", l1, weight=10.0, tags=GENERATOR),
            Term("G_IDENTITY_A", l1, weight=5.0, tags=GENERATOR),
            Term("G_IDENTITY_B", l1, weight=5.0, tags=GENERATOR),
            Term("D_A_real", weight=0.5, tags=DISCRIMINATOR),
            Term("D_A_fake", weight=0.5, tags=DISCRIMINATOR),
            Term("D_B_real", weight=0.5, tags=DISCRIMINATOR),
            Term("D_B_fake", weight=0.5, tags=DISCRIMINATOR),
        ),
        # Of either discriminator as in pix2pix: to be added, as "basic+r1".
        "r1": (Term("D_A_R1", weight=5.0, tags=DISCRIMINATOR), Term("D_B_R1", weight=5.0, tags=DISCRIMINATOR)),
        "gp": (Term("D_A_GP", weight=5.0, tags=DISCRIMINATOR), Term("D_B_GP", weight=5.0, tags=DISCRIMINATOR)),
    },
)


def parse_objective(text: str, spec: str = "pix2pix") -> tuple[str, ...]:
    """The sub-specs of `spec` that "extended+vgg" names: ("extended", "vgg").

    Raises:
        UsageError: an unknown spec or sub-spec, nothing between two "+", or sub-specs that share a term.
    """
    names = tuple(name.strip() for name in text.split("+"))
    if not all(names):
        raise UsageError(f"objective {text!r}: name sub-specs joined by '+', such as 'extended+vgg'")
    owners: dict[str, str] = {}
    for name in names:
        for term in spec_terms(spec, [name]):
            if term.name in owners:
                first = owners[term.name]
                raise UsageError(
                    f"objective {text!r}: {first!r} and {name!r} both have the term {term.name!r}; leave one out"
                )
            owners[term.name] = name
    return names


def build_objective(
    text: str,
    spec: str = "pix2pix",
    *,
    weights: Mapping[str, float | str | Curve] | None = None,
    vgg_weights: str | Path | None = None,
    required: Collection[str] = (),
) -> Objective:
    """The objective that `text` names, ready for a trainer.

    Args:
        text: sub-specs joined by "+", such as "extended+vgg".
        spec: the name of a registered spec.
        weights: other weights, by term name.
        vgg_weights: the file for `Perceptual`, which computes a term "G_VGG" that has no function of its own. A trainer
            that keeps it as an attribute (`objective.terms["G_VGG"].function`) resumes with the same weights only.
        required: terms that a trainer cannot do without.

    Raises:
        UsageError: what `parse_objective`, `Objective.from_spec` and `Perceptual` refuse; a required term that is
            missing; "G_VGG" without `vgg_weights`, or the other way round.
    """
    terms = list(spec_terms(spec, parse_objective(text, spec)))
    names = [term.name for term in terms]
    missing = [name for name in required if name not in names]
    if missing:
        raise UsageError(
            f"objective {text!r} has no term {missing[0]!r}, which the trainer needs: join it with a sub-spec that has "
            "it, as in 'basic+vgg'"
        )
    for index, term in enumerate(terms):
        if term.name == "G_VGG" and term.function is None:
            if vgg_weights is None:
                raise UsageError(f"objective {text!r} needs the weights of VGG-19: give vgg_weights=FILE.safetensors")
            terms[index] = replace(term, function=Perceptual(vgg_weights))
            break
    else:
        if vgg_weights is not None:
            raise UsageError(
                f"vgg_weights is given, but objective {text!r} does not use it: add '+vgg', or leave it out"
            )
    return Objective.from_spec({"all": terms}, weights=weights)
