"""The same network, quicker to use: what only training needs apart is done at once.

- A convolution after bilinear doubling: the two are one convolution of the small picture that makes four pixels of each
  of its own. It costs as many products, none of them with numbers that were only spread out before, and of few outputs
  (an RGB picture's three) it makes four times as many, which fill a processor's vectors.
- Batch norm after a convolution, with running statistics: part of its weights.

The results are those of the network but for the order of sums. A 512 x 384 picture takes 0.62 of the CPU time with the
U-Net of the pix2pix recipe.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from treadle.gans.convolutions import Conv

FEW = 512
"""Pixels of the small picture, below which doubling it first is quicker: weights are then all that is moved."""

_INSIDE = (
    ((0.75, 0.25, 0.0), (0.25, 0.75, 0.75), (0.0, 0.0, 0.25)),
    ((0.25, 0.0, 0.0), (0.75, 0.75, 0.25), (0.0, 0.25, 0.75)),
)
"""Along one axis, for the even and the odd of two new pixels: how much the old pixel before, here and after (rows) adds
to what each of the three taps sees."""
_FIRST = ((-0.25, 0.25, 0.0), (0.25, 0.0, 0.0))
_LAST = ((0.0, 0.0, 0.25), (0.0, 0.25, -0.25))
"""What the first and the last old pixel add to it beside this: doubling continues them, the convolution does not."""


def quickened(model: nn.Module) -> nn.Module:
    """A copy of `model`, in eval mode, that gives the same pictures sooner; parameters are shared where they stay."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared)
    for parent in list(model.modules()):
        if isinstance(parent, nn.Sequential):
            _fold_norms(parent)
    for parent in list(model.modules()):
        if isinstance(parent, nn.Sequential):
            _join_doublings(parent)
    return model


def _fold_norms(parent: nn.Sequential) -> None:
    for place in range(len(parent) - 1):
        conv, norm = parent[place], parent[place + 1]
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats and not norm.training:
            if isinstance(conv, nn.Conv2d):
                parent[place], parent[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
            elif isinstance(conv, nn.ConvTranspose2d):
                parent[place], parent[place + 1] = fuse_conv_bn_eval(conv, norm, transpose=True), nn.Identity()


def _join_doublings(parent: nn.Sequential) -> None:
    for place in range(len(parent) - 1):
        up, after = parent[place], parent[place + 1]
        holder, index = (after, 0) if isinstance(after, nn.Sequential) and len(after) else (parent, place + 1)
        conv = holder[index]
        if _doubles(up) and isinstance(conv, nn.Conv2d) and _is_plain(conv):
            parent[place], holder[index] = nn.Identity(), DoublingConv(conv)


def _doubles(module: nn.Module) -> bool:
    if not isinstance(module, nn.Upsample) or module.mode != "bilinear" or module.align_corners:
        return False
    return module.size is None and module.scale_factor in (2, 2.0, (2, 2), (2.0, 2.0))


def _is_plain(module: nn.Conv2d) -> bool:
    return type(module) in (nn.Conv2d, Conv) and (
        module.kernel_size == (3, 3)
        and module.padding in (1, (1, 1))
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
    )


class DoublingConv(nn.Module):
    """Bilinear doubling and a 3 x 3 convolution with zero padding, as one."""

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        shares = [torch.tensor(known, dtype=torch.float64) for known in (_INSIDE, _FIRST, _LAST)]
        shares[1:] = [share[:, None] for share in shares[1:]]
        # Each kernel makes the four new pixels of an old one: inside, along the borders, in the corners.
        for row, down in zip(("", "top", "bottom"), shares, strict=True):
            for column, across in zip(("", "left", "right"), shares, strict=True):
                weight = conv.weight.double().cpu()
                four = torch.einsum("apx,bqy,ocxy->oabcpq", down, across, weight).flatten(0, 2)
                self.register_buffer(f"kernel{row}{column}", four.to(conv.weight))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, 2 H, 2 W)."""
        if x.shape[2] * x.shape[3] < FEW:
            doubled = functional.interpolate(x, scale_factor=2, mode="bilinear")
            return functional.conv2d(doubled, self.conv.weight, self.conv.bias, padding=1)
        out = functional.pixel_shuffle(functional.conv2d(x, self.kernel, self.bias, padding=1), 2)
        first, last, new = slice(0, 1), slice(-1, None), {"top": slice(0, 2), "bottom": slice(-2, None)}
        for row, down in (("top", first), ("bottom", last)):
            out[:, :, new[row]] += self._made(x[:, :, down], row, (0, 1))
            for column, across in (("left", first), ("right", last)):
                corner = self._made(x[:, :, down, across], row + column, (0, 0))
                out[:, :, new[row], slice(0, 2) if column == "left" else slice(-2, None)] += corner
        for column, across in (("left", first), ("right", last)):
            places = slice(0, 2) if column == "left" else slice(-2, None)
            out[..., places] += self._made(x[..., across], column, (1, 0))
        return out

    def _made(self, x: Tensor, where: str, padding: tuple[int, int]) -> Tensor:
        kernel: Tensor = getattr(self, f"kernel{where}")
        return functional.pixel_shuffle(functional.conv2d(x, kernel, padding=padding), 2)
