"""Weights of published networks, as safetensors files that the user supplies: nothing is shipped or downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from treadle.errors import UsageError


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises UsageError, saying `what` it should be, if it is none."""
    if not path.is_file():
        raise UsageError(f"no file {path}: expected the weights of {what}, a safetensors file")
    try:
        return load_file(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UsageError(f"{path} is not a safetensors file ({error}): convert the weights of {what} to one") from None


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Copy the tensors into the network's parameters and buffers of the same names; others are left out.

    Afterwards the network is in evaluation mode, in float32, without gradients. Batch norm's counts are not needed.

    Raises:
        UsageError: a tensor is missing, has another shape or values that are not finite; the message names it.
    """
    for name, own in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        given = tensors.get(name)
        if given is None:
            raise UsageError(f"{path} does not hold the weights of {what}: it has no tensor {name!r}")
        if given.shape != own.shape:
            raise UsageError(
                f"{path} does not hold the weights of {what}: {name!r} has the shape {tuple(given.shape)}, "
                f"expected {tuple(own.shape)}"
            )
        if not given.isfinite().all():
            raise UsageError(f"{path} is damaged: {name!r} has values that are NaN or infinite: convert it again")
        with torch.no_grad():
            own.copy_(given)
    network.eval().requires_grad_(False)


def vgg(*convolutions: int) -> list[list[nn.Module]]:
    """The features of a VGG (Simonyan and Zisserman 2014) with so many convolutions in each of its five stages.

    Each is 3 x 3 and followed by a ReLU; stages but the first begin with a halving.
    """
    stages: list[list[nn.Module]] = []
    channels = 3
    for count, width in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if stages else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        stages.append(layers)
    return stages
