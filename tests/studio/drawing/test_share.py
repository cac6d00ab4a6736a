from __future__ import annotations

import math

import pytest

from treadle.studio.drawing.share import MOST_SAVED, WINDOW, Budget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn_over(budget: Budget, clock: Clock, seconds: float, *, step: float, tile: float) -> float:
    """The share that drawing has where a run takes steps, and as much is drawn between them as may be."""
    began, drawn = clock.now, 0.0
    while clock.now < began + seconds:
        budget.wanted(True)
        clock.now += step
        if budget.wait() > 0:
            continue
        spent, most = tile, budget.allowed()
        while spent + tile <= most:
            spent += tile
        clock.now += spent
        budget.spend(spent)
        drawn += spent
    return drawn / (clock.now - began)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(("step", "tile"), [(0.001, 0.025), (0.05, 0.025), (0.05, 0.05), (0.01, 0.2)])
def test_the_share_is_kept_with_steps_and_tiles_of_any_length(share: float, step: float, tile: float) -> None:
    clock = Clock()
    budget = Budget(share, clock)
    found = [drawn_over(budget, clock, WINDOW, step=step, tile=tile) for _ in range(5)]
    assert all(abs(value - share) < 0.05 for value in found), found
    assert budget.measured() == pytest.approx(share, abs=0.05)


def test_nothing_is_saved_up_while_nobody_looks() -> None:
    clock = Clock()
    budget = Budget(0.5, clock)
    clock.now += 1000
    budget.wanted(True)
    assert budget.allowed() == 0 and budget.wait() == 0
    clock.now += 2
    assert budget.allowed() == pytest.approx(2)  # one second saved up, and half of what is drawn comes in meanwhile
    clock.now += 1000
    assert budget.allowed() == pytest.approx(MOST_SAVED)
    budget.wanted(False)
    assert budget.allowed() == 0


def test_what_was_overdrawn_is_paid_back_first() -> None:
    clock = Clock()
    budget = Budget(0.25, clock)
    budget.spend(1.0)
    assert budget.wait() == pytest.approx(4) and budget.allowed() == 0
    clock.now += 4
    assert budget.wait() == pytest.approx(0)


def test_a_pause_costs_nothing_and_forgives_what_was_overdrawn() -> None:
    clock = Clock()
    budget = Budget(0.25, clock)
    budget.spend(1.0)
    budget.spend(5.0, charge=False)
    assert budget.wait() == 0
    assert budget.measured() == pytest.approx(1.0)  # of the first second
    clock.now += WINDOW
    assert budget.measured() == 0


def test_without_a_share_nothing_is_drawn() -> None:
    assert Budget(0.0, Clock()).wait() == math.inf
