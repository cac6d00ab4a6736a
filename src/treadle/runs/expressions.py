"""Arithmetic over logged curves: "diff(validation, train)", "correlation(v001:validation/loss, v002:validation/loss)".

    expression = function "(" expression { "," expression } ")" | name
    function   = sum | diff | ratio | mean | correlation
    name       = [run ":"] split ["/" metric]

A name without a metric takes the one that is asked for. A name without a run is that of each run in turn; an
expression that names a run has one result. `correlation` (Pearson's) makes a number, the others a curve.

Curves that were logged at other steps than each other are brought to the steps of the one with the fewest points: of
the others it is their mean since the point before that counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from treadle.errors import UsageError, nearest
from treadle.runs.metrics import Points

_TOKEN = re.compile(r"\s*([(),]|[^\s(),]+)")


@dataclass(frozen=True)
class Call:
    """A function of curves."""

    function: str
    arguments: tuple[Call | Name, ...]


@dataclass(frozen=True)
class Name:
    """A logged curve: of `run`, or (where that is empty) of each."""

    run: str
    split: str
    metric: str


def parse(text: str) -> Call | Name:
    """Read an expression. Raises UsageError that says where it cannot be read."""
    tokens = [match[1] for match in _TOKEN.finditer(text)]
    if not tokens:
        raise UsageError("the expression is empty: write for example 'diff(validation, train)'")
    found, rest = _expression(text, tokens, 0)
    if rest < len(tokens):
        raise UsageError(f"expression {text!r}: {tokens[rest]!r} follows where it should end")
    return found


def names(node: Call | Name) -> Iterator[Name]:
    """The curves that an expression is about."""
    if isinstance(node, Name):
        yield node
    else:
        for argument in node.arguments:
            yield from names(argument)


def evaluate(node: Call | Name, curve: Callable[[Name], Points]) -> Points | float:
    """What an expression comes to: a curve, or for a correlation a number (NaN where it has none).

    Args:
        node: from `parse`.
        curve: the points of a name.
    """
    if isinstance(node, Name):
        return curve(node)
    curves = []
    for argument in node.arguments:
        value = evaluate(argument, curve)
        if isinstance(value, float):
            raise UsageError(f"{node.function}() takes curves, but correlation() makes a number")
        curves.append(value)
    steps, values = _together(curves)
    if node.function == "correlation":
        return _correlation(*values)
    return steps, FUNCTIONS[node.function][1](values)


def _expression(text: str, tokens: list[str], at: int) -> tuple[Call | Name, int]:
    if at >= len(tokens) or tokens[at] in "(),":
        what = repr(tokens[at]) if at < len(tokens) else "the end"
        raise UsageError(f"expression {text!r}: {what} stands where a name or a function is expected")
    word = tokens[at]
    if at + 1 >= len(tokens) or tokens[at + 1] != "(":
        run, colon, rest = word.rpartition(":")
        split, _, metric = rest.partition("/")
        if not split or (colon and not run):
            raise UsageError(f"expression {text!r}: {word!r} is no name such as 'train' or 'v001:validation/loss'")
        return Name(run, split, metric), at + 1
    if word not in FUNCTIONS:
        raise UsageError(f"expression {text!r}: there is no function {word!r}{nearest(word, FUNCTIONS)}")
    arguments = []
    at += 1
    while True:
        argument, at = _expression(text, tokens, at + 1)
        arguments.append(argument)
        if at >= len(tokens) or tokens[at] not in ",)":
            raise UsageError(f"expression {text!r}: a ',' or ')' is missing after an argument of {word}()")
        if tokens[at] == ")":
            break
    least, most = FUNCTIONS[word][0]
    if not least <= len(arguments) <= most:
        count = str(least) if least == most else f"at least {least}"
        raise UsageError(f"expression {text!r}: {word}() takes {count} curves, here it has {len(arguments)}")
    return Call(word, tuple(arguments)), at + 1


def _together(curves: list[Points]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The curves at the same steps: those of the one with the fewest points that all have begun by."""
    steps = min((steps for steps, _ in curves), key=len)
    if len(steps) == 0 or any(len(other) == 0 for other, _ in curves):
        return np.empty(0, np.int64), [np.empty(0) for _ in curves]
    steps = np.unique(steps)
    found = [_means(steps, *curve) for curve in curves]
    known = np.all([counts > 0 for _, counts in found], axis=0)
    return steps[known], [values[known] for values, _ in found]


def _means(at: np.ndarray, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of the steps `at` the mean of the values since the point before, and of how many it is."""
    which = np.searchsorted(at, steps)  # value k belongs to the first step at or after its own
    inside = which < len(at)
    sums = np.bincount(which[inside], values[inside], len(at))
    counts = np.bincount(which[inside], minlength=len(at))
    return sums / np.maximum(counts, 1), counts


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    good = np.isfinite(first) & np.isfinite(second)
    first, second = first[good], second[good]
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


MANY = 1000
FUNCTIONS: dict[str, tuple[tuple[int, int], Callable[[list[np.ndarray]], np.ndarray]]] = {
    "sum": ((2, MANY), lambda values: np.asarray(np.sum(values, axis=0))),
    "diff": ((2, 2), lambda values: np.asarray(values[0] - values[1])),
    "ratio": ((2, 2), lambda values: np.divide(values[0], values[1], where=values[1] != 0, out=values[0] * np.nan)),
    "mean": ((2, MANY), lambda values: np.asarray(np.mean(values, axis=0))),
    "correlation": ((2, 2), lambda values: np.empty(0)),
}
"""How many curves each takes, at least and at most, and what it makes of them."""
