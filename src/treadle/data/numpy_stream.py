"""NumPy's global random stream, exchanged whole: the generator and the Gaussian that it keeps for the next call.

`np.random.randn()` makes Gaussians in pairs and keeps the second outside the bit generator. Exchanging only generators
would drop it, so that a stream left between the two would go on with other numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Typed as Any: NumPy's stubs do not know get_bit_generator and set_bit_generator, which are public.
_numpy_random: Any = np.random
_key_of: Any = np.random.MT19937.state

Stream = tuple[Any, float | None]
"""A generator, and the Gaussian kept for the next call if there is one."""


class MT19937(np.random.MT19937):
    """NumPy's generator, which for a moment can act as if it had no key: reading or writing that costs 30 us.

    It has the name of its base class because NumPy writes and checks that name in states.
    """

    _keyless = False

    @contextmanager
    def keyless(self) -> Iterator[None]:
        """Inside, its state has no key to read or to write."""
        self._keyless = True
        try:
            yield
        finally:
            self._keyless = False

    @property
    def state(self) -> Any:
        """As NumPy has it."""
        return {"bit_generator": "MT19937"} if self._keyless else _key_of.__get__(self)

    @state.setter
    def state(self, value: Any) -> None:
        if not self._keyless:
            _key_of.__set__(self, value)


def exchange(stream: Stream) -> Stream:
    """Make `stream` NumPy's global one; returns the one that was."""
    before = current()
    generator, gauss = stream
    _numpy_random.set_bit_generator(generator)
    if gauss is not None:
        kept = {"has_gauss": 1, "gauss": gauss}
        if isinstance(generator, MT19937):
            with generator.keyless():
                np.random.set_state({"bit_generator": "MT19937", "state": {}, **kept})
        else:
            np.random.set_state({**generator.state, **kept})
    return before


def current() -> Stream:
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
    with generator.keyless():
        return generator, _gauss(np.random.get_state(legacy=False))


def _gauss(state: dict[str, Any]) -> float | None:
    return float(state["gauss"]) if state["has_gauss"] else None
