"""What the data decides before training: the type and range of its numbers, and batches of pictures of one shape."""

from __future__ import annotations

from typing import Any

from treadle.config.settings import amend
from treadle.data.dataset import DatasetFeed
from treadle.data.shapes import ShapeBuckets
from treadle.errors import UsageError
from treadle.gans.images import PairedImages, UnpairedImages
from treadle.gans.labels import find_palette
from treadle.gans.patchgan import least_size
from treadle.gans.sources import Kinds, PairSource, UnpairedSource


def kinds_for(config: Any, split: str) -> Kinds:
    """The types that input and output pictures of a split are brought to; None is what the files have.

    Only what is trained on decides: 8 bits are what a config without a type was trained on.
    """
    found = config.in_dtype, config.out_dtype
    if getattr(config, "classes", None):
        found = "uint8", config.out_dtype
    return found if split == "train" else (found[0] or "uint8", found[1] or "uint8")


def settle_values(config: Any, source: PairSource | UnpairedSource) -> None:
    """Note in `config` what `source`, which is to be trained on, decides where the config leaves it open.

    The type, where it is more than 8 bits, and the range of floats: from the smallest to the largest there is. So the
    config alone says how a trained model is used.

    Raises UsageError for floats that are all equal.
    """
    for side, dtype in zip(("in", "out"), getattr(source, "dtypes", ("uint8", "uint8")), strict=True):
        if getattr(config, f"{side}_dtype") is None and dtype != "uint8":
            amend(config, f"{side}_dtype", dtype)
    sides = [side for side in ("in", "out") if _is_open(config, side)]
    if not sides:
        return
    for side, (low, high) in _ends(source, sides).items():
        if low == high:
            raise UsageError(f"every number of the pictures is {low:g}: say their range with {side}_range")
        amend(config, f"{side}_range", (low, high))


def settle_classes(config: Any, source: PairSource) -> None:
    """Note in `config` the colours of the classes, where it has classes "auto": those of the inputs of `source`.

    Of many pictures, 200 that are evenly spread are looked at. Raises UsageError for inputs that are no label maps.
    """
    if config.classes == "auto":
        step = max(1, len(source) // 200)
        amend(config, "classes", str(find_palette(source.pair(i)[0] for i in range(0, len(source), step))))


def _is_open(config: Any, side: str) -> bool:
    return getattr(config, f"{side}_dtype") == "float32" and getattr(config, f"{side}_range") is None


def _ends(source: Any, sides: list[str]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest number on each side, read picture by picture."""
    found = {side: (float("inf"), float("-inf")) for side in sides}
    if hasattr(source, "pair"):
        pictures = ({"in": x, "out": y} for x, y in map(source.pair, range(len(source))))
    else:
        parts = {"in": source.a, "out": source.b}
        pictures = ({side: part.picture(i)} for side, part in parts.items() if side in sides for i in range(len(part)))
    for picture in pictures:
        for side in picture.keys() & found.keys():
            low, high = found[side]
            found[side] = min(low, float(picture[side].min())), max(high, float(picture[side].max()))
    return found


def in_batches(
    config: Any, data: PairedImages | UnpairedImages, *, training: bool
) -> PairedImages | UnpairedImages | DatasetFeed:
    """`data` itself, or where batches hold several pictures and these differ in shape, a feed that batches equal ones.

    Raises UsageError, naming the picture, for one that is too small to cut from or for the discriminator's patches, and
    for shapes that cannot be batched.
    """
    if data.how.fixed:
        return data
    least = least_size(config.patch)
    for where, (height, width) in data.sizes():
        if training and min(height, width) < least:
            raise UsageError(
                f"{where} is {width} x {height} pixels where it is trained on: patches of {config.patch} pixels want "
                f"{least} at least; choose a smaller patch, or leave the picture out"
            )
    if config.batch_size == 1:
        return data
    shapes = data.shapes()
    if len(set(shapes)) == 1:
        return data
    shuffle, drop_last = config.shuffle and training, config.drop_last and training
    batching = ShapeBuckets(shapes, config.batch_size, shuffle=shuffle, drop_last=drop_last)
    return DatasetFeed(data, batching=batching, workers=config.workers, seed=config.seed)
