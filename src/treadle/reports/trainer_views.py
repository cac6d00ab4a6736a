"""The live views of any trainer: those that it declares, and what its `examples()` are, without a line of code."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.engine.subject import Subject
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.reports.kept_pictures import KeptPictures
from treadle.reports.sheets import Cell, SheetView
from treadle.reports.views import LiveView, Option, Window, as_view
from treadle.runs.pictures import EXAMPLES

KEPT = "kept"
"""The name of the view of the pictures in a run's `examples/`; that of `examples()` is called as this folder is."""
ALL = "all"
"""The choice of the option "show" that has all examples side by side."""


def views_of(trainer: Trainer) -> dict[str, LiveView]:
    """All live views of a trainer, by name: what `views()` declares, `examples()`, and pictures that its run has kept.

    They are made once for a trainer, since they remember what they have made of its present state.

    Raises UsageError where `views()` is no dict of name to `LiveView` or function.
    """
    declared = trainer.views()
    kind = type(trainer).__name__
    if not isinstance(declared, Mapping):
        raise UsageError(f"{kind}.views() returned a {type(declared).__name__}: return a dict of name to view")
    found: dict[str, LiveView] = {}
    for name, view in declared.items():
        if not isinstance(name, str) or not name:
            raise UsageError(f"{kind}.views() has a view called {name!r}: a name is text that is not empty")
        found[name] = as_view(name, view)
    if type(trainer).examples is not Subject.examples:
        found.setdefault(EXAMPLES, ExamplesView(trainer.examples, lambda: standing_of(trainer)))
    if trainer.run is not None:
        folder, progress = trainer.run.path / EXAMPLES, trainer.progress
        if EXAMPLES in found or any(folder.glob("*.png")):
            found.setdefault(KEPT, KeptPictures(folder, lambda: progress.step))
    return found


def standing_of(trainer: Trainer) -> Hashable:
    """Which state a run is in: another value whenever its weights may be others, by a step, a rewind or an edit."""
    # What takes a run elsewhere than a step does (a rewind, a rollback, an edit) is journalled, with its time.
    loop, journal = trainer.loop, trainer.journal
    return loop.progress.step, loop.loaded, repr(journal[-1]) if journal else ""


class ExamplesView(SheetView):
    """What `examples()` returns: all pictures side by side, or one of them. It is called once for each state.

    Args:
        examples: the trainer's method.
        standing: see `SheetView`.
    """

    title = "Examples"

    def __init__(self, examples: Callable[[], Mapping[str, Any]], standing: Callable[[], Hashable]) -> None:
        super().__init__(standing)
        self._examples = examples
        self._made: tuple[Hashable, dict[str, NDArray[Any]]] | None = None

    def pictures(self) -> dict[str, NDArray[Any]]:
        """The pictures of the present state, by name. Raises UsageError for what is no picture."""
        state = self._standing()
        if self._made is None or self._made[0] != state:
            made = self._examples()
            if not isinstance(made, Mapping):
                raise UsageError(f"examples() returned a {type(made).__name__}: return a dict of name to picture")
            self._made = state, {str(name): as_picture(picture, str(name)) for name, picture in made.items()}
        return self._made[1]

    def options(self) -> Sequence[Option]:
        """Which of them, where several are known: what their names are is known once they have been made."""
        names = () if self._made is None else tuple(self._made[1])
        several = (Option("show", "Picture", "choice", ALL, (ALL, *names)),) if len(names) > 1 else ()
        return *several, *super().options()

    def cells(self, window: Window) -> Sequence[Cell]:
        """All of them, or the chosen one."""
        pictures, chosen = self.pictures(), str(window.options.get("show", ALL))
        if not pictures:
            raise UsageError("examples() returned no picture: return a dict of name to picture")
        if chosen in pictures and chosen != ALL:
            pictures = {chosen: pictures[chosen]}
        return [Cell(name if len(pictures) > 1 else "", picture) for name, picture in pictures.items()]


def as_picture(picture: Any, name: str) -> NDArray[Any]:
    """A picture as `log_image` takes it as an array (H, W) or (H, W, C), C = 1 to 4: uint8, bool or float32.

    Raises UsageError naming it for anything else.
    """
    array = picture.detach().cpu().float().numpy() if _floats(picture) else np.asarray(_on_cpu(picture))
    known = array.dtype in (np.uint8, np.bool_) or np.issubdtype(array.dtype, np.floating)
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise UsageError(
            f"picture {name!r} has shape {array.shape}: expected (H, W) or (H, W, C), not empty, C = 1 to 4"
        )
    if not known:
        raise UsageError(f"picture {name!r} has dtype {array.dtype}: expected uint8, or floats between 0 and 1")
    return array


def _floats(picture: Any) -> bool:
    """Whether it is a tensor of floats: bfloat16 is no type of NumPy's."""
    return isinstance(picture, torch.Tensor) and picture.is_floating_point()


def _on_cpu(picture: Any) -> Any:
    return picture.detach().cpu() if isinstance(picture, torch.Tensor) else picture
