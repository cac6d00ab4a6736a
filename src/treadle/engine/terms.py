"""Loss terms and specs: the plain data that objectives are built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from treadle.engine.curves import Constant, Curve, parse_curve
from treadle.errors import UsageError, nearest


@dataclass(frozen=True)
class Term:
    """What one loss term is. Several objectives may be built from the same terms: none ever changes them.

    Args:
        name: an identifier, as the term is given by keyword.
        function: computes the raw value, a scalar; None for a term that is always given ready.
        weight: a number, the text of a curve ("linear 0 to 1 over 10%") or any callable of Progress.
        tags: words to select terms by, such as ("generator",).

    Raises:
        UsageError: the name is no identifier, or the weight is not understood, negative or not finite.
    """

    name: str
    function: Callable[..., Tensor] | None = None
    weight: float | str | Curve = 1.0
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UsageError(f"loss term {self.name!r}: the name must be an identifier, such as 'l1' or 'G_GAN'")
        tags = (self.tags,) if isinstance(self.tags, str) else tuple(self.tags)
        object.__setattr__(self, "tags", tags)
        weight = self.constant_or_curve()
        if isinstance(weight, float):
            check_weight(self.name, weight)

    def constant_or_curve(self) -> float | Curve:
        """Return the weight as a number where it is constant, else as a curve."""
        curve = parse_curve(self.weight)
        return float(curve.value) if isinstance(curve, Constant) else curve


Spec = Mapping[str, Sequence[Term]]
_SPECS: dict[str, Spec] = {}


def register_spec(name: str, spec: Spec) -> None:
    """Make a spec known by name: sub-spec name to its terms. The first sub-spec is the one used when none is named.

    Raises:
        UsageError: the name is taken, or the spec has no sub-spec.

    Example:
        register_spec("pix2pix", {"basic": [Term("G_L1", l1, weight=100.0, tags=("generator",))], "sobel": [...]})
    """
    if name in _SPECS:
        raise UsageError(f"an objective spec named {name!r} is registered already; choose another name")
    if not spec:
        raise UsageError(f"objective spec {name!r} is empty; give at least one sub-spec with its terms")
    _SPECS[name] = {sub: tuple(terms) for sub, terms in spec.items()}


def spec_terms(spec: str | Spec, subspecs: Sequence[str]) -> Iterator[Term]:
    """Yield the terms of the named sub-specs in order, or of the first where none is named.

    Raises:
        UsageError: an unknown spec or sub-spec.
    """
    name = spec if isinstance(spec, str) else "given"
    if isinstance(spec, str):
        if spec not in _SPECS:
            raise UsageError(f"no objective spec is named {spec!r}{nearest(spec, _SPECS)}")
        spec = _SPECS[spec]
    for sub in subspecs or list(spec)[:1]:
        if sub not in spec:
            raise UsageError(f"objective spec {name!r} has no sub-spec {sub!r}{nearest(sub, spec)}")
        yield from spec[sub]


def check_weight(name: str, value: float) -> None:
    """Raise UsageError unless `value` can be the weight of term `name`: a finite number, 0 or more."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise UsageError(f"loss term {name!r}: weight {value!r} must be a finite number >= 0")
