"""Randomness: derived seeds, seeds of single samples, and the global generators of Python, NumPy and torch.

The global generators are lent: to a trainer while it runs (`RandomStreams`), to a sample while it is made
(`scoped_generators`); afterwards the program's own streams are back untouched.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from treadle.data.exchange import MT19937, PYTHON, NumpyStream, current_numpy, exchange_numpy, exchange_python
from treadle.errors import StateError
from treadle.parallel import World

T = TypeVar("T")


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


# The generators, lent ----------------------------------------------------------------------------------------------


class _Turns:
    """Who may use the global generators: one thread at a time, in the order they asked. Nested in a thread at will.

    Whoever is done hands over to the next. A `Condition` would be shorter, and makes `iterate()` 5 us dearer.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._asking: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    @property
    def wanted(self) -> bool:
        """Whether another thread waits for its turn."""
        return bool(self._asking)

    def take(self) -> None:
        """Wait for this thread's turn."""
        me = threading.get_ident()
        if self._owner == me:
            self._depth += 1
            return
        with self._changing:
            if self._owner is None:
                self._owner, self._depth = me, 1
                return
            mine = me, threading.Lock()
            mine[1].acquire()  # released by whoever hands over
            self._asking.append(mine)
        try:
            mine[1].acquire()
        except BaseException:  # an interrupt, before or after it was handed over
            with self._changing:
                waiting = mine in self._asking
                if waiting:
                    self._asking.remove(mine)
            if not waiting:
                self.give()
            raise

    def give(self) -> None:
        """The turn, as far as it was taken last, is over."""
        self._depth -= 1
        if not self._depth:
            with self._changing:
                if self._asking:
                    self._owner, turn = self._asking.popleft()
                    self._depth = 1
                    turn.release()
                else:
                    self._owner = None

    def lend(self, thread: int) -> None:
        """The turn, which some thread has, is that of another `thread` from now on, which goes on in its place."""
        with self._changing:
            self._owner = thread

    def after_fork(self) -> None:
        """In a forked child: the threads that waited, or had the turn, are not here."""
        self._changing = threading.Lock()
        self._asking.clear()
        if self._owner != threading.get_ident():
            self._owner, self._depth = None, 0


_turns = _Turns()
lend_turn = _turns.lend
os.register_at_fork(after_in_child=_turns.after_fork)
# NumPy and Python generators to lend to scopes (one pair, unless scopes are nested): to make one costs 100 us.
_spare: list[tuple[MT19937, random.Random]] = []


@contextmanager
def scoped_generators() -> Iterator[torch.Tensor]:
    """Inside, the global generators of Python, NumPy and torch (CPU) may be seeded and used; afterwards they are back.
    Gives the state of torch's, which goes on inside.

    Threads that use scopes, and trainers, wait for one another. A thread that draws from the global generators without
    one, while another is inside, draws from that one's: it should draw `with program_streams():`.
    """
    _turns.take()
    try:
        numpy, python = _spare.pop() if _spare else (MT19937(0), random.Random(0))
        cpu = torch.get_rng_state()
        exchange_python(python)
        outside = exchange_numpy((numpy, None))
        try:
            yield cpu
        finally:
            exchange_python(python)
            exchange_numpy(outside)
            torch.set_rng_state(cpu)
            _spare.append((numpy, python))
    finally:
        _turns.give()


