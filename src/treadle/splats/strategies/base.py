"""What a strategy is: it looks at each step, and now and then changes which splats there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from treadle.engine.progress import Progress
from treadle.engine.rows import RowEdit
from treadle.engine.schedule import Every, Span
from treadle.errors import StateError
from treadle.splats.model import Splats
from treadle.splats.rendering import Rendered


class Scene(Protocol):
    """What a strategy may see of the trainer, and do with it."""

    model: Splats
    extent: float
    """The size of the scene: 1.1 times the largest distance of a training camera from the mean of them."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the splats; its groups have the names of their parameters."""

    @property
    def finished(self) -> Progress:
        """The run's counters, with the step under way as finished."""

    def edit(self) -> RowEdit:
        """Begin a row edit of all that splats have: parameters, and with them Adam's moments."""

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU that is a function of (seed, step, purpose)."""


class Strategy:
    """Decides which splats multiply and die; this one leaves them as they are. Subclass it to write your own.

    Splats are edited with row edits alone, so that optimizer moments, checkpoints and exactness follow. Attributes are
    saved with the run, and come back: tensors, plain data, and whatever has a `state_dict`. In a dataclass, those that
    are given to its constructor are settings, and are not.
    """

    def after_update(self, scene: Scene, rendered: Rendered) -> None:
        """Called at the end of each step, when the parameters are updated and gradients are off.

        `rendered.projection.centers.grad` (n, 2) is the gradient of the loss by where the splats are in the picture, in
        pixels. Use `scene.edit()` to change rows.

        Where a batch has several views, each in a process or a part of its own, this is called once in each process,
        with one view of that process's. What is decided must be the same in all: a `Pull` adds those of all views.
        """

    @property
    def pulls(self) -> bool:
        """Whether it has a `Pull` to add to."""
        return any(isinstance(value, Pull) for value in self._state().values())

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        remembered = {
            name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in self._state().items()
        }
        return {"strategy": type(self).__name__, **remembered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises StateError for the state of another strategy."""
        if state["strategy"] != type(self).__name__:
            raise StateError(
                f"the checkpoint is of a run with the strategy {state['strategy']}, not {type(self).__name__}: keep it,"
                " or begin a new run with another one from an exported PLY (init)"
            )
        for name, value in self._state().items():
            if hasattr(value, "load_state_dict"):
                value.load_state_dict(state[name])
            elif isinstance(value, Tensor):
                setattr(self, name, state[name].to(value.device, copy=True))
            else:
                setattr(self, name, state[name])

    def _state(self) -> dict[str, Any]:
        declared: dict[str, bool] = {field.name: field.init for field in fields(self)} if is_dataclass(self) else {}
        names = [name for name in vars(self).keys() | declared.keys() if not declared.get(name, False)]
        return {name: getattr(self, name) for name in sorted(names)}


@dataclass(frozen=True)
class Window:
    """Every so often within a part of the run: "100 steps" or "1%", after `start`, before `end`."""

    every: Every
    start: Span | None = None
    end: Span | None = None

    def open(self, progress: Progress) -> bool:
        """Whether it is later than `start` and earlier than `end`."""
        late = self.start is None or progress.step > self.start.steps(progress)
        return late and (self.end is None or progress.step < self.end.steps(progress))

    def due(self, progress: Progress) -> bool:
        """Whether it is due now that the steps of `progress` are finished."""
        return self.every.due_after_step(progress) and self.open(progress)


@dataclass
class Pull:
    """How hard each splat is pulled about in the picture, over the views since `clear`: the only place it is summed.

    Each view's gradient is taken as a length first and counted for those who are in it: pulls of different views in
    opposite directions do not cancel, and a splat that few views see is not taken for a quiet one.
    """

    lengths: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(n,) float32 sums over views."""
    views: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(n,) float32: in how many views each was."""

    def add(self, rendered: Rendered) -> None:
        """Add what `rendered.pulled` has, all views of a batch, or else this view, after its backward pass."""
        lengths, views = pull_of(rendered) if rendered.pulled is None else rendered.pulled
        if len(self.lengths) != len(lengths):
            self.clear(lengths)
        elif self.lengths.device != lengths.device:
            self.lengths, self.views = self.lengths.to(lengths.device), self.views.to(lengths.device)
        self.lengths += lengths
        self.views += views

    def mean(self) -> Tensor:
        """(n,) the mean length over the views that each was in; 0 where it was in none."""
        return self.lengths / self.views.clamp(min=1)

    def clear(self, like: Tensor) -> None:
        """Begin anew, for as many splats as `like` has rows."""
        self.lengths = like.new_zeros(len(like))
        self.views = like.new_zeros(len(like))

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far."""
        return {"lengths": self.lengths, "views": self.views}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.lengths, self.views = (state[name].to(self.lengths.device, copy=True) for name in ("lengths", "views"))


def pull_of(rendered: Rendered) -> tuple[Tensor, Tensor]:
    """How hard a view pulls each splat (n,), and (n,) 1 for those that are in it; 0 where it has no gradient.

    Lengths are those for a picture from -1 to 1, as 3DGS has them.
    """
    gradient = rendered.projection.centers.grad
    if gradient is None:
        nothing = rendered.projection.centers.detach().new_zeros(len(rendered.projection.centers))
        return nothing, nothing
    height, width = rendered.alpha.shape
    seen = (rendered.projection.extents[:, 0] > 0).to(gradient.dtype)
    scaled = gradient * gradient.new_tensor([width / 2, height / 2])
    return torch.linalg.vector_norm(scaled, dim=1) * seen, seen


def added(some: Sequence[Tensor]) -> Tensor:
    """The sum of tensors (n,), from the first to the last."""
    return sum(some[1:], some[0])


def row_values(model: Splats, index: Tensor) -> dict[str, Tensor]:
    """The values of the rows `index` of every parameter, by name: what a row edit's `append` and `replace` take."""
    return {name: rows.detach()[index] for name, rows in model.rows.items()}
