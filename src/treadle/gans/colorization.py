"""Colorization: from how light photographs are to their colours, by pix2pix (Isola et al. 2017, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from treadle.config.settings import require
from treadle.data.random import derive_seed
from treadle.engine.settings import TrainerConfig
from treadle.export.onnx import Exportable
from treadle.gans.augmentation import Augmentation, sides
from treadle.gans.export import exportable_generator
from treadle.gans.facades import facades
from treadle.gans.images import PairedImages
from treadle.gans.layouts import first_of, stem
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.sources import ArrayPictures, PictureFolder, PictureSource
from treadle.gans.splitting import Shares, part_of
from treadle.gans.translation import PACKAGED
from treadle.gans.translator import Translator
from treadle.gans.values import Array, Values
from treadle.images.bands import Kind
from treadle.images.folders import SPLITS, OnBad, split_folder
from treadle.images.lab import AB_MOST, L_MOST, lab_to_rgb, rgb_to_lab
from treadle.images.pixels import to_pixels
from treadle.images.reading import Pixels
from treadle.runs.models import At, find_model

SHARES: Shares = (0.8, 0.1, 0.1)
"""Of a folder of photographs without train, val and test, what goes to each."""

RGB = Values(channels=3)


@dataclass(kw_only=True)
class ColorizationConfig(Pix2PixConfig):
    """Settings of `ColorizationTrainer`."""

    direction: Literal["AtoB"] = "AtoB"
    """From L of L*a*b* to a and b, always."""
    in_channels: int = 1
    """L, always."""
    out_channels: int = 2
    """a and b, always."""
    in_dtype: Kind | None = "float32"
    """The type of L, always."""
    out_dtype: Kind | None = "float32"
    """The type of a and b, always."""
    in_range: tuple[float, float] | None = (0.0, L_MOST)
    """The numbers of L, always."""
    out_range: tuple[float, float] | None = (-AB_MOST, AB_MOST)
    """The numbers of a and b, always."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        for name in ("in_channels", "out_channels", "in_dtype", "out_dtype", "in_range", "out_range"):
            default = type(self).__dataclass_fields__[name].default
            require(self, name, getattr(self, name) == default, f"{default!r}: colorization makes a and b of L")
        require(self, "classes", self.classes is None, "null: photographs are no label maps")
        require(self, "objective", "vgg" not in self.objective.split("+"), "one without vgg, which wants three colours")

    def augmentation(self, *, fit: bool = False) -> Augmentation:
        """What is done to the photographs that are trained on: geometry to L and colours alike, the rest to L."""
        return replace(super().augmentation(fit=fit), out_range=None)


