"""The global generators of Python and NumPy, exchanged for others in a few microseconds.

NumPy's stream is exchanged whole, the generator and the Gaussian that it keeps for the next call: `np.random.randn()`
makes Gaussians in pairs and keeps the second outside the bit generator. Exchanging only generators would drop it, so
that a stream left between the two would go on with other numbers.
"""

from __future__ import annotations

import _random
import ctypes
import platform
import random
from typing import Any

import numpy as np

# NumPy's stream ----------------------------------------------------------------------------------------------------

# Typed as Any: NumPy's stubs do not know get_bit_generator and set_bit_generator, which are public.
_numpy_random: Any = np.random
_key_of: Any = np.random.MT19937.state

NumpyStream = tuple[Any, float | None]
"""A generator, and the Gaussian kept for the next call if there is one."""


class MT19937(np.random.MT19937):
    """NumPy's generator, which for a moment can act as if it had no key: reading or writing that costs 30 us.

    It has the name of its base class because NumPy writes and checks that name in states.
    """

    keyless = False
    """While set, its state has no key to read or to write."""

    @property
    def state(self) -> Any:
        """As NumPy has it."""
        return {"bit_generator": "MT19937"} if self.keyless else _key_of.__get__(self)

    @state.setter
    def state(self, value: Any) -> None:
        if not self.keyless:
            _key_of.__set__(self, value)


def exchange_numpy(stream: NumpyStream) -> NumpyStream:
    """Make `stream` NumPy's global one; returns the one that was."""
    before = current_numpy()
    generator, gauss = stream
    _numpy_random.set_bit_generator(generator)
    if gauss is not None:
        kept = {"has_gauss": 1, "gauss": gauss}
        if isinstance(generator, MT19937):
            generator.keyless = True
            try:
                np.random.set_state({"bit_generator": "MT19937", "state": {}, **kept})
            finally:
                generator.keyless = False
        else:
            np.random.set_state({**generator.state, **kept})
    return before


def current_numpy() -> NumpyStream:
    """NumPy's global stream."""
    generator = _numpy_random.get_bit_generator()
    if not isinstance(generator, MT19937):
        # The program's own, met for the first time: a twin of it takes its place, which is quick to exchange.
        state: dict[str, Any] = np.random.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            twin = MT19937(0)
            twin.state = state
            return twin, _gauss(state)
        return generator, _gauss(state)
    generator.keyless = True
    try:
        return generator, _gauss(np.random.get_state(legacy=False))
    finally:
        generator.keyless = False


def _gauss(state: dict[str, Any]) -> float | None:
    return float(state["gauss"]) if state["has_gauss"] else None


# Python's stream ---------------------------------------------------------------------------------------------------

PYTHON: Any = random._inst
"""The generator behind `random.random` and the others."""

_HEAD = object.__basicsize__
_SIZE = _random.Random.__basicsize__ - _HEAD


def _words(generator: Any) -> memoryview:
    """The memory of a generator: its place in its words, and the words. Kept with it, as both stay where they are."""
    try:
        words: memoryview = generator.treadle_words
    except AttributeError:
        words = memoryview((ctypes.c_char * _SIZE).from_address(id(generator) + _HEAD)).cast("B")
        generator.treadle_words = words
    return words


def _exchange_words(first: random.Random, second: random.Random) -> None:
    a, b = _words(first), _words(second)
    kept = bytes(a)
    a[:] = b
    b[:] = kept


def _words_can_be_exchanged() -> bool:
    """Whether this Python keeps generators as CPython does: two of them, exchanged, must draw each other's numbers."""
    try:
        first, second = random.Random(1), random.Random(2)
        expected = random.Random(2).getstate(), random.Random(1).getstate()
        _exchange_words(first, second)
        return (first.getstate(), second.getstate()) == expected
    except (TypeError, ValueError):
        return False


_QUICK = platform.python_implementation() == "CPython" and _words_can_be_exchanged()


def exchange_python(stream: random.Random) -> None:
    """Exchange the states of Python's global generator and `stream`.

    `getstate` makes 625 integers, which takes longer than all the rest of entering and leaving a trainer's streams.
    """
    if _QUICK:
        _exchange_words(PYTHON, stream)
        own: Any = stream
        PYTHON.gauss_next, own.gauss_next = own.gauss_next, PYTHON.gauss_next
    else:
        outside = PYTHON.getstate()
        PYTHON.setstate(stream.getstate())
        stream.setstate(outside)
