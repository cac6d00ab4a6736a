"""Stand-ins for published weights and for pictures: the same everywhere, so that a reference's figures can be kept."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file


def stand_in(name, shape):
    """A tensor that depends on its name and shape alone, scaled so that activations stay moderate."""
    values = np.random.default_rng(zlib.crc32(name.encode())).random(tuple(shape), dtype=np.float32)
    if name.endswith(("running_mean", "bias")):
        values = 0.2 * values - 0.1
    elif len(shape) == 1:  # batch norm's variance and weight
        values = 0.5 + values
    elif "lin" in name:
        values = values / shape[1]
    else:
        values = (2 * values - 1) * (6 / np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(np.asarray(values, np.float32))


@pytest.fixture
def weights_file(tmp_path):
    """A function: a safetensors file of stand-ins for a network (`change` edits the dictionary of tensors first)."""

    def write(network, change=lambda tensors: None):
        tensors = {name: stand_in(name, value.shape) for name, value in network.state_dict().items()}
        tensors = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
        change(tensors)
        save_file(tensors, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return write


@pytest.fixture
def noise():
    """A function: a picture (1, C, H, W) of noise in [-1, 1], levels of 8 bits."""

    def draw(seed, size=(64, 80), channels=3):
        values = np.random.default_rng(seed).random((1, channels, *size))
        return torch.from_numpy(np.floor(values * 256)).float() / 127.5 - 1

    return draw
