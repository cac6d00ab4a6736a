"""The compiled loops of the codebook: choosing entries, and the gradients of the choice.

Rows are cut into parts, each row is written by one thread. The gradient to the dictionary is cut by levels: every level
is summed by one thread, in the order of the rows. So results are bitwise equal on any number of threads.

`unit` is a tuple with as many entries as an entry has features, which unrolls the loops over them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import math

import numpy as np

from treadle.kernels.compiling import compiled


@compiled()
def forward(logits, dictionary, first_row, unit, choices, out, part, parts):
    """Write which entry each row chooses (rows,), and the entry itself (rows, features)."""
    real = logits.dtype.type
    rows, entries = logits.shape
    level = 0
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        while row >= first_row[level + 1]:
            level += 1
        best, flaw = 0, False
        for k in range(entries):
            flaw = flaw or logits[row, k] != logits[row, k]
            if logits[row, k] > logits[row, best]:
                best = k
        choices[row] = best
        for f in range(len(unit)):
            # A NaN is passed on, to be seen in the result.
            out[row, f] = real(np.nan) if flaw else dictionary[level, best, f]


@compiled()
def logit_gradient(logits, dictionary, first_row, unit, sharpness, grad, grad_logits, part, parts):
    """Write the gradient to the logits: that of the softmax-weighted mean of the entries."""
    real = logits.dtype.type
    zero, sharp = real(0), real(sharpness)
    rows, entries = logits.shape
    pulls, shares = np.empty(entries, logits.dtype), np.empty(entries, logits.dtype)
    level = 0
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        while row >= first_row[level + 1]:
            level += 1
        pulled = False
        for f in range(len(unit)):
            pulled = pulled or grad[row, f] != zero
        if not pulled:
            for k in range(entries):
                grad_logits[row, k] = zero
            continue
        most = logits[row, 0]
        for k in range(1, entries):
            most = max(most, logits[row, k])
        total, mean = zero, zero
        for k in range(entries):
            shares[k] = math.exp(sharp * (logits[row, k] - most))
            pull = zero
            for f in range(len(unit)):
                pull += grad[row, f] * dictionary[level, k, f]
            pulls[k] = pull
            total += shares[k]
            mean += shares[k] * pull
        mean /= total
        for k in range(entries):
            grad_logits[row, k] = sharp * (shares[k] / total) * (pulls[k] - mean)


@compiled()
def dictionary_gradient(choices, first_row, unit, grad, grad_dictionary, part, parts):
    """Add up the gradient to each entry; part k sums levels k, k + parts, k + 2 parts ..."""
    for level in range(part, grad_dictionary.shape[0], parts):
        for row in range(first_row[level], first_row[level + 1]):
            for f in range(len(unit)):
                grad_dictionary[level, choices[row], f] += grad[row, f]
