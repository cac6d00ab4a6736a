"""A perceptual loss: how far the features are that VGG-19 sees in two pictures.

Treadle ships no weights and downloads none. Make the file once, where torchvision and a network are:

    import safetensors.torch, torchvision
    state = torchvision.models.vgg19(weights="DEFAULT").state_dict()
    safetensors.torch.save_file(state, "vgg19.safetensors")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from treadle.checkpoint.tensorfile import hash_tensors
from treadle.errors import StateError, UsageError, nearest
from treadle.images.pretrained import fill, read_tensors, vgg

LAYERS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
"""The layers and weights of pix2pixHD (Wang 2018, https://arxiv.org/abs/1711.11585)."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, RGB in [0, 1]
_HOW = "safetensors.torch.save_file(torchvision.models.vgg19(weights='DEFAULT').state_dict(), 'vgg19.safetensors')"


class Perceptual:
    """Feature reconstruction loss (Johnson 2016, https://arxiv.org/abs/1603.08155) with VGG-19 and L1.

    The weighted sum over layers of the mean absolute difference of their features. The network is frozen and follows
    the pictures to their device. This is no module: a trainer that has it as an attribute neither trains it nor saves
    its 50 MB. What is saved is their digest, so that the run does not go on with other weights.

    Args:
        weights: a safetensors file of VGG-19's weights under torchvision's names ("features.0.weight" ...).
        layers: the weight of each layer that counts, by name: "relu1_1" ... "relu5_4".

    Raises:
        UsageError: an unknown layer or none; a file that is missing, damaged, of another format or another network.

    Example:
        perceptual = Perceptual("vgg19.safetensors")
        loss = perceptual(fake, target)
    """

    def __init__(self, weights: str | Path, layers: Mapping[str, float] = LAYERS) -> None:
        with torch.device("meta"):  # to initialize it would draw from the run's random stream
            modules, places = _vgg19()
        for name in layers:
            if name not in places:
                raise UsageError(f"perceptual loss: VGG-19 has no layer {name!r}{nearest(name, places)}")
        if not layers:
            raise UsageError("perceptual loss: no layer is given; name at least one, such as 'relu3_1'")
        self._weights = {places[name]: weight for name, weight in layers.items()}
        self._deepest = max(layers, key=places.__getitem__)
        self._network = nn.ModuleDict({"features": nn.Sequential(*modules[: max(self._weights) + 1])})
        self._network.to_empty(device="cpu")
        path = Path(weights)
        try:
            fill(self._network, read_tensors(path, "VGG-19"), path, "VGG-19")
        except UsageError as error:
            raise UsageError(f"{error}; make it with {_HOW}") from None
        self._digest = hash_tensors(self._network.state_dict())

    def __call__(self, fake: Tensor, target: Tensor) -> Tensor:
        """Compare pictures; differentiable by both.

        Args:
            fake, target: (N, 3, H, W) or (N, 1, H, W) in [-1, 1], on the same device.

        Returns:
            A float32 scalar; under autocast only the convolutions run in half precision.

        Raises:
            UsageError: other channels, or pictures too small for the deepest layer (16 x 16 pixels for relu5).
        """
        self._network.to(fake.device)
        x, y = self._normalized(fake), self._normalized(target)
        total = torch.zeros((), device=fake.device)
        for place, layer in enumerate(self._network["features"].children()):
            x, y = layer(x), layer(y)
            if place in self._weights:
                total = total + self._weights[place] * (x.float() - y.float()).abs().mean()
        return total

    def _normalized(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) float32 with the mean 0 and deviation 1 of ImageNet's pictures, on which VGG-19 was trained."""
        _, channels, height, width = pictures.shape
        if channels not in (1, 3):
            raise UsageError(f"perceptual loss: pictures have {channels} channels, VGG-19 sees 3 (RGB) or 1 (gray)")
        least = 2 ** (int(self._deepest[4]) - 1)  # "relu5_1" comes after four halvings
        if min(height, width) < least:
            raise UsageError(
                f"perceptual loss: {self._deepest} needs {least} x {least} pixels at least, not {height} x {width}"
            )
        mean, deviation = (pictures.new_tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (_MEAN, _DEVIATION))
        return ((pictures.float() + 1) / 2 - mean) / deviation

    def state_dict(self) -> dict[str, Any]:
        """The SHA-256 of the weights."""
        return {"weights": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the weights are those of the saved run. Raises StateError where they are others."""
        if state["weights"] != self._digest:
            raise StateError("the perceptual loss has other VGG-19 weights than the saved run: give it the same file")


def _vgg19() -> tuple[list[nn.Module], dict[str, int]]:
    """The modules of torchvision's vgg19().features up to the last ReLU, and the place of each ReLU by its name."""
    modules: list[nn.Module] = []
    places: dict[str, int] = {}
    for stage, layers in enumerate(vgg(2, 2, 4, 4, 4), start=1):
        relus = [len(modules) + place for place, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
        places |= {f"relu{stage}_{number}": place for number, place in enumerate(relus, start=1)}
        modules += layers
    return modules, places
