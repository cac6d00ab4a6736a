"""Live views of translations: input, output and target of fixed samples, where they differ, and the worst first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.data.feed import Feed
from treadle.data.named import sets_of
from treadle.gans.cyclegan import TITLES, CycleGANTrainer, counts, name_of_side
from treadle.gans.images import UnpairedImages
from treadle.gans.labels import Labels
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.gans.translation import name_of
from treadle.gans.values import Array, Values
from treadle.images.metrics import HIGHER_IS_BETTER
from treadle.images.metrics import measure as measured
from treadle.images.reading import Pixels
from treadle.reports.sheets import Cell, Numbers, SheetView
from treadle.reports.trainer_views import standing_of
from treadle.reports.views import LiveView, Option, Sample, Window, values_at

MOST = 500
"""Held-out samples that can be chosen from: the first ones."""
ERROR_GAIN = 2
"""What differences are multiplied by to be seen: errors of translation are large."""


@dataclass(frozen=True, eq=False)
class Translated:
    """A sample and what was made of it.

    Attributes:
        pictures: for the eye, in their order.
        numbers: of a pixel at a column and a row, by picture; the values for the eye where a picture has none.
        compared: arrays (H, W, C) of the same kind, what was made and what it should be, of which black to white is
            `white`; None where that is not known.
        white: see there.
        measure: its figures, that which samples are sorted by first.
    """

    pictures: Mapping[str, Pixels]
    measure: Callable[[], Mapping[str, float]]
    numbers: Mapping[str, Callable[[int, int], Numbers]] = field(default_factory=dict)
    compared: tuple[Array, Array] | None = None
    white: float = 255.0


class TranslationView(SheetView):
    """A sample's pictures side by side, with what is wrong in them.

    Args:
        title: what people read above it.
        names: the samples', each another one.
        translate: translates the sample of a number.
        standing: see `SheetView`.
        lossless: whether there are label maps among the pictures.
        figure: what samples are sorted by.
    """

    aligned = True

    def __init__(
        self,
        title: str,
        names: Sequence[str],
        translate: Callable[[int], Translated],
        standing: Callable[[], Hashable],
        *,
        lossless: bool = False,
        figure: str = "l1",
    ) -> None:
        super().__init__(standing)
        self.title, self.lossless = title, lossless
        self.worst: Literal["lowest", "highest"] = "lowest" if figure in HIGHER_IS_BETTER else "highest"
        self._figure, self._translate = figure, translate
        self._numbers = {name: number for number, name in enumerate(names)}
        self._last: tuple[Hashable, Translated] | None = None
        self._measured: tuple[Hashable, dict[str, dict[str, float]]] = (None, {})

    def options(self) -> Sequence[Option]:
        """Which sample."""
        names = tuple(self._numbers)
        return (Option("sample", "Sample", "choice", names[0], names), *super().options())

    def cells(self, window: Window) -> Sequence[Cell]:
        """The pictures of the chosen sample, and where it is known what they should be, the error."""
        found = self._of(str(window.options["sample"]))
        cells = [Cell(name, picture, found.numbers.get(name)) for name, picture in found.pictures.items()]
        if found.compared is not None:
            made, wanted = (values.astype(np.float64) for values in found.compared)
            error = made - wanted
            shown = np.abs(error).mean(2) / found.white * ERROR_GAIN
            caption = f"|error| x {ERROR_GAIN}"
            cells.append(Cell(caption, shown.clip(0, 1).astype(np.float32), lambda x, y: values_at(error, x, y)))
        return cells

    def figures(self, window: Window) -> Mapping[str, float]:
        """Those of the chosen sample."""
        return self._figures_of(str(window.options["sample"]))

    def samples(self) -> Iterable[Sample]:
        """All samples, translated and measured one by one; what is measured of the present state is kept."""
        for name in self._numbers:
            yield Sample(name, self._figures_of(name))

    def _of(self, name: str) -> Translated:
        key = (self._standing(), name)
        if self._last is None or self._last[0] != key:
            self._last = key, self._translate(self._numbers[name])
        return self._last[1]

    def _figures_of(self, name: str) -> dict[str, float]:
        state = self._standing()
        if self._measured[0] != state:
            self._measured = state, {}
        found = self._measured[1]
        if name not in found:
            figures = dict(self._of(name).measure())
            first = {self._figure: figures[self._figure]} if self._figure in figures else {}
            found[name] = first | figures
        return found[name]


class HeldOut:
    """Samples that stay the same over a training, by number: the first `MOST` of the validation data.

    Args:
        feed: the validation data; not shuffled. None, and data that come as a stream, take the others.
        others: the samples to be looked at in their place, tensors (1, C, H, W) each (`TranslationTrainer.probes`).
    """

    def __init__(self, feed: Feed | None, others: Callable[[], Iterator[list[Tensor]]]) -> None:
        self.feed = feed
        self.names: list[str] = []
        self._entries: list[tuple[Feed, Any]] = []
        self._others: list[list[Tensor]] = []
        try:
            named = islice(_entries(feed), MOST) if feed is not None else iter(())
            for name, part, entry in named:
                self.names.append(name)
                self._entries.append((part, entry))
        except NotImplementedError:  # a feed without a plan cannot be looked into
            self.names, self._entries = [], []
        if not self.names:
            self._others = list(others())
            self.names = [f"{number:04d}" for number in range(len(self._others))]
        self.names = apart(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> list[Tensor]:
        """The tensors of a sample, (1, C, H, W) each."""
        if not self._entries:
            return self._others[number]
        part, entry = self._entries[number]
        return list(part.gather(0, entry))


def _entries(feed: Feed) -> Iterator[tuple[str, Feed, Any]]:
    """The samples of a feed, or of each of its sets: a name, the set, and what it gathers that sample of."""
    for set_name, part in sets_of(feed).items():
        for entry in part.plan(0):
            for place in range(len(entry)):
                name = name_of(part, int(entry[place]))
                yield f"{set_name}/{name}" if set_name else name, part, entry[place : place + 1]


def apart(names: Sequence[str]) -> list[str]:
    """Names of which none comes twice."""
    seen: set[str] = set()
    found = []
    for number, name in enumerate(names):
        found.append(name if name not in seen else f"{name} #{number}")
        seen.add(name)
    return found


def pair_views(trainer: Pix2PixTrainer) -> dict[str, LiveView]:
    """The view of a trainer on pairs: input, output and target. None where no sample can be looked at."""
    held = HeldOut(trainer.validation_feed, trainer.probes)

    def translated(number: int) -> Translated:
        x, y = (part.cpu() for part in held[number])
        output = trainer.translate(x.to(trainer.device), trainer.generator).cpu()
        inputs, outputs = trainer.config.values
        kinds = {"input": (inputs, x), "output": (outputs, output), "target": (outputs, y)}
        return _translated(
            trainer.triplet(x, output, y), kinds, ("output", "target"),
            lambda: {name: values[0] for name, values in trainer.validating.measure(output, y).items()},
        )  # fmt: skip

    view = partial(TranslationView, lossless=trainer.config.palette is not None, figure=str(trainer.config.monitor))
    standing = partial(standing_of, trainer)
    return {"translations": view("Translations", held.names, translated, standing)} if held.names else {}


def cycle_views(trainer: CycleGANTrainer) -> dict[str, LiveView]:
    """The views of a trainer without pairs: A there and back, and B there and back."""
    feed = trainer.validation_feed
    held = HeldOut(feed, trainer.probes)

    def translated(side: int, way: str, number: int) -> Translated:
        pair = held[number]
        seen = trainer.there_and_back(pair[side].cpu(), way)
        known = trainer.has_targets and trainer.validation_feed is not None
        if known:
            seen["target"] = pair[1 - side].cpu()
        start, end = trainer.config.values[:: 1 if way == "ab" else -1]
        kinds = {name: (start if name in ("input", "back") else end, made) for name, made in seen.items()}

        def measure() -> dict[str, float]:
            figures = trainer.cycle_of(seen, way)
            if known:
                judge = trainer.validating.measure if way == "ab" else partial(measured, deep=end.deep)
                found = judge(seen["output"], seen["target"])
                figures |= {name: values[0] for name, values in found.items()}
            return figures

        compared = ("output", "target") if known else ("back", "input")
        return _translated(trainer.pictures_of(seen, way), kinds, compared, measure)

    views: dict[str, LiveView] = {}
    for side, (way, title) in enumerate(TITLES.items()):
        names = held.names
        if feed is not None and isinstance(getattr(feed, "dataset", None), UnpairedImages):
            # The shorter side starts again at its end: what it repeats is one sample.
            names = apart([name_of_side(feed, number, side) for number in range(min(len(held), counts(feed)[side]))])
        if names:
            make, standing = partial(translated, side, way), partial(standing_of, trainer)
            views[title] = TranslationView(title, names, make, standing, figure=str(trainer.config.monitor))
    return views


def _translated(
    pictures: Mapping[str, Pixels],
    kinds: Mapping[str, tuple[Values, Tensor]],
    compared: tuple[str, str],
    measure: Callable[[], Mapping[str, float]],
) -> Translated:
    """A sample of which `kinds` says what the numbers of each picture are, with their tensors."""
    exact = {name: numbers for name, kind in kinds.items() if (numbers := numbers_of(*kind)) is not None}
    made, wanted = compared
    values, tensor = kinds[made]
    if made not in exact or isinstance(values, Labels):
        return Translated(pictures, measure, exact, (pictures[made], pictures[wanted]))
    low, high = values.ends
    both = values.decode(tensor)[0], values.decode(kinds[wanted][1])[0]
    return Translated(pictures, measure, exact, both, high - low)


def numbers_of(values: Values, made: Tensor) -> Callable[[int, int], Numbers] | None:
    """The numbers that a file of a picture (1, planes, H, W) has, at a column and a row; of label maps the class.

    None where the picture is not made of such values: a colorization's is the photograph, and not a and b.
    """
    if made.shape[1] != values.planes:
        return None
    if isinstance(values, Labels):
        classes: NDArray[np.int64] = made[0].argmax(0).numpy()
        colors = values.palette.colors

        def class_at(column: int, row: int) -> Numbers:
            number = int(classes[row, column])
            return {"class": number, "colour": "#{:02x}{:02x}{:02x}".format(*colors[number])}

        return class_at
    decoded = values.decode(made)[0]
    return lambda column, row: values_at(decoded, column, row)
