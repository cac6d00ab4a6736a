"""Makes pictures of how far the model is, every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from treadle.engine.schedule import Every
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.hooks.periodic import Periodic

Pictures = Mapping[str, Any]
"""Arrays or tensors (H, W) or (H, W, C) by name; uint8, or float in [0, 1]."""


class Examples(Periodic):
    """Logs pictures of fixed inputs every so many steps or epochs, to be looked at side by side later.

    They are made in eval mode, without gradients, with the weights that validation uses, and with random streams of
    their own: with or without them the run is the same. It is an observer: an error in making pictures is reported
    and does not end the run.

    Args:
        every: "500 steps", "2 epochs" or "10%".
        pictures: called with the trainer, returns name -> picture; by default the trainer's own `examples()`.

    Example:
        Trainer(..., hooks=[Examples("1 epoch", lambda trainer: {"fit": trainer.model(grid).reshape(64, 64, 3)})])
    """

    observer: ClassVar[bool] = True
    wants_batches: ClassVar[bool] = False

    def __init__(self, every: str | Every, pictures: Callable[[Trainer], Pictures] | None = None) -> None:
        super().__init__(every)
        if pictures is not None and not callable(pictures):
            raise UsageError(f"pictures is a {type(pictures).__name__}: expected a function of the trainer")
        self.pictures = pictures

    def act(self, trainer: Trainer) -> None:
        """Make the pictures and log them."""
        with trainer.evaluating():
            if self.pictures is None and type(trainer).examples is Trainer.examples:
                kind = type(trainer).__name__
                raise UsageError(f"{kind} has no examples(): write it (name -> picture), or give Examples a function")
            made = self.pictures(trainer) if self.pictures is not None else trainer.examples()
            if not isinstance(made, Mapping):
                raise UsageError(f"examples are a {type(made).__name__}: return a dict of name to picture")
            for name, picture in made.items():
                trainer.log_image(name, picture)
