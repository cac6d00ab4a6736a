"""A trained codebook grid without its logits, and the small file that it is kept in.

The file is a safetensors file (https://github.com/huggingface/safetensors#format) with these tensors:

- "tree" (U8): which cells there are. All 8^base cells of the base level are; for every cell of every level but the
  finest, in Morton order (bits of x, y, z in turn, x lowest), a byte whose bit x + 2 y + 4 z says that this child is.
- "indices" (U8): for every corner of those cells, level by level, in Morton order of the corners, which entry of the
  dictionary it is: `bits` bits each, one after another, the lowest first, from the lowest bit of each byte.
- "dictionary" (F32): (levels, 2^bits, features).
- others that whoever writes the file adds, such as a decoder's weights.

Its metadata: "format" is "treadle.codebook", "version" "1", "base" and "bits" as decimal numbers; others that whoever
writes the file adds; last "sha256", the hash, in hex, of the file as it would be without this entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from treadle.checkpoint.tensorfile import pieces
from treadle.errors import UsageError
from treadle.fields.grid import Grid
from treadle.fields.grids.hash import kept
from treadle.files import read_regular, reason, write_whole
from treadle.kernels.octree import encode
from treadle.kernels.octree_index import OctreeIndex

FORMAT, VERSION = "treadle.codebook", "1"
OWN_TENSORS = ("tree", "indices", "dictionary")
OWN_METADATA = ("format", "version", "base", "bits", "sha256")


class BakedCodebookGrid(Grid):
    """A codebook grid for inference: buffers instead of parameters, of the sizes that they have in a file.

    Buffers: `tree`, `indices` and `dictionary`, as this file's beginning says. The features at the corners follow from
    them, and take 4 bytes each in memory; what is saved are the buffers.

    Raises:
        UsageError: buffers that do not fit each other, naming what is wrong.
    """

    tree: Tensor
    indices: Tensor
    dictionary: Tensor

    def __init__(self, tree: Tensor, indices: Tensor, dictionary: Tensor, base: int, bits: int) -> None:
        super().__init__()
        if dictionary.dim() != 3 or not dictionary.is_floating_point() or not 1 <= bits <= 8:
            raise UsageError(f"a dictionary of shape {tuple(dictionary.shape)} and {bits} bits")
        self.levels, entries, self.features = dictionary.shape
        if entries != 2**bits or self.features < 1 or not bool(dictionary.isfinite().all()):
            raise UsageError(f"a dictionary of {entries} entries for {bits} bits, or one with NaN in it")
        for name, tensor in (("tree", tree), ("indices", indices)):
            if tensor.dim() != 1 or tensor.dtype != torch.uint8:
                raise UsageError(f"{name} are {tensor.dtype} of shape {tuple(tensor.shape)}, not bytes")
        self.dimensions, self.width, self.base, self.bits = 3, self.levels * self.features, base, bits
        self.register_buffer("tree", tree)
        self.register_buffer("indices", indices)
        self.register_buffer("dictionary", dictionary)
        self._unpack()

    @classmethod
    def of(cls, index: OctreeIndex, choices: Tensor, dictionary: Tensor) -> BakedCodebookGrid:
        """Of an octree with all cells of its base level, which entry each of its rows is (rows,), and the entries."""
        bits = (dictionary.shape[1] - 1).bit_length()
        device = choices.device
        ones = (choices[:, None] >> torch.arange(bits, device=device)) & 1
        packed = np.packbits(ones.to(torch.uint8).cpu().numpy().reshape(-1), bitorder="little")
        there = index.records[: index.first_cell[-2], :8] >= 0
        tree = (there.to(torch.uint8) << torch.arange(8, dtype=torch.uint8, device=device)).sum(1).to(torch.uint8)
        return cls(tree, torch.from_numpy(packed).to(device), dictionary.detach().clone(), index.base, bits)

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, 3) as (n, levels * features); zeros outside of the box."""
        found = encode(points.to(self._table.dtype), self._table, self._index)
        return found if lod is None else kept(found, lod, self.features)

    @property
    def bytes(self) -> int:
        """What the grid takes in a file, without the header: its cells, its indices, its dictionary."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def _unpack(self) -> None:
        """Make of the buffers the index, and the features of every row (rows, features)."""
        self._index = OctreeIndex.of_levels(_read_tree(self.tree, self.base, self.levels), self.base)
        rows = self._index.rows
        if len(self.indices) != (rows * self.bits + 7) // 8:
            raise UsageError(f"{len(self.indices)} bytes of indices for {rows} corners of {self.bits} bits")
        ones = np.unpackbits(self.indices.cpu().numpy(), count=rows * self.bits, bitorder="little")
        numbers = ones.reshape(rows, self.bits).astype(np.int64) @ (1 << np.arange(self.bits))
        first = torch.tensor(self._index.first_row)
        level = torch.arange(self.levels).repeat_interleave(first.diff())
        at = (level * 2**self.bits + torch.from_numpy(numbers)).to(self.dictionary.device)
        self._table = self.dictionary.flatten(0, 1)[at]

    def _apply(self, function: Any, recurse: bool = True) -> BakedCodebookGrid:
        """Move or convert; what follows from the buffers goes where they go."""
        super()._apply(function, recurse)
        self._unpack()
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Take the buffers of a state, of whatever length, and what follows from them."""
        for name in ("tree", "indices"):
            saved = state.get(prefix + name)
            if isinstance(saved, Tensor) and saved.dim() == 1:
                setattr(self, name, torch.empty(len(saved), dtype=torch.uint8, device=self.tree.device))
        super()._load_from_state_dict(state, prefix, *arguments)
        self._unpack()

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return (
            f"levels={self.base} to {self.base + self.levels - 1}, features={self.features}, bits={self.bits}, "
            f"rows={self._index.rows}, bytes={self.bytes}"
        )


