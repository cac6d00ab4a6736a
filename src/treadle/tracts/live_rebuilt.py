"""Whole lines as an autoencoder brings them back at the moment; see `live_lines`."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from functools import partial

import numpy as np
import torch

from treadle.data.batch import to_device
from treadle.reports.trainer_views import standing_of
from treadle.reports.views import Sample, Value
from treadle.tracts.autoencoder_trainer import LineAutoencoderTrainer
from treadle.tracts.live_lines import (
    IN_A_PIECE,
    PALE,
    JudgedLines,
    LinesSource,
    Pieces,
    colored,
    none,
    reference_lines,
    samples_of,
)
from treadle.tracts.panels import heat
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject


class RebuiltLines(LinesSource):
    """Whole lines as an autoencoder brings them back, the reference beside them, and how far points are off."""

    shows = ("there and back", "reference", "errors")

    def __init__(self, trainer: LineAutoencoderTrainer, subject: Subject) -> None:
        self._trainer, self._subject = trainer, subject
        self.space = subject.lines[trainer.config.lines].space
        self._chosen = reference_lines(subject, trainer.config.lines)
        self.names = tuple(f"line {number}" for number in self._chosen.tolist())
        self._feed = trainer.feed_of([subject])
        self._judged = Pieces(self._judge, partial(standing_of, trainer))

    def go_on(self, options: Mapping[str, Value]) -> bool:
        """Bring some more lines there and back."""
        return self._judged.go_on()

    def lines(self, options: Mapping[str, Value]) -> Streamlines:
        """What is chosen; of one line itself (pale) and what has become of it."""
        judged, number = self._judged.found, self.chosen(options)
        if judged is None:
            return none()
        if number is not None:
            if number >= len(judged.made):
                return none()
            pale = np.tile(PALE, (len(judged.errors[number].points), 1))
            return Streamlines.concatenate([colored(judged.errors[number], None, pale), judged.made[number]])
        most, show = int(options["most"]), options["show"]
        shown = {"there and back": judged.made, "errors": judged.errors, "reference": judged.errors}[str(show)]
        whole = Streamlines.concatenate([none(), *shown[:: max(1, -(-len(shown) // most))]])
        return colored(whole, None) if show == "reference" else whole

    def figures(self, options: Mapping[str, Value]) -> dict[str, float]:
        """Of a chosen line its errors; else after how many steps the model is that was asked."""
        judged, number = self._judged.found, self.chosen(options)
        if judged is None or (number is not None and number >= len(judged.figures)):
            return {}
        return {"of step": float(judged.step)} if number is None else judged.figures[number]

    def samples(self) -> Iterator[Sample]:
        """The reference lines, with how many millimetres their points are off, in the mean."""
        yield from samples_of(self.names, self._judged)

    def version(self) -> Hashable:
        """See `LinesSource`."""
        return self._judged.version

    def _judge(self, _: int) -> Iterator[tuple[JudgedLines, bool]]:
        trainer = self._trainer
        model, found = copy.deepcopy(trainer.model).eval(), JudgedLines(trainer.progress.step)
        for begin in range(0, len(self._chosen), IN_A_PIECE):
            some = self._chosen[begin : begin + IN_A_PIECE]
            with torch.no_grad():
                lines = trainer.lines_of(to_device(self._feed.gather(0, some), trainer.device))
                back = model(lines)
            worlds = [self.space.to_world(trainer.box.leave(each).cpu().numpy().reshape(-1, 3)).reshape(each.shape)
                      for each in (lines, back)]  # fmt: skip
            off = np.linalg.norm(worlds[1] - worlds[0], axis=2)
            for was, made, distance in zip(*worlds, off, strict=True):
                found.figures.append({"distance": float(distance.mean()), "farthest": float(distance.max())})
                hot = heat(distance / max(2 * trainer.box.sizes.max(), 1e-6)) * 255
                found.errors.append(colored(Streamlines.of([was]), None, hot))
                found.made.append(colored(Streamlines.of([made]), None))
            yield found, begin + len(some) == len(self._chosen)
