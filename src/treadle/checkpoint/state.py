"""A complete state as tensors and plain data, captured from named sections and restored into them.

Works without a trainer. A section is anything with `state_dict()` and `load_state_dict()`; `Objects` is one for
whatever has state of its own, `Value` for a single value:

    sections = {"progress": progress, "attributes": Objects("attribute", loop, lambda: {"model": model, "opt": opt})}
    state = capture(sections)                # tensors are references: state.copy() is a snapshot
    restore(sections, state)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from treadle.checkpoint.kinds import Kinds
from treadle.checkpoint.packing import Packer, Plain, unpack
from treadle.checkpoint.tensorfile import hash_tensors
from treadle.errors import StateError
from treadle.kernels import streaming

FORMAT = 1


class Section(Protocol):
    """A named part of a state."""

    def state_dict(self) -> Any:
        """What is to be saved: nested plain data and tensors, which are referred to, not copied."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore what `state_dict` gave."""


class Value:
    """A section that is a single value, read by one function and restored by another."""

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        self.state_dict = read
        self.load_state_dict = write


@dataclass
class State:
    """A complete training state.

    `values` is plain data (JSON) in which tensors are named; `tensors` holds them by slash-separated path. `clock` is
    what belongs to the run but not to its digest: wall-clock seconds, and what observers keep. `frame` is known in the
    process alone that captured the state: which objects its entries are of.
    """

    values: dict[str, Plain]
    tensors: dict[str, Tensor]
    clock: dict[str, Any] = field(default_factory=dict)
    frame: Any = None

    @property
    def step(self) -> int:
        """Finished steps; of a state of somebody's own loop, the number that it was saved by."""
        return int(self.values.get("progress", self.clock).get("step", 0))

    @property
    def epoch(self) -> int:
        """Finished epochs; 0 where the state is one of somebody's own loop."""
        return int(self.values["progress"]["epoch"]) if "progress" in self.values else 0

    def copy(self, into: State | None = None) -> State:
        """A copy with CPU memory of its own, that of `into` where it has tensors of the same shape and dtype.

        Fresh memory would cost a page fault per 4 KB, six times the copying itself.
        """
        buffers: dict[str, Tensor] = {}
        for path, tensor in self.tensors.items():
            buffer = into.tensors.get(path) if into is not None else None
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            buffers[path] = streaming.copy(buffer, tensor)
        return State(self.values, buffers, self.clock, self.frame)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over everything but the clock: equal digests mean equal runs."""
        return digest_of(self.values, hash_tensors(self.tensors))


def digest_of(values: Mapping[str, Plain], tensors_sha256: str) -> str:
    """The digest of a state, of its plain data and the SHA-256 of its tensors as a safetensors file."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{text}\n{tensors_sha256}".encode()).hexdigest()


def capture(sections: Mapping[str, Section], kinds: Kinds | None = None) -> State:
    """The state of all sections; tensors are references, not copies.

    The entries of "attributes" are told apart by their own names, those of other sections by "section/name". `kinds`
    names the program's own enumerations, named tuples and dataclasses. Raises StateError naming what has state and
    cannot be saved.
    """
    packer = Packer(kinds)
    values: dict[str, Plain] = {"format": FORMAT}
    for name, section in sections.items():
        values[name] = packer.pack(section.state_dict(), "" if name == "attributes" else name)
    return State(values, packer.tensors)


def restore(sections: Mapping[str, Section], state: State, kinds: Kinds | None = None) -> None:
    """Put all sections, in their order, into `state`, that `capture` gave with the same `kinds`.

    Raises StateError naming what the sections have and the state has not, or the other way round.
    """
    # A copy: what is restored lives on and changes, and `state` may be restored again.
    values, tensors = state.values, state.copy().tensors
    if values.get("format") != FORMAT:
        raise StateError(f"the checkpoint has format {values.get('format')!r}; this version reads {FORMAT}")
    for name, section in sections.items():
        if name not in values:
            raise StateError(f"the checkpoint has no section {name!r}: it is not of such a run")
        section.load_state_dict(unpack(values[name], tensors, kinds))