def _read_tree(tree: Tensor, base: int, levels: int) -> list[Tensor]:
    """The cells of each level, as Morton codes; raises UsageError where the bytes are none of such a tree."""
    OctreeIndex.of(torch.zeros(1, dtype=torch.int64), base, levels)  # says what is out of range
    found, start = [torch.arange(8**base, device=tree.device)], 0
    octants = torch.arange(8, device=tree.device)
    for _ in range(levels - 1):
        masks = tree[start : start + len(found[-1])]
        if len(masks) < len(found[-1]):
            raise UsageError(f"a tree of {len(tree)} bytes ends before its cells do")
        start += len(masks)
        there = ((masks[:, None] >> octants) & 1).bool()
        found.append((found[-1][:, None] * 8 + octants)[there])
    if start != len(tree) or len(found[-1]) == 0:
        raise UsageError(f"a tree of {len(tree)} bytes for {start} cells, and {len(found[-1])} of the finest level")
    return found


@dataclass(frozen=True)
class Compact:
    """What a compact file holds: the grid, the other tensors by name, the other metadata by name."""

    grid: BakedCodebookGrid
    tensors: Mapping[str, Tensor]
    about: Mapping[str, str]


def write_compact(
    path: Path,
    grid: BakedCodebookGrid,
    tensors: Mapping[str, Tensor] | None = None,
    about: Mapping[str, str] | None = None,
) -> int:
    """Write a baked grid, and what belongs to it, as one file, whole or not at all; returns its bytes.

    Args:
        path: where.
        grid: what.
        tensors: others, such as the decoder's weights, under names that are none of the grid's.
        about: further metadata, such as the settings of the decoder.
    """
    own = {name: getattr(grid, name) for name in OWN_TENSORS}
    tensors, about = dict(tensors or {}), dict(about or {})
    taken = [name for name in (*tensors, *about) if name in (*OWN_TENSORS, *OWN_METADATA)]
    if taken:
        raise UsageError(f"{path}: {taken[0]!r} is what the grid's own is called: give it another name")
    everything = own | tensors
    metadata = {"format": FORMAT, "version": VERSION, "base": str(grid.base), "bits": str(grid.bits), **about}
    sha = hashlib.sha256(b"".join(pieces(everything, metadata)))
    content = b"".join(pieces(everything, {**metadata, "sha256": sha.hexdigest()}))
    write_whole(path, content)
    return len(content)


def read_compact(path: Path) -> Compact:
    """Read what `write_compact` wrote. Raises UsageError naming the file where it is damaged, or none of these."""
    try:
        content = read_regular(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    try:
        tensors = load(content)
        about, unsigned = _opened(content)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is damaged, or not a safetensors file: {error}") from None
    if about.get("format") != FORMAT or any(name not in about for name in OWN_METADATA):
        raise UsageError(f"{path} is not a compact field: its format is {about.get('format')!r}, not {FORMAT!r}")
    if about["version"] != VERSION:
        raise UsageError(f"{path} has version {about['version']} of the format; this release reads {VERSION}")
    if hashlib.sha256(unsigned).hexdigest() != about["sha256"]:
        raise UsageError(f"{path} is damaged: its content is not what was written; export it again")
    try:
        tree, indices, dictionary = (tensors.pop(name) for name in OWN_TENSORS)
        grid = BakedCodebookGrid(tree, indices, dictionary, int(about["base"]), int(about["bits"]))
    except (KeyError, ValueError, UsageError) as error:
        raise UsageError(f"{path} is damaged: {error}; export it again") from None
    return Compact(grid, tensors, {name: text for name, text in about.items() if name not in OWN_METADATA})


def _opened(content: bytes) -> tuple[dict[str, str], bytes]:
    """The metadata of a safetensors file, and the file as it would be without "sha256" among them."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.get("__metadata__", {})
    others = {name: text for name, text in metadata.items() if name != "sha256"}
    text = json.dumps({**header, "__metadata__": others}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return metadata, len(text).to_bytes(8, "little") + text + content[end:]
