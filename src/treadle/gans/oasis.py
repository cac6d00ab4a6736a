"""A discriminator that tells the class of every pixel, or that it was made (Sushko et al. 2021, OASIS).

https://arxiv.org/abs/2012.04781. What is real must also be what the label map says: a window where a window is asked
for. The verdict on every pixel teaches a generator more in a step than that on patches does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from treadle.gans.blocks import at_least, check_size, halving, initialize


class SegmentingDiscriminator(nn.Module):
    """A U-Net with spectral normalization that sorts the pixels of a picture into classes, and one more: made.

    It judges at half the picture's size. What it gives is what `Adversarial("oasis")` takes: for every pixel the log
    likelihood of the class that it should have, and that of being made. As in the paper the former is weighted, such
    that each class that a batch has counts alike, however few pixels it has.

    Args:
        classes: the classes of the label maps.
        channels: of the pictures.
        features: channels after the first halving; they double up to 4 times this.
        downs: halvings, at least 2.

    Attributes:
        least: the smallest height and width it can judge.

    Raises:
        UsageError: an argument is out of its range.
    """

    def __init__(self, classes: int, channels: int = 3, *, features: int = 64, downs: int = 5) -> None:
        super().__init__()
        numbers = {"classes": (classes, 2), "channels": (channels, 1), "features": (features, 1), "downs": (downs, 2)}
        for what, (value, least) in numbers.items():
            at_least(what, value, least)
        self.classes = classes
        self.least = 2**downs
        widths = [features * min(2**stage, 4) for stage in range(downs)]
        self.encoder = nn.ModuleList()
        for stage, width in enumerate(widths):
            self.encoder.append(halving(widths[stage - 1] if stage else channels, width))
        self.decoder = nn.ModuleList()
        for stage in reversed(range(downs - 1)):
            inputs = widths[stage + 1] + widths[stage]
            self.decoder.append(nn.Conv2d(inputs, widths[stage], 3, padding=1))
        self.head = nn.Conv2d(widths[0], classes + 1, 3, padding=1)
        initialize(self)
        for conv in [*self.encoder, *self.decoder]:
            spectral_norm(conv)

    def logits(self, pictures: Tensor) -> Tensor:
        """Of pictures (N, channels, H, W), for each class and last for "made": (N, classes + 1, H / 2, W / 2)."""
        check_size(pictures, 1, self.least)
        kept, x = [], pictures
        for conv in self.encoder:
            x = functional.leaky_relu(conv(x), 0.2)
            kept.append(x)
        kept.pop()
        for conv in self.decoder:
            doubled = functional.interpolate(x, kept[-1].shape[2:], mode="nearest")
            x = functional.leaky_relu(conv(torch.cat([doubled, kept.pop()], 1)), 0.2)
        out: Tensor = self.head(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Judge pictures as what their label maps say.

        Args:
            x: (N, classes + channels, H, W): label maps, one-hot, or 0 where a pixel is not to count, and pictures.

        Returns:
            (N, 2, H / 2, W / 2) float32: weighted log likelihoods that a pixel is what it should be, and made.
        """
        likely = functional.log_softmax(self.logits(x[:, self.classes :]).float(), 1)
        height, width = likely.shape[2:]  # rounded down
        labels = x[:, : self.classes, : 2 * height : 2, : 2 * width : 2].float()
        counts = labels.sum((0, 2, 3))
        pixels, present = labels[:, 0].numel(), (counts > 0).sum().clamp(min=1)
        weights = torch.where(counts > 0, pixels / counts.clamp(min=1) / present, 0.0)
        there = labels.sum(1)
        right = (likely[:, :-1] * labels * weights[:, None, None]).sum(1)
        made = likely[:, -1] * there * (pixels / there.sum().clamp(min=1))
        return torch.stack([right, made], 1)
