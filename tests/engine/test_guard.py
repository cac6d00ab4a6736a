"""The bad-step guard in a loop of one's own: bad steps are named, skipped without a trace, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from treadle import BadStep, BadStepGuard, Objective, UsageError, capture, restore
from treadle.engine.bad_steps import LossSpike, NonFiniteError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.line = nn.BatchNorm1d(2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.norm(x)).square().mean()


def batches(bad: tuple[int, ...], scale: float = float("nan")) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        x = torch.randn(8, 2, generator=generator)
        yield x * scale if number in bad else x


def train(data: Any, guard_of: Any = BadStepGuard) -> tuple[dict[str, Any], int]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    guard, passed = guard_of(model), 0
    for x in data:
        with guard:
            loss = model(x)
            loss.backward()
            guard.check(loss)
            optimizer.step()
        optimizer.zero_grad()
        passed += 1
    return {"model": model, "optimizer": optimizer, "guard": guard}, passed


def test_a_skipped_step_leaves_no_trace() -> None:
    objects, passed = train(batches((3, 17)))
    assert passed == 30 and objects["guard"].count == 2
    good = [x for number, x in enumerate(batches(())) if number not in (3, 17)]
    same, _ = train(good)
    del objects["guard"], same["guard"]
    assert capture(objects).digest == capture(same).digest, "batch statistics too"


def test_a_skipped_steps_gradients_are_dropped_and_its_loss_is_not_compared_with() -> None:
    weight = torch.ones((), requires_grad=True)
    guard = BadStepGuard([weight], spike=5)
    with guard:
        weight.grad = torch.tensor(float("inf"))
        guard.check(weight * 1)
    assert weight.grad is None and guard.state_dict() == {"count": 1, "spikes": []}
    weight.grad = torch.ones(())
    with guard:
        guard.check(weight * 1)
    assert weight.grad is not None and guard.state_dict() == {"count": 1, "spikes": [1.0]}


def test_the_next_one_after_the_most_is_raised_and_others_pass_through() -> None:
    with pytest.raises(NonFiniteError, match=r"the loss is nan \(given up after 2 skipped steps\)"):
        train(batches((3, 4, 5)), lambda model: BadStepGuard(model, most=2))
    guard = BadStepGuard(nn.Linear(1, 1))
    with pytest.raises(ZeroDivisionError), guard:
        1 / 0  # noqa: B018
    assert guard.count == 0


def test_outside_of_a_block_it_stops_before_a_parameter_is_touched() -> None:
    model = Net()
    guard, before = BadStepGuard(model), capture({"model": model.line}).copy()
    loss = model(torch.full((4, 2), float("inf")))
    loss.backward()
    with pytest.raises(BadStep, match="the loss is nan"):
        guard.check(loss)
    model.zero_grad()
    assert capture({"model": model.line}).digest == before.digest


def test_a_gradient_is_named_with_its_place() -> None:
    model, lone = Net(), nn.Parameter(torch.ones(3, 2))
    rows = nn.Embedding(4, 2, sparse=True)
    guard = BadStepGuard([model, lone, rows])
    loss = model(torch.randn(4, 2)) + lone.sum() + rows(torch.tensor([1])).sum()
    loss.backward()
    rows.weight.grad = rows.weight.grad.coalesce()
    guard.check(loss)
    for gradient, told in [
        (model.line.weight.grad, r"the gradient of 0\.line\.weight, shape \(1, 2\), is NaN"),
        (lone.grad, r"the gradient of 1, shape \(3, 2\), is Inf"),
        (rows.weight.grad.values(), r"the gradient of 2\.weight, shape \(4, 2\), is NaN"),
    ]:
        kept = gradient.clone()
        gradient.view(-1)[1] = float("inf") if "Inf" in told else float("nan")
        with pytest.raises(NonFiniteError, match=told):
            guard.check(loss)
        gradient.copy_(kept)
    lone.grad.fill_(3e38)  # large, and finite: no norm may overflow
    guard.check(loss)


def test_a_loss_term_is_named() -> None:
    objective = Objective()
    objective.add("fit"), objective.add("bend")
    weight = torch.ones((), requires_grad=True)
    with pytest.raises(NonFiniteError, match="loss term 'bend' is inf"):
        BadStepGuard([weight]).check(objective(fit=weight * 1, bend=weight / 0))


def test_a_spike_is_bad_and_what_came_before_is_part_of_the_state() -> None:
    objects, _ = train(batches((25,), 50.0), lambda model: BadStepGuard(model, spike=20))
    assert objects["guard"].count == 0, "normalised away"
    weight = torch.ones((), requires_grad=True)
    guard, other = BadStepGuard([weight], spike=5), BadStepGuard([weight], spike=5)
    for number in range(30):
        guard.check(weight * (1 + 0.01 * (number % 3)))
    with guard:
        guard.check(weight * 2)
    assert guard.count == 1
    restore({"guard": other}, capture({"guard": guard}))
    assert other.count == 1
    with pytest.raises(LossSpike, match="the loss is 2, a spike over"):
        other.check(weight * 2)
    with pytest.raises(LossSpike):
        other.check(weight * 2)


@pytest.mark.parametrize("loss", [torch.ones(2), 1.0, {"a": torch.ones(())}])
def test_what_is_no_loss_is_refused(loss: Any) -> None:
    with pytest.raises(UsageError, match="give it the loss, a scalar tensor or Losses"):
        BadStepGuard(nn.Linear(1, 1)).check(loss)
    with pytest.raises(UsageError, match="spike is 0"):
        BadStepGuard(nn.Linear(1, 1), spike=0)
