"""The compiled loop of Adam."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.layout import BLOCK


@compiled()
def update(parameter, grad, first, second, rate, beta1, beta2, root, eps, part, parts):
    """Move flat float32 numbers: moments m += (1 - beta1) (g - m), v = beta2 v + (1 - beta2) g^2, then
    p -= rate m / (sqrt(v) / root + eps). Parts are whole blocks: a number is computed alike in any number of them."""
    one = np.float32(1)
    blocks = (parameter.size + BLOCK - 1) // BLOCK
    low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, parameter.size)
    # From 0 on: only then the compiler sees that no index is negative, and vectorizes.
    p, g, first, second = parameter[low:high], grad[low:high], first[low:high], second[low:high]
    for i in range(p.size):
        m = first[i] + (one - beta1) * (g[i] - first[i])
        v = beta2 * second[i] + (one - beta2) * g[i] * g[i]
        first[i], second[i] = m, v
        p[i] -= rate * m / (np.sqrt(v) / root + eps)
