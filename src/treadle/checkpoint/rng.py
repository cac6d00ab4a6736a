"""A trainer's own random streams: the global generators of Python, NumPy and torch, swapped in while it runs."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from treadle.data import numpy_stream
from treadle.data.sampler import derive_seed


class RandomStreams:
    """The state of Python's, NumPy's and torch's global generators as one trainer sees them.

    Inside `with streams:` the global generators continue where this object left them; outside, the program's own
    streams are back untouched. Two trainers in one process therefore draw what each would draw alone.

    The CUDA generator is swapped only when `device` is a CUDA device.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._python: Any = random.Random(derive_seed(seed, "python")).getstate()
        self._numpy: numpy_stream.Stream = numpy_stream.MT19937(derive_seed(seed, "numpy") % 2**32), None
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
        self._numpy = numpy_stream.exchange(self._numpy)
        if self._cuda is not None and self._gpu is not None:
            gpu = torch.cuda.get_rng_state(self._cuda)
            torch.cuda.set_rng_state(self._gpu, self._cuda)
            self._gpu = gpu

    def state_dict(self) -> dict[str, Any]:
        """The streams as plain data and tensors, whether they are swapped in or not."""
        inside = self._depth > 0
        version, words, gauss = random.getstate() if inside else self._python
        generator, normal = numpy_stream.current() if inside else self._numpy
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
        generator = numpy_stream.MT19937(0)
        key = state["numpy"]["key"].numpy().astype(np.uint32)
        generator.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": state["numpy"]["pos"]}}
        stream = generator, state["numpy"]["gauss"]
        if self._depth > 0:
            random.setstate(python)
            numpy_stream.exchange(stream)
            torch.set_rng_state(state["torch"])
        else:
            self._python, self._numpy, self._torch = python, stream, state["torch"]
        if self._cuda is not None and "cuda" in state:
            if self._depth > 0:
                torch.cuda.set_rng_state(state["cuda"], self._cuda)
            else:
                self._gpu = state["cuda"]