class ColorizationTrainer(Pix2PixTrainer):
    """pix2pix from L of CIE L*a*b* to a and b; what is shown, measured, translated and exported is RGB.

    Args:
        data: pairs (L, photograph): L in [-1, 1], (N, 1, H, W), and RGB in [-1, 1], (N, 3, H, W).
        config, hooks, settings: as for every `Trainer`.

    Example:
        data = ColorizationTrainer.load_data(config, Path("photos"))
        ColorizationTrainer(config, **data, run_dir="runs/colour").train()
        coloured = translate(ColorizationTrainer.load_model("runs/colour/v001"), gray)      # (H, W, 1) to (H, W, 3)
    """

    Config: ClassVar[type[TrainerConfig]] = ColorizationConfig

    @classmethod
    def dataset(cls, config: Any, path: Path | None, split: str) -> PairedImages | None:
        """The photographs in `path`/train, val or test, or where it has none of these a part of those in `path`.

        For no path, house fronts.
        """
        most = config.max_samples if split == "train" else None
        photographs: PictureSource
        if path is None:
            _, pictures = facades(derive_seed(0, split), PACKAGED[split], max(sides(config.size)))
            photographs = ArrayPictures(pictures[:most])
        else:
            found = photographs_in(path, split, config.on_bad)
            if found is None:
                return None
            first_of(found, most)
            photographs = found
        source, augmentation = LightAndColour(photographs), config.augmentation(fit=path is None)
        values = config.input_values, RGB
        if split != "train":
            return PairedImages(source, config.size, None, config.cache_mb, values=values, still=augmentation.still())
        return PairedImages(source, config.size, augmentation, config.cache_mb, cls.transform(), values)

    def step(self, batch: tuple[Tensor, Tensor]) -> Any:
        """That of pix2pix, of L and of what a and b the photographs have."""
        x, photographs = batch
        return super().step((x, rgb_to_lab((photographs + 1) / 2)[:, 1:] / AB_MOST))

    def translate(self, x: Tensor, generator: nn.Module) -> Tensor:
        """Photographs, RGB in [-1, 1], of what the generator makes of L."""
        return coloured(x, super().translate(x, generator))

    def triplet(self, x: Tensor, output: Tensor, y: Tensor) -> dict[str, Pixels]:
        """The gray photograph, the coloured one, and the one that was."""
        gray = coloured(x, x.new_zeros(len(x), 2, *x.shape[2:]))
        return {name: to_pixels(each[0]) for name, each in (("input", gray), ("output", output), ("target", y))}

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> Colorizer:  # type: ignore[override]
        """What colours gray photographs, of a run's final model: `translate(load_model(run), gray)`.

        `at` names another: the step of one that is kept, or "best". Raises UsageError where the run has no such model,
        or none of this trainer's.
        """
        return Colorizer(super().load_model(run, at=at)).eval()

    @classmethod
    def translators(cls, run: Path, *, at: At | None = None) -> dict[str, Translator]:
        """What `treadle translate` uses: gray photographs in, and what has colours turned gray; RGB out."""
        model, found = cls.load_model(run, at=at), find_model(run, at, cls.preferred_model)
        return {
            "AtoB": Translator(
                model=model,
                inputs=Values(channels=1),
                outputs=RGB,
                multiple=model.multiple,
                least=model.least,
                name=str(found),
            )
        }

    @classmethod
    def exportable(cls, run: Path, *, at: At | None = None) -> dict[str, Exportable]:
        """What `treadle export` offers: gray photographs in, RGB out."""
        found = find_model(run, at, cls.preferred_model)
        exported = exportable_generator(found, found.config(cls.Config), "AtoB")
        return {"generator": replace(exported, model=Colorizer(exported.model).eval())}


class Colorizer(nn.Module):
    """A generator of a and b as one that colours gray photographs: (N, 1, H, W) to (N, 3, H, W), in [-1, 1] each.

    Their L is kept at full resolution. Where a colour of that L is none that sRGB has, it is brought to the border.
    """

    in_channels, out_channels = 1, 3

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator
        self.multiple: int = generator.multiple
        self.least: int = generator.least

    def forward(self, gray: Tensor) -> Tensor:
        """Colour gray photographs."""
        x = rgb_to_lab(((gray + 1) / 2).expand(-1, 3, -1, -1))[:, :1] * (2 / L_MOST) - 1
        return coloured(x, self.generator(x))


class LightAndColour:
    """Photographs as pairs: L, float32 (H, W, 1), and the photograph, uint8 (H, W, 3)."""

    dtypes: tuple[Kind, Kind] = ("float32", "uint8")

    def __init__(self, photographs: PictureSource) -> None:
        self.photographs = photographs
        self.size, self.name, self.describe = photographs.size, photographs.name, photographs.describe
        self.fingerprint = photographs.fingerprint

    def __len__(self) -> int:
        return len(self.photographs)

    def pair(self, index: int) -> tuple[Array, Array]:
        """L and the photograph."""
        picture = self.photographs.picture(index)
        planes = torch.from_numpy(np.array(picture.transpose(2, 0, 1), np.float32, order="C")) / 255
        return rgb_to_lab(planes)[0, :, :, None].numpy(), picture


def coloured(x: Tensor, ab: Tensor) -> Tensor:
    """RGB (N, 3, H, W) in [-1, 1] of L (N, 1, H, W), a and b (N, 2, H, W), in [-1, 1] each as networks have them."""
    return lab_to_rgb(torch.cat([(x + 1) * (L_MOST / 2), ab * AB_MOST], 1)) * 2 - 1


def photographs_in(root: Path, split: str, on_bad: OnBad) -> PictureFolder | None:
    """The photographs of a split: those in its folder, or where `root` has no such folders a part of those in it.

    A photograph's part depends on its name alone (see `part_of`). None where there are none to validate or test on.

    Raises UsageError for none to train on, and as `PictureFolder`.
    """
    apart = any((root / name).is_dir() for names in SPLITS.values() for name in names)
    folder = split_folder(root, split) if apart or not root.is_dir() else root
    if folder is None:
        return None
    found = PictureFolder(folder, 3, on_bad)
    if not apart:
        found.files = [file for file in found.files if part_of(stem(file), 0, SHARES) == split]
    return found if found.files or split == "train" else None
