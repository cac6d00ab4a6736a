"""Loss terms and specs: the plain data that objectives are built from."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
"""Sub-spec name to its terms; the first sub-spec is the one used when none is named."""


def terms_of(spec: Spec, subspecs: Sequence[str], name: str = "given") -> Iterator[Term]:
    """Yield the terms of the named sub-specs in order, or of the first where none is named.

    Raises:
        UsageError: an unknown sub-spec of the spec, which messages call `name`.
    """
    for sub in subspecs or list(spec)[:1]:
        if sub not in spec:
            raise UsageError(f"objective spec {name!r} has no sub-spec {sub!r}{nearest(sub, spec)}")
        yield from spec[sub]


def check_weight(name: str, value: float) -> None:
    """Raise UsageError unless `value` can be the weight of term `name`: a finite number, 0 or more."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise UsageError(f"loss term {name!r}: weight {value!r} must be a finite number >= 0")


# For this release: the specs that have a name live in the pack that names them ----------------------------------------

_SPECS_HOME = "treadle.gans.specs"


def named_spec(name: str) -> Spec:
    """The spec of that name, with a warning. Raises UsageError for an unknown one."""
    warnings.warn(
        f"Objective.from_spec({name!r}) is now {_SPECS_HOME}.build_objective('...', {name!r}); from_spec takes the "
        "spec itself",
        FutureWarning,
        stacklevel=3,
    )
    spec: Spec = importlib.import_module(_SPECS_HOME).find_spec(name)
    return spec


def __getattr__(name: str) -> Any:
    if name not in ("register_spec", "spec_terms"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is now {_SPECS_HOME}.{name}", FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(_SPECS_HOME), name)
