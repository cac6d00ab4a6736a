"""Makes pictures of how far the model is, every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.engine.evaluation import evaluating
from treadle.engine.schedule import Every
from treadle.errors import UsageError
from treadle.hooks.periodic import Periodic

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

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

    def __init__(self, every: str | Every, pictures: Callable[[Trainer], Pictures] | None = None) -> None:
        super().__init__(every)
        if pictures is not None and not callable(pictures):
            raise UsageError(f"pictures is a {type(pictures).__name__}: expected a function of the trainer")
        self.pictures = pictures

    def act(self, trainer: Trainer) -> None:
        """Make the pictures and log them."""
        with evaluating(trainer):
            made = self.pictures(trainer) if self.pictures is not None else _own_examples(trainer)
            if not isinstance(made, Mapping):
                raise UsageError(f"examples are a {type(made).__name__}: return a dict of name to picture")
            for name, picture in made.items():
                trainer.log_image(name, picture)


def _own_examples(trainer: Trainer) -> Pictures:
    own = getattr(trainer, "examples", None)
    if own is None:
        kind = type(trainer).__name__
        raise UsageError(f"{kind} has no examples(): write it (name -> picture), or give Examples a function")
    made: Pictures = own()
    return made
