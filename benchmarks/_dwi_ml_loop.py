"""dwi_ml's training loop for Learn2Track, written out: what a batch costs there.

From its description (github.com/scil-vital/dwi_ml, `general/training/trainers.py` and `projects/Learn2track`). Lines
are Python lists of tensors from beginning to end; the volume is read by torch's indexing, eight corners a point;
previous directions, targets and losses are made line by line; the layers run on packed sequences, sorted by length and
back; Adam is torch's default; and before each batch all objects of the process are looked through for tensors, for a
line of the log that is off by default (`log_gpu_per_tensor`). Its half voxel in the interpolation is put right here, so
that both sides compute the same numbers.
"""

from __future__ import annotations

import copy
import gc
import importlib
import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, invert_permutation, pack_sequence

from treadle.tracts.models.direction_model import DirectionModel

LIBRARIES = ("dipy.data", "dipy.io.streamline", "h5py", "matplotlib.pyplot", "nibabel", "scipy.ndimage", "tqdm")
"""What its process has imported, too, as far as it is here: the scan looks through their objects."""


def import_libraries() -> list[str]:
    """Import what is there of LIBRARIES."""
    found = []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        found.append(name.partition(".")[0])
    return sorted(set(found))


def scan() -> str:
    """Look through all objects for tensors, as `log_gpu_per_tensor` does."""
    names: list[str] = []
    sizes: list[float] = []
    ignored = 0
    with warnings.catch_warnings(action="ignore"):  # some objects say that they are deprecated when they are asked
        for thing in gc.get_objects():
            try:
                if not (torch.is_tensor(thing) or (hasattr(thing, "data") and torch.is_tensor(thing.data))):
                    raise TypeError
            except Exception:
                ignored += 1
                continue
            names.append(type(thing).__name__)
            sizes.append(thing.nelement() * thing.element_size() / 1024**3)
    lines = [f"{len(names)} tensors, {ignored} other objects"]
    for name, count in sorted(Counter(names).items()):
        own = [size for other, size in zip(names, sizes, strict=True) if other == name]
        lines.append(f"{count} x {name}: {np.sum(own):.2f} GB, the largest {np.max(own):.2f}")
    return "\n".join(lines)


def trilinear(volume: Tensor, points: Tensor) -> Tensor:
    """Values (n, f) of a volume at points (n, 3) with corner origin: all corners at once, then their weighted sum."""
    corners = torch.tensor(list(itertools.product((0, 1), repeat=3)), dtype=torch.float)
    centred = points - 0.5
    upper = torch.as_tensor(volume.shape[:3]) - 1
    index = (centred[:, None] + corners).floor().reshape(-1, 3).long()
    index = torch.minimum(index.clamp_min(0), upper)
    part = (centred - centred.floor())[:, None]
    weights = torch.where(corners == 1, part, 1 - part).prod(2)[:, :, None]
    values = volume[index[:, 0], index[:, 1], index[:, 2], :].reshape(len(points), 8, volume.shape[3])
    total = torch.zeros(len(points), volume.shape[3])
    for corner in range(8):
        total += values[:, corner, :] * weights[:, corner, :]
    return total


def previous_directions(directions: list[Tensor]) -> list[Tensor]:
    """The direction before each point of each line, by a loop over lines; 0 at the first."""
    nothing = torch.zeros((1, 3))
    found = []
    for line in directions:
        kept = torch.zeros((len(line) + 1, 3))
        kept[:, 0:3] = torch.cat((nothing, line))
        found.append(kept)
    return found


def unpack(data: Tensor, batch_sizes: Tensor) -> list[Tensor]:
    """Sorted lines from packed data, by a loop over lines."""
    starts = np.concatenate(([0], np.cumsum(batch_sizes.numpy())[:-1]))
    lengths = [int((batch_sizes > line).sum()) for line in range(int(batch_sizes[0]))]
    return [data[torch.as_tensor(starts[:length] + line)] for line, length in enumerate(lengths)]


class Source(NamedTuple):
    """One subject: its volume and its lines."""

    volume: Tensor
    """(x, y, z, f) float32."""
    lines: Sequence[np.ndarray]
    """(n, 3) float32 each, in voxel space with corner origin; voxels are 1 mm wide."""


class Loop:
    """Trains a model of recurrent layers without embeddings and a cosine getter, whose layers it takes as they are."""

    def __init__(self, model: DirectionModel, scans: bool) -> None:
        """`scans`: look through all objects before each batch."""
        self.model, self.scans = model, scans
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=False)

    def begin_as(self, model: DirectionModel, optimizer: torch.optim.Optimizer) -> None:
        """Take the weights of another training, and the moments of its Adam."""
        self.model.load_state_dict(model.state_dict())
        self.optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for group in self.optimizer.param_groups:
            group["fused"] = False

    def epoch(self, source: Source, batches: Sequence[Sequence[int]], *, learns: bool) -> float:
        """Train on batches of lines, or validate: the mean loss, weighted by points."""
        self.model.train(learns)
        losses, counts = [], []
        for numbers in batches:
            if self.scans:
                scan()
            with nullcontext() if learns else torch.no_grad():
                loss, count = self.batch(source, numbers)
            losses.append(loss.cpu().item())
            counts.append(count)
            if learns:
                self.update(loss)
        return float(np.average(losses, weights=counts))

    def batch(self, source: Source, numbers: Sequence[int]) -> tuple[Tensor, int]:
        """The mean loss of some lines, and their points."""
        lines = [torch.as_tensor(source.lines[number]).to(dtype=torch.float) for number in numbers]
        inputs = [line[:-1, :] for line in lines]
        features = list(trilinear(source.volume, torch.cat(inputs, dim=0)).split([len(line) for line in inputs]))
        outputs = self.forward(features, inputs)
        targets = [torch.diff(line, n=1, dim=0) for line in lines]
        losses = 1 - torch.nn.CosineSimilarity(dim=-1)(torch.vstack(outputs)[:, :3], torch.vstack(targets))
        return losses.mean(), len(losses)

    def forward(self, features: list[Tensor], lines: list[Tensor]) -> list[Tensor]:
        """What the getter reads, line by line."""
        network: Any = self.model.model
        _, order = torch.sort(torch.as_tensor([len(line) for line in features]), descending=True)
        back = invert_permutation(order)
        features, lines = [features[k] for k in order], [lines[k] for k in order]
        directions = [torch.diff(line, n=1, dim=0) for line in lines]
        directions = [line / torch.linalg.norm(line, dim=-1, keepdim=True) for line in directions]
        before = pack_sequence(previous_directions(directions)).data
        packed = pack_sequence(features)
        current = PackedSequence(torch.cat((packed.data, before), dim=-1), packed.batch_sizes)
        for index, layer in enumerate(network.layers):
            data = layer(current)[0].data
            if index < len(network.layers) - 1:
                data = torch.relu(network.dropout(data))
            current = PackedSequence(data, packed.batch_sizes)
        found = unpack(self.model.getter(current.data), packed.batch_sizes)
        return [found[k] for k in back]

    def update(self, loss: Tensor) -> None:
        """Backward, the gradient's norm before and after what might clip it, Adam."""
        loss.backward()
        for _ in range(2):
            norms = [torch.norm(each.grad.detach()) for each in self.model.parameters() if each.grad is not None]
            if torch.isnan(torch.norm(torch.stack(norms)).cpu()):
                raise ValueError("exploding gradients")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
