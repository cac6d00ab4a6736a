"""The gradient of a field by finite differences, itself differentiable with respect to the field's parameters.

Compiled kernels can be differentiated once. A term on the gradient, such as Eikonal's (|grad f| - 1)^2, needs the
derivative of a derivative: here the gradient is made of values of the field, so that one backward is enough. It also
sees across the faces of a grid's cells, where autograd sees one side (Li et al. 2023, "Neuralangelo").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from treadle.errors import UsageError

TETRAHEDRON = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


def gradient(
    function: Callable[[Tensor], Tensor], points: Tensor, h: float = 5e-3, evaluations: Literal[4, 6] = 6
) -> Tensor:
    """The gradient (n, 3) of a scalar function at `points`, from values at places at most h (6) or 1.8 h (4) away.

    With 6 evaluations, by central differences along the axes, its error is of second order, h^2/6 times the third
    derivatives, and it is exact for quadratics. With 4, at the corners of a tetrahedron, a third is saved and the error
    is of first order: h times the mixed second derivatives. A length that is to be 1 wants the 6; a normal that is only
    looked at may take the 4.

    Args:
        function: places (m, 3) to values (m,) or (m, 1); it is called once, with all places.
        points: (n, 3); places beyond the border of a grid are taken there.
        h: the step. As a rule: the finest cell's half side, or the surface distance that still matters.
        evaluations: 6 or 4.
    """
    if points.dim() != 2 or points.shape[1] != 3:
        raise UsageError(f"gradient: expected points (n, 3), got {tuple(points.shape)}")
    if not h > 0:
        raise UsageError(f"gradient: h is {h}: expected a number above 0")
    if evaluations == 6:
        axes = torch.eye(3, dtype=points.dtype, device=points.device)
        offsets = torch.cat((axes, -axes))
    elif evaluations == 4:
        offsets = torch.tensor(TETRAHEDRON, dtype=points.dtype, device=points.device)
    else:
        raise UsageError(f"gradient: evaluations is {evaluations}: expected 4 or 6")
    count = len(points)
    values = function((points + h * offsets[:, None]).reshape(-1, 3)).reshape(len(offsets), count)
    if evaluations == 6:
        return (values[:3] - values[3:]).t() / (2 * h)
    return values.t() @ offsets / (4 * h)
