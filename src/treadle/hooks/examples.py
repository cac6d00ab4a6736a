"""Makes pictures of how far the model is, every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from treadle.engine.schedule import Every
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError, one_line
from treadle.hooks.periodic import Periodic
from treadle.terminal import say

Pictures = Mapping[str, Any]
"""Arrays or tensors (H, W) or (H, W, C) by name; uint8, or float in [0, 1]."""


class Examples(Periodic):
    """Logs pictures of fixed inputs every so many steps or epochs, to be looked at side by side later.

    With them go the trainer's `scenes()`, where some hook hears scenes (`--log rerun`); else none is made. All is made
    in eval mode, without gradients, with the weights that validation uses, and with random streams of their own: with
    or without them the run is the same. It is an observer: an error in making pictures is reported and does not end
    the run.

    Args:
        every: "500 steps", "2 epochs" or "10%".
        pictures: called with the trainer, returns name -> picture; by default the trainer's own `examples()`.
        setting: see `Periodic`.

    Example:
        Trainer(..., hooks=[Examples("1 epoch", lambda trainer: {"fit": trainer.model(grid).reshape(64, 64, 3)})])
    """

    observer: ClassVar[bool] = True
    wants_batches: ClassVar[bool] = False

    def __init__(
        self,
        every: str | Every,
        pictures: Callable[[Trainer], Pictures] | None = None,
        *,
        setting: str | None = None,
    ) -> None:
        super().__init__(every, setting=setting)
        if pictures is not None and not callable(pictures):
            raise UsageError(f"pictures is a {type(pictures).__name__}: expected a function of the trainer")
        self.pictures = pictures
        self._asks = True  # for scenes: until they fail

    @classmethod
    def of(cls, every: str | None) -> Self | None:
        """What the setting `examples_every` asks for by this value of it; None for none."""
        return None if every is None else cls(every, setting="examples_every")

    def act(self, trainer: Trainer) -> None:
        """Make the pictures and log them, and the scenes that somebody hears."""
        scenes = trainer.loop.events.hears("scene")
        with trainer.evaluating():
            declared = {type(trainer).examples, type(trainer).scenes} != {Trainer.examples, Trainer.scenes}
            if self.pictures is None and not declared:
                kind = type(trainer).__name__
                raise UsageError(f"{kind} has no examples(): write it (name -> picture), or give Examples a function")
            made = self.pictures(trainer) if self.pictures is not None else trainer.examples()
            if not isinstance(made, Mapping):
                raise UsageError(f"examples are a {type(made).__name__}: return a dict of name to picture")
            for name, picture in made.items():
                trainer.log_image(name, picture)
            if scenes and self._asks:
                self._asks = log_scenes(trainer)


def log_scenes(trainer: Trainer) -> bool:
    """Log what the trainer's `scenes()` gives; whether that worked. What fails is said, and loses no pictures."""
    try:
        for name, scene in trainer.scenes().items():
            trainer.log_scene(name, scene)
    except Exception as error:
        say(f"treadle: {type(trainer).__name__}.scenes() failed ({one_line(error)}); the run goes on without them")
        trainer.note("scenes failed", error=one_line(error))
        return False
    return True
