"""Randomness: derived seeds, seeds of single samples, and the global generators of Python, NumPy and torch.

The global generators are lent: to a trainer while it runs (`RandomStreams`), to a sample while it is made
(`scoped_generators`); afterwards the program's own streams are back untouched.

NumPy's stream is exchanged whole, the generator and the Gaussian that it keeps for the next call: `np.random.randn()`
makes Gaussians in pairs and keeps the second outside the bit generator. Exchanging only generators would drop it, so
that a stream left between the two would go on with other numbers.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *parts: int | str) -> int:
    """A new seed, in [0, 2**63), from `seed` and what it is for: `derive_seed(seed, "order", epoch)`.

    The same on every platform and version; different parts give independent seeds (64 bits of BLAKE2b), and the integer
    1 is another part than the string "1".
    """
    text = f"i{int(seed)}"
    for part in parts:
        text += f"|s{len(part)}:{part}" if isinstance(part, str) else f"|i{int(part)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of everything random about sample `index` in `epoch`."""
    return derive_seed(seed, "sample", epoch, index)


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of sample `index` in `epoch`: the same in every process, another in every epoch."""
    return np.random.Generator(np.random.PCG64(sample_seed(seed, epoch, index)))


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


def exchange_numpy(stream: NumpyStream) -> NumpyStream:
    """Make `stream` NumPy's global one; returns the one that was."""
    before = current_numpy()
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
    with generator.keyless():
        return generator, _gauss(np.random.get_state(legacy=False))


def _gauss(state: dict[str, Any]) -> float | None:
    return float(state["gauss"]) if state["has_gauss"] else None


# The generators, lent ----------------------------------------------------------------------------------------------

# Global generators can serve one scope at a time: feeds of trainers in other threads wait for this one.
_lock = threading.RLock()
# NumPy generators to lend to scopes (one, unless scopes are nested): to make one costs 100 us.
_spare: list[MT19937] = []


@contextmanager
def scoped_generators() -> Iterator[None]:
    """Inside, the global generators of Python, NumPy and torch (CPU) may be seeded and used; afterwards they are back.

    Another thread that draws from the global generators meanwhile draws from the scope: with several trainers in
    threads, give datasets `sample(index, rng)`, which needs no scope.
    """
    with _lock:
        python, cpu = random.getstate(), torch.get_rng_state()
        # Exchanging NumPy's stream is 30 times faster than reading and writing its state.
        lent = _spare.pop() if _spare else MT19937(0)
        outside = exchange_numpy((lent, None))
        try:
            yield
        finally:
            random.setstate(python)
            exchange_numpy(outside)
            torch.set_rng_state(cpu)
            _spare.append(lent)


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU); only inside `scoped_generators`."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


class RandomStreams:
    """The state of Python's, NumPy's and torch's global generators as one trainer sees them.

    Inside `with streams:` the global generators continue where this object left them; outside, the program's own
    streams are back untouched. Two trainers in one process therefore draw what each would draw alone.

    The CUDA generator is swapped only when `device` is a CUDA device.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._python: Any = random.Random(derive_seed(seed, "python")).getstate()
        self._numpy: NumpyStream = MT19937(derive_seed(seed, "numpy") % 2**32), None
        self._torch = torch.Generator().manual_seed(derive_seed(seed, "torch")).get_state()
        self._gpu: torch.Tensor | None = None
        if self._cuda is not None:
            self._gpu = torch.Generator(self._cuda).manual_seed(derive_seed(seed, "cuda")).get_state()
        self._depth = 0

    def __enter__(self) -> RandomStreams:
        self._depth += 1
        if self._depth == 1:
            self._swap()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._swap()

    def _swap(self) -> None:
        """Exchange the global generators' states with the ones held here."""
        python, cpu = random.getstate(), torch.get_rng_state()
        random.setstate(self._python)
        torch.set_rng_state(self._torch)
        self._python, self._torch = python, cpu
        self._numpy = exchange_numpy(self._numpy)
        if self._cuda is not None and self._gpu is not None:
            gpu = torch.cuda.get_rng_state(self._cuda)
            torch.cuda.set_rng_state(self._gpu, self._cuda)
            self._gpu = gpu

    def state_dict(self) -> dict[str, Any]:
        """The streams as plain data and tensors, whether they are swapped in or not."""
        inside = self._depth > 0
        version, words, gauss = random.getstate() if inside else self._python
        generator, normal = current_numpy() if inside else self._numpy
        # The words are integers below 2**32: as a tensor they are compact and exact.
        state: dict[str, Any] = {
            "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
            "numpy": {
                "key": torch.from_numpy(generator.state["state"]["key"].astype(np.int64)),
                "pos": int(generator.state["state"]["pos"]),
                "gauss": normal,
            },
            "torch": torch.get_rng_state() if inside else self._torch,
        }
        if self._cuda is not None:
            state["cuda"] = torch.cuda.get_rng_state(self._cuda) if inside else self._gpu
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, whether swapped in or not."""
        python = (state["python"]["version"], tuple(state["python"]["words"].tolist()), state["python"]["gauss"])
        generator = MT19937(0)
        key = state["numpy"]["key"].numpy().astype(np.uint32)
        generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": state["numpy"]["pos"]}}
        stream = generator, state["numpy"]["gauss"]
        if self._depth > 0:
            random.setstate(python)
            exchange_numpy(stream)
            torch.set_rng_state(state["torch"])
        else:
            self._python, self._numpy, self._torch = python, stream, state["torch"]
        if self._cuda is not None and "cuda" in state:
            if self._depth > 0:
                torch.cuda.set_rng_state(state["cuda"], self._cuda)
            else:
                self._gpu = state["cuda"]