@contextmanager
def program_streams() -> Iterator[None]:
    """Inside, no trainer in another thread is in the middle of a step: what is drawn comes from the program's streams.

    For a thread that draws random numbers while another one trains (a GUI, a server): without it, it would draw from
    the trainer's streams, and change the run.

    Example:
        with program_streams():
            noise = torch.randn(3)
    """
    _turns.take()
    try:
        yield
    finally:
        _turns.give()


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU); only inside `scoped_generators`."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the global generators, and that of a CUDA `device`; only inside `RandomStreams`."""
    seed_generators(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class RandomStreams:
    """The state of Python's, NumPy's and torch's global generators as one trainer sees them.

    Inside `with streams:` the global generators continue where this object left them; outside, the program's own
    streams are back untouched. Two trainers in one process therefore draw what each would draw alone; in two threads
    they take turns, which a trainer gives up between two steps (`give_way`).

    The CUDA generator is swapped only when `device` is a CUDA device.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._python = random.Random(derive_seed(seed, "python"))
        self._numpy: NumpyStream = MT19937(derive_seed(seed, "numpy") % 2**32), None
        self._torch = torch.Generator().manual_seed(derive_seed(seed, "torch")).get_state()
        self._gpu: torch.Tensor | None = None
        if self._cuda is not None:
            self._gpu = torch.Generator(self._cuda).manual_seed(derive_seed(seed, "cuda")).get_state()
        self._depth = 0

    def __enter__(self) -> RandomStreams:
        _turns.take()
        self._depth += 1
        if self._depth == 1:
            self._swap()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._swap()
        _turns.give()

    def give_way(self) -> None:
        """Between two steps: let another thread have its turn, where one waits for it."""
        if _turns.wanted:
            with self.outside():
                pass

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Within the block the program's own streams are back, and others may have their turn: in a pause, say."""
        depth, self._depth = self._depth, 0
        if depth:
            self._swap()
        for _ in range(depth):
            _turns.give()
        try:
            yield
        finally:
            for _ in range(depth):
                _turns.take()
            if depth:
                self._swap()
            self._depth = depth

    def _swap(self) -> None:
        """Exchange the global generators' states with the ones held here."""
        exchange_python(self._python)
        cpu = torch.default_generator.get_state()
        torch.default_generator.set_state(self._torch)
        self._torch = cpu
        self._numpy = exchange_numpy(self._numpy)
        if self._cuda is not None and self._gpu is not None:
            gpu = torch.cuda.get_rng_state(self._cuda)
            torch.cuda.set_rng_state(self._gpu, self._cuda)
            self._gpu = gpu

    def lent_to(self, function: Callable[..., T]) -> Callable[..., T]:
        """`function`, drawing from these streams whenever it is called."""

        def drawing(*args: Any, **kwargs: Any) -> T:
            with self:
                return function(*args, **kwargs)

        return drawing

    def state_dict(self) -> dict[str, Any]:
        """The streams as plain data and tensors, whether they are swapped in or not."""
        inside = self._depth > 0
        state = _packed(
            PYTHON if inside else self._python,
            current_numpy() if inside else self._numpy,
            torch.get_rng_state() if inside else self._torch,
        )
        if self._cuda is not None:
            state["cuda"] = torch.cuda.get_rng_state(self._cuda) if inside else self._gpu
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, whether swapped in or not."""
        inside = self._depth > 0
        (PYTHON if inside else self._python).setstate(_python_state(state["python"]))
        stream = _numpy_stream(state["numpy"])
        if inside:
            exchange_numpy(stream)
            torch.set_rng_state(state["torch"])
        else:
            self._numpy, self._torch = stream, state["torch"]
        if self._cuda is not None and "cuda" in state:
            if inside:
                torch.cuda.set_rng_state(state["cuda"], self._cuda)
            else:
                self._gpu = state["cuda"]


def rank_streams(seed: int, device: torch.device, world: World) -> RandomStreams | None:
    """The streams of this process alone; None where it is alone, and draws all from the run's."""
    return RandomStreams(derive_seed(seed, "rank", world.rank), device) if world.size > 1 else None


# The program's own generators, for loops of one's own ----------------------------------------------------------------


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, those of GPUs too, each by a seed derived from `seed`.

    For a loop of one's own whose states hold these generators: one that is left unseeded begins elsewhere in every
    process, and so do the digests. A trainer needs none of it: its streams follow from its own seed.
    """
    with program_streams():
        random.seed(derive_seed(seed, "python"))
        np.random.seed(derive_seed(seed, "numpy") % 2**32)
        torch.manual_seed(derive_seed(seed, "torch"))


def program_state() -> dict[str, Any]:
    """The states of the global generators of Python, NumPy and torch (with those of GPUs in use), to go on from.

    Raises StateError where NumPy's is not an MT19937, as it is unless a program has set another one.
    """
    with program_streams():
        numpy = current_numpy()
        if not isinstance(numpy[0], MT19937):
            raise StateError(
                f"NumPy's global generator is a {type(numpy[0]).__name__}, whose state is not saved: let the program "
                "draw from one of its own, numpy.random.default_rng(seed), and save that"
            )
        state = _packed(PYTHON, numpy, torch.get_rng_state())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state


def set_program_state(state: Mapping[str, Any]) -> None:
    """Let the global generators go on where `program_state` was called."""
    with program_streams():
        PYTHON.setstate(_python_state(state["python"]))
        generator, gauss = _numpy_stream(state["numpy"])
        np.random.set_state({**generator.state, "has_gauss": int(gauss is not None), "gauss": gauss or 0.0})
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state_all(state["cuda"])


def _packed(python: random.Random, numpy: NumpyStream, cpu: torch.Tensor) -> dict[str, Any]:
    """Three streams as plain data and tensors."""
    # The words are integers below 2**32: as a tensor they are compact and exact.
    version, words, gauss = python.getstate()
    generator, normal = numpy
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "key": torch.from_numpy(generator.state["state"]["key"].astype(np.int64)),
            "pos": int(generator.state["state"]["pos"]),
            "gauss": normal,
        },
        "torch": cpu,
    }


def _python_state(state: Mapping[str, Any]) -> tuple[Any, ...]:
    return state["version"], tuple(state["words"].tolist()), state["gauss"]


def _numpy_stream(state: Mapping[str, Any]) -> NumpyStream:
    generator = MT19937(0)
    key = state["key"].numpy().astype(np.uint32)
    generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": state["pos"]}}
    return generator, state["gauss"]
