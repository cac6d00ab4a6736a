from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from treadle.engine.progress import Progress
from treadle.engine.schedule import Every, Span
from treadle.errors import StateError
from treadle.kernels.splatting import Projection
from treadle.splats.rendering import Rendered
from treadle.splats.strategies.base import Pull, Strategy, Window


def seen(gradient: list[list[float]], visible: list[bool], size: tuple[int, int] = (20, 10)) -> Rendered:
    """A rendered view of which only the gradient by the centres matters; width and height."""
    centers = torch.zeros(len(gradient), 2, requires_grad=True)
    centers.grad = torch.tensor(gradient)
    extents = torch.tensor(visible).float()[:, None].repeat(1, 2)
    blank = torch.zeros(len(gradient))
    projection = Projection(centers, blank[:, None].repeat(1, 3), blank, blank, extents)
    alpha = torch.zeros(size[1], size[0])
    return Rendered(image=alpha[..., None].repeat(1, 1, 3), alpha=alpha, projection=projection)


def test_pulls_of_two_views_do_not_cancel_and_are_counted_for_those_in_view() -> None:
    pull = Pull()
    pull.add(seen([[0.3, 0.8], [0.1, 0.0], [5.0, 5.0]], [True, True, False]))
    pull.add(seen([[-0.3, -0.8], [7.0, 7.0], [5.0, 5.0]], [True, False, False]))
    assert pull.views.tolist() == [2, 1, 0]
    # In pictures from -1 to 1: 20 pixels wide and 10 high.
    assert pull.mean().tolist() == pytest.approx([5.0, 1.0, 0.0])


def test_pulls_begin_anew_where_there_are_other_splats() -> None:
    pull = Pull()
    pull.add(seen([[1.0, 0.0]], [True]))
    pull.add(seen([[1.0, 0.0], [0.0, 1.0]], [True, True]))
    assert pull.views.tolist() == [1, 1]
    pull.clear(torch.zeros(3, 3))
    assert pull.mean().tolist() == [0, 0, 0]


def test_a_window_is_open_after_its_start_and_before_its_end() -> None:
    window = Window(Every("100 steps"), Span.parse("500 steps"), Span.parse("1500 steps"))
    due = [step for step in range(2001) if window.due(Progress(step=step, max_steps=2000))]
    assert due == list(range(600, 1500, 100))
    relative = Window(Every("10%"), Span.parse("10%"), Span.parse("50%"))
    assert [step for step in range(201) if relative.due(Progress(step=step, max_steps=200))] == [40, 60, 80]
    assert Window(Every("1 step")).open(Progress(step=0))


@dataclass
class Remembers(Strategy):
    share: float = 0.5
    pull: Pull = field(default_factory=Pull, init=False)
    last: Tensor = field(default_factory=lambda: torch.zeros(2), init=False)
    count: int = field(default=0, init=False)


def test_what_a_strategy_remembers_is_saved_and_its_settings_are_not() -> None:
    one, other = Remembers(0.1), Remembers(0.9)
    one.pull.add(seen([[1.0, 0.0]], [True]))
    one.last, one.count = torch.ones(3), 7
    state = one.state_dict()
    assert set(state) == {"strategy", "pull", "last", "count"}
    other.load_state_dict(state)
    assert other.share == 0.9 and other.count == 7
    assert torch.equal(other.last, one.last) and torch.equal(other.pull.lengths, one.pull.lengths)
    with pytest.raises(StateError, match="the strategy Remembers, not Strategy: keep it, or begin a new run"):
        Strategy().load_state_dict(state)
    one.last += 1
    one.pull.lengths += 1
    assert not torch.equal(other.last, one.last) and not torch.equal(other.pull.lengths, one.pull.lengths)
