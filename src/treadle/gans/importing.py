"""Networks of other programs, brought to ours: their state dicts, as torch pickles them, and what settings they want.

Known are those of the official PyTorch code of pix2pix and CycleGAN (https://github.com/junyanz/
pytorch-CycleGAN-and-pix2pix, `models/networks.py`: UnetGenerator, ResnetGenerator, NLayerDiscriminator and
PixelDiscriminator) and of NectarGAN (https://github.com/ZacharyBork/NectarGAN, `nectargan/models`: UnetGenerator and
Discriminator). What a network is, is told by the names and shapes in its file: files that lie beside it are not read.

In evaluation ours then compute what theirs do. The differences, of which none changes that:

- Where theirs normalizes without weights, ours has weights of one and biases of zero, which further training changes.
- A bias before an instance norm has no effect, and is dropped. One before a batch norm moves its running mean.
- The doublings of the official ResNet are 3 x 3 and ours 4 x 4: the fourth row and column are zero.
- Dropout leaves no trace in a file. The official U-Net has it one stage further out than the paper and ours, and the
  residual blocks of a ResNet may have it there and never do here: that matters in training only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from treadle.errors import UsageError, one_line
from treadle.files import near_sibling
from treadle.gans.patchgan import HALVINGS

Tensors = Mapping[str, Tensor]

OUTER = ("module.", "_orig_mod.")
"""What wrappers (DataParallel, compile) put before every name."""


@dataclass
class Network:
    """A network of another program, as ours.

    `settings` are those of `TranslationConfig` that make such a network, with the channels of what it takes and gives.
    """

    role: Literal["generator", "discriminator"]
    layout: str
    """Whose it was: "official U-Net"."""
    settings: dict[str, Any]
    inputs: int
    outputs: int = 1
    weights: dict[str, Tensor] = field(default_factory=dict)
    """By our names."""


def read_pickled(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file that `torch.save` wrote, read without running any code of it.

    It may be alone, or in a dict under "state_dict" as NectarGAN has it. Raises UsageError in one line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"no file {path}{near_sibling(path)}: expected one that torch.save wrote")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file can hold anything, and each kind of it fails in its own way
        raise UsageError(
            f"{path} cannot be read as weights alone ({one_line(error)[:120]}): save the network's state_dict()"
        ) from None
    while isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UsageError(f"{path} holds no state dict: save the network's state_dict()")
    return {str(name): value for name, value in found.items()}


def recognise(tensors: Tensors, where: str = "the weights", norm: str | None = None) -> Network:
    """The network that a state dict is of, as ours.

    Args:
        tensors: as its program saved it; "module." before every name is dropped.
        where: what messages call it.
        norm: "instance" takes the weights of a batch norm for those of an instance norm: by a picture's own statistics
            the official `test.py` normalizes, unless it is given --eval.

    Raises UsageError in one line for a network that ours cannot be, naming what is in the way.
    """
    known = _Names(_unwrapped(tensors), where, norm)
    if known.has("model.model.0.weight"):
        return _official_unet(known)
    if known.has("model.1.weight") and not known.has("model.0.weight"):
        return _official_resnet(known)
    if known.has("net.0.weight"):
        return _official_pixel(known)
    if known.has("initial_down.conv.0.weight"):
        return _nectar_unet(known)
    if known.has("model.2.conv.0.weight"):
        return _nectar_discriminator(known)
    if known.has("model.0.weight"):
        return _official_discriminator(known)
    if known.has("sequence.1.weight"):
        raise UsageError(
            f"{where} is NectarGAN's ResNet, whose blocks are 1 x 1, 3 x 3 and 1 x 1 convolutions with a ReLU after "
            "their sum: Treadle's ResNet has none such"
        )
    first = next(iter(tensors), "nothing")
    raise UsageError(
        f"{where} is no network of the official pix2pix and CycleGAN code or of NectarGAN: its names begin as {first!r}"
    )


def _unwrapped(tensors: Tensors) -> dict[str, Tensor]:
    """Without what wrappers put before all names, and with spectral norm named as it is today."""
    found = dict(tensors)
    while found and (prefix := next((each for each in OUTER if all(map(_begins(each), found))), "")):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    renamed: dict[str, Tensor] = {}
    for name, value in found.items():
        for old, new in (("weight_orig", "original"), ("weight_u", "0._u"), ("weight_v", "0._v")):
            if name.endswith(f".{old}"):
                name = f"{name.removesuffix(old)}parametrizations.weight.{new}"
        renamed[name] = value
    return renamed


def _begins(prefix: str) -> Any:
    return lambda name: name.startswith(prefix)


class _Names:
    """The tensors of a state dict, taken one by one, so that what nobody took is known; and ours, as they are made."""

    def __init__(self, tensors: Tensors, where: str, norm: str | None) -> None:
        self.tensors, self.where, self._left = dict(tensors), where, dict(tensors)
        self.made: dict[str, Tensor] = {}
        self.spectral = any(name.endswith("parametrizations.weight.original") for name in tensors)
        self._wanted = norm

    def has(self, name: str) -> bool:
        return name in self.tensors or name.replace(".weight", ".parametrizations.weight.original") in self.tensors

    def weight(self, conv: str) -> Tensor:
        """The weight of the convolution `conv`; with spectral norm the one that it is made of."""
        for name in (f"{conv}.weight", f"{conv}.parametrizations.weight.original"):
            if name in self.tensors:
                self._left.pop(name, None)
                return self.tensors[name]
        raise UsageError(f"{self.where} has no {conv}.weight: it is not whole, or of another version")

    def maybe(self, name: str) -> Tensor | None:
        self._left.pop(name, None)
        return self.tensors.get(name)

    def put(self, conv: str, to: str, *, bias: bool, weight: Tensor | None = None) -> None:
        """A convolution `to` of ours; where ours has a bias and theirs none it is zero."""
        taken = self.weight(conv)
        value = taken if weight is None else weight
        if f"{conv}.weight" in self.tensors:
            self.made[f"{to}.weight"] = value.clone().contiguous()
        else:
            self._put_spectral(conv, to, value)
        theirs = self.maybe(f"{conv}.bias")
        if bias:
            self.made[f"{to}.bias"] = torch.zeros(self._outputs(conv)) if theirs is None else theirs.clone()

    def _put_spectral(self, conv: str, to: str, value: Tensor) -> None:
        place = f"{to}.parametrizations.weight"
        self.made[f"{place}.original"] = value.clone().contiguous()
        u = self.maybe(f"{conv}.parametrizations.weight.0._u")
        if u is None:
            raise UsageError(f"{self.where} has no singular vector of {conv} (weight_u): it is not whole")
        v = self.maybe(f"{conv}.parametrizations.weight.0._v")
        if v is None:  # torch before 1.0 kept one of the two
            v = functional.normalize(torch.mv(value.flatten(1).t(), u), dim=0, eps=1e-12)
        self.made[f"{place}.0._u"], self.made[f"{place}.0._v"] = u.clone(), v.clone()

    def norm_of(self, conv: str, norm: str) -> str:
        """How the outputs of `conv` are normalized, by what is kept of `norm` and whether there is a bias."""
        kept = {key for key in ("weight", "running_mean") if f"{norm}.{key}" in self.tensors}
        if kept == {"weight", "running_mean"}:
            return self._wanted or "batch"
        return "instance" if kept or f"{conv}.bias" in self.tensors else "none"

    def put_normed(self, conv: str, norm: str, to: str, kind: str, weight: Tensor | None = None) -> None:
        """A convolution and its norm, as `normed` makes them of ours."""
        if kind == "none":
            return self.put(conv, f"{to}.0", bias=True, weight=weight)
        self.put(conv, f"{to}.0", bias=False, weight=weight)
        bias = self.tensors.get(f"{conv}.bias")
        theirs = {key: self.maybe(f"{norm}.{key}") for key in ("weight", "bias", "running_mean", "running_var")}
        batches = self.maybe(f"{norm}.num_batches_tracked")
        channels = self._outputs(conv)
        scale, shift = theirs["weight"], theirs["bias"]
        self.made[f"{to}.1.weight"] = torch.ones(channels) if scale is None else scale.clone()
        self.made[f"{to}.1.bias"] = torch.zeros(channels) if shift is None else shift.clone()
        if kind == "batch":
            mean, variance = theirs["running_mean"], theirs["running_var"]
            if mean is None or variance is None:
                raise UsageError(f"{self.where} has no running statistics of {norm}: it is not whole")
            self.made[f"{to}.1.running_mean"] = mean.clone() if bias is None else mean - bias
            self.made[f"{to}.1.running_var"] = variance.clone()
            self.made[f"{to}.1.num_batches_tracked"] = torch.tensor(0) if batches is None else batches.clone()

    def _outputs(self, conv: str) -> int:
        shape = self.weight(conv).shape
        return int(shape[1] if conv in self.transposed else shape[0])

    transposed: frozenset[str] = frozenset()
    """The convolutions that are transposed: weights (inputs, outputs, ...)."""

    def done(self, network: Network) -> Network:
        """The network with what was made. Raises UsageError for a tensor that nobody took."""
        for name in self._left:
            raise UsageError(
                f"{self.where} looks like the {network.layout}, and has besides {name!r} "
                f"{tuple(self.tensors[name].shape)}: it is a variant that Treadle does not know"
            )
        network.weights = self.made
        return network


def _check_kernel(known: _Names, conv: str, size: int) -> None:
    shape = tuple(known.weight(conv).shape)
    if len(shape) != 4 or shape[2:] != (size, size):
        raise UsageError(
            f"{known.where}: {conv}.weight is {shape}, and a {size} x {size} convolution was expected there"
        )


# The official code ---------------------------------------------------------------------------------------------------


def _official_unet(known: _Names) -> Network:
    """Blocks within blocks: each has a convolution down, the next block, a transposed convolution up.

    Their ReLU stands before the convolution up and acts on skip and inner output alike, so skips are rectified. They
    are the first half of what it takes; with us they are the second.
    """
    blocks = ["model.model"]  # from the outside in
    while known.has(f"{blocks[-1]}.{1 if len(blocks) == 1 else 3}.model.1.weight"):
        blocks.append(f"{blocks[-1]}.{1 if len(blocks) == 1 else 3}.model")
    downs = len(blocks)
    down = [f"{block}.{0 if stage == 0 else 1}" for stage, block in enumerate(blocks)]
    up = [f"{block}.{5 if 0 < stage < downs - 1 else 3}" for stage, block in enumerate(blocks)]
    known.transposed = frozenset(up)
    for conv in (*down, *up):
        _check_kernel(known, conv, 4)
    if downs < 2:
        raise UsageError(f"{known.where} is a U-Net of {downs} stages: Treadle's has 2 at least")
    kind = known.norm_of(up[-1], f"{blocks[-1]}.4")
    inputs, outputs = known.weight(down[0]).shape[1], known.weight(up[0]).shape[1]
    features = known.weight(down[0]).shape[0]
    for stage, block in enumerate(blocks):
        if 0 < stage < downs - 1:
            known.put_normed(down[stage], f"{block}.2", f"encoder.{stage}.0", kind)
        else:
            known.put(down[stage], f"encoder.{stage}.0.0", bias=True)
    for stage in range(1, downs):
        norm = f"{blocks[stage]}.{4 if stage == downs - 1 else 6}"
        weight = None if stage == downs - 1 else _swapped(known.weight(up[stage]))
        known.put_normed(up[stage], norm, f"decoder.{downs - 1 - stage}.0", kind, weight)
    known.put(up[0], "head.0", bias=True, weight=_swapped(known.weight(up[0])))
    settings = {
        "generator": "unet",
        "features": features,
        "downs": downs,
        "upsampling": "transposed",
        "norm": kind,
        "rectify_skips": True,
        "residual": False,
        "padding": "zeros",
    }
    return known.done(Network("generator", "official U-Net", settings, inputs, outputs))


def _swapped(weight: Tensor) -> Tensor:
    """A transposed convolution that takes the two halves of its input in the other order."""
    return torch.cat([*reversed(weight.chunk(2))])


def _official_resnet(known: _Names) -> Network:
    """One sequence: a 7 x 7 convolution, halvings, blocks, doublings, and a 7 x 7 convolution without a norm."""
    numbers = sorted({int(match[1]) for name in known.tensors if (match := re.match(r"model\.(\d+)\.", name))})
    blocks = [number for number in numbers if known.has(f"model.{number}.conv_block.1.weight")]
    convolutions = [number for number in numbers if _is_convolution(known, f"model.{number}")]
    if not blocks:
        raise UsageError(f"{known.where} is a ResNet without residual blocks: it cannot be told what is halved in it")
    first, *halvings = [number for number in convolutions if number < blocks[0]]
    *doublings, last = [number for number in convolutions if number > blocks[-1]]
    for conv, size in [(first, 7), (last, 7), *((each, 3) for each in (*halvings, *doublings))]:
        _check_kernel(known, f"model.{conv}", size)
    known.transposed = frozenset(f"model.{number}" for number in doublings)
    for number in doublings:
        inputs, outputs = known.weight(f"model.{number}").shape[:2]
        if inputs != 2 * outputs:
            raise UsageError(f"{known.where} doubles by interpolation (model.{number}), in a way that Treadle has not")
    kind = known.norm_of(f"model.{first}", f"model.{first + 1}")
    known.put_normed(f"model.{first}", f"model.{first + 1}", "layers.0", kind)
    place = 1
    for number in halvings:
        known.put_normed(f"model.{number}", f"model.{number + 1}", f"layers.{place}", kind)
        place += 1
    for number in blocks:
        inner = f"model.{number}.conv_block"
        second = (
            6 if known.has(f"{inner}.6.weight") and _is_convolution(known, f"{inner}.6") else 5
        )  # 6 after a dropout
        known.put_normed(f"{inner}.1", f"{inner}.2", f"layers.{place}.body.0", kind)
        known.put_normed(f"{inner}.{second}", f"{inner}.{second + 1}", f"layers.{place}.body.1", kind)
        place += 1
    for number in doublings:
        weight = functional.pad(known.weight(f"model.{number}"), (0, 1, 0, 1))
        known.put_normed(f"model.{number}", f"model.{number + 1}", f"layers.{place}", kind, weight)
        place += 1
    known.put(f"model.{last}", f"layers.{place}", bias=True)
    settings = {
        "generator": "resnet",
        "features": known.weight(f"model.{first}").shape[0],
        "downs": len(halvings),
        "blocks": len(blocks),
        "upsampling": "transposed",
        "norm": kind,
    }
    inputs, outputs = known.weight(f"model.{first}").shape[1], known.weight(f"model.{last}").shape[0]
    return known.done(Network("generator", "official ResNet", settings, inputs, outputs))


def _is_convolution(known: _Names, name: str) -> bool:
    return known.has(f"{name}.weight") and known.weight(name).dim() == 4


def _official_discriminator(known: _Names) -> Network:
    numbers = sorted({int(match[1]) for name in known.tensors if (match := re.match(r"model\.(\d+)\.", name))})
    convolutions = [number for number in numbers if _is_convolution(known, f"model.{number}")]
    return _patches(known, [(f"model.{number}", f"model.{number + 1}") for number in convolutions], "official PatchGAN")


def _official_pixel(known: _Names) -> Network:
    """Three 1 x 1 convolutions; the last has a bias where norms have none, and else ours is zero."""
    for number in (0, 2, 5):
        _check_kernel(known, f"net.{number}", 1)
    kind = known.norm_of("net.2", "net.3")
    known.put("net.0", "layers.0.0", bias=True)
    known.put_normed("net.2", "net.3", "layers.1", kind)
    known.put("net.5", "layers.2", bias=True)
    shape = known.weight("net.0").shape
    settings = {"d_features": shape[0], "patch": 1, "norm": kind, "spectral": known.spectral}
    return known.done(Network("discriminator", "official PixelGAN", settings, shape[1]))


def _patches(known: _Names, convolutions: list[tuple[str, str]], layout: str, padding: str = "zeros") -> Network:
    """A PatchGAN of convolutions (name, name of the norm after it); the first and the last have none."""
    for conv, _ in convolutions:
        _check_kernel(known, conv, 4)
    fields = {halvings: size for size, halvings in HALVINGS.items() if size > 1}
    halvings = len(convolutions) - 2
    if halvings not in fields:
        raise UsageError(f"{known.where} is a PatchGAN of {len(convolutions)} layers: Treadle's have 3 to 6")
    (first, _), *middle, (last, _) = convolutions
    kind = known.norm_of(*middle[0])
    known.put(first, "layers.0.0", bias=True)
    for place, (conv, norm) in enumerate(middle, 1):
        known.put_normed(conv, norm, f"layers.{place}", kind)
    known.put(last, f"layers.{len(middle) + 1}", bias=True)
    shape = known.weight(first).shape
    settings = {
        "d_features": shape[0],
        "patch": fields[halvings],
        "norm": kind,
        "padding": padding,
        "spectral": known.spectral,
    }
    return known.done(Network("discriminator", layout, settings, shape[1]))


# NectarGAN -----------------------------------------------------------------------------------------------------------


def _nectar_unet(known: _Names) -> Network:
    """A list of blocks down and up, with instance norm without weights and reflected borders; skips as ours."""
    if residual := next((name for name in known.tensors if ".residual." in name), None):
        raise UsageError(
            f"{known.where} is NectarGAN's residual U-Net, whose stages have 1 x 1 shortcuts ({residual}): Treadle's "
            "U-Net has none such; its plain U-Net can be imported"
        )
    stages = sum(1 for name in known.tensors if re.fullmatch(r"downs\.\d+\.conv\.0\.weight", name))
    place = 0 if known.has("final_up.conv.0.weight") else 2  # after interpolation and the border
    down = ["initial_down.conv.0", *(f"downs.{stage}.conv.0" for stage in range(stages)), "bottleneck.conv.0"]
    up = [*(f"ups.{stage}.conv.{place}" for stage in range(stages + 1)), f"final_up.conv.{place}"]
    known.transposed = frozenset(up if place == 0 else ())
    for conv in (*down, *up):
        _check_kernel(known, conv, 3 if place and conv in up else 4)
    known.put(down[0], "encoder.0.0.0", bias=True)
    for stage in range(stages):
        known.put_normed(down[stage + 1], f"downs.{stage}.conv.1", f"encoder.{stage + 1}.0", "instance")
    known.put(down[-1], f"encoder.{stages + 1}.0.0", bias=True)
    inner = 0 if place == 0 else 1  # ours has the interpolation before it
    for stage in range(stages + 1):
        known.put_normed(up[stage], f"ups.{stage}.conv.{place + 1}", f"decoder.{stage}.{inner}", "instance")
    known.put(up[-1], f"head.{inner}", bias=True)
    shape = known.weight(down[0]).shape
    settings = {
        "generator": "unet",
        "features": shape[0],
        "downs": stages + 2,
        "upsampling": "bilinear" if place else "transposed",
        "norm": "instance",
        "rectify_skips": False,
        "residual": False,
        "padding": "reflect",
    }
    outputs = known.weight(up[-1]).shape[0 if place else 1]
    return known.done(Network("generator", "NectarGAN U-Net", settings, shape[1], outputs))


def _nectar_discriminator(known: _Names) -> Network:
    numbers = sorted({int(match[1]) for name in known.tensors if (match := re.match(r"model\.(\d+)\.", name))})
    first, *middle, last = numbers
    inside = [(f"model.{number}.conv.0", f"model.{number}.conv.1") for number in middle]
    # Without norm weights and biases these would pass for layers without a norm: they have one.
    for conv, _ in inside:
        known.tensors.setdefault(f"{conv}.bias", torch.zeros(known.weight(conv).shape[0]))
    convolutions = [(f"model.{first}", ""), *inside, (f"model.{last}", "")]
    return _patches(known, convolutions, "NectarGAN PatchGAN", "reflect")
