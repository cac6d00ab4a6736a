"""Gradients cut into messages: which leave when, what is in them, and what comes of gradients that grow afterwards."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from treadle import RunError
from treadle.engine import buckets
from treadle.engine.buckets import Buckets


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(buckets, "LEAST", 40)
    monkeypatch.setattr(buckets, "MOST", 100)
    yield


class Wire:
    """Begins sums; nobody else adds anything. What left, and what was waited for, in order."""

    def __init__(self) -> None:
        self.left: list[list[float]] = []
        self.waited = 0

    def start(self, tensor: Tensor) -> Callable[[], None]:
        self.left.append(tensor.tolist())

        def wait() -> None:
            self.waited += 1

        return wait


def layers(*widths: int) -> list[nn.Linear]:
    return [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]


def test_what_backward_comes_to_first_is_first_and_the_head_is_last() -> None:
    parts = [nn.Parameter(torch.zeros(size)) for size in (3, 12, 4, 6)]
    made = Buckets(parts, 2, cut=True)
    assert [len(buffer) for buffer in made.buffers] == [10, 12, 2 + 3]
    assert len(made.head) == 2
    whole = Buckets(parts, 2, cut=False)
    assert [len(buffer) for buffer in whole.buffers] == [2 + 25]
    assert [view.data_ptr() - whole.head.data_ptr() for view in whole.views] == [8, 20, 68, 84]


def test_other_dtypes_have_messages_of_their_own() -> None:
    parts = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in (torch.float64, torch.float32, torch.float64)]
    made = Buckets(parts, 1, cut=True)
    assert [(buffer.dtype, len(buffer)) for buffer in made.buffers] == [(torch.float64, 4), (torch.float32, 3)]
    alone = Buckets(parts[:1], 3, cut=True)
    assert [(buffer.dtype, len(buffer)) for buffer in alone.buffers] == [(torch.float64, 2), (torch.float32, 3)]


def test_messages_leave_in_the_backward_pass_and_hold_what_they_hold_afterwards() -> None:
    net = layers(5, 4, 4, 3)
    x = torch.randn(2, 5)
    parameters = [layer.weight for layer in net]
    early, late = Buckets(parameters, 1, cut=True), Buckets(parameters, 1, cut=True)
    one, other = Wire(), Wire()
    early.listen(one.start)
    for layer in net:
        x = layer(x).tanh()
    x.sum().backward()
    assert len(one.left) == 2 and one.waited == 0, "all but the last, which has the head"
    early.add_up(lambda: [7.0], one.start)
    late.add_up(lambda: [7.0], other.start)
    assert one.left == other.left and one.left[-1][0] == 7.0
    assert one.waited == other.waited == 3
    for p, view in zip(parameters, early.views, strict=True):
        assert p.grad is not None and torch.equal(p.grad, view)
    x = torch.ones(2, 5)
    for layer in net:
        x = layer(x)
    x.sum().backward()
    assert len(one.left) == 3, "nobody listens any more"


def test_a_message_waits_for_gradients_that_do_not_come_and_those_behind_it_wait_too() -> None:
    net = layers(5, 4, 4, 4)
    made, wire = Buckets([layer.weight for layer in net], 1, cut=True), Wire()
    made.listen(wire.start)
    net[1](net[0](torch.ones(1, 5))).sum().backward()  # the last layer is not used
    assert wire.left == []
    made.add_up(lambda: [0.0], wire.start)
    assert wire.left[0] == [0.0] * 16 and any(wire.left[1])


def test_a_gradient_that_grows_after_it_has_left_is_noticed() -> None:
    net = layers(5, 4, 4)
    made, wire = Buckets([layer.weight for layer in net], 1, cut=True), Wire()
    made.listen(wire.start)
    hidden = net[0](torch.ones(1, 5))
    first = net[1](hidden).sum()
    first.backward(retain_graph=True)
    assert not made.again
    net[1](hidden.detach()).sum().backward()  # as a checkpoint within the graph does
    assert made.again
    told: list[bool] = []
    made.add_up(lambda: [float(told.append(made.again) or 0)], wire.start)
    assert told == [True] and not made.again


def test_a_step_that_goes_on_after_its_backward_pass_has_failed_is_refused() -> None:
    net = layers(5, 4, 4)
    made, wire = Buckets([layer.weight for layer in net], 1, cut=True), Wire()
    made.listen(wire.start)
    net[1](net[0](torch.ones(1, 5))).sum().backward()
    with pytest.raises(RunError, match="went on after its backward pass had failed"):
        made.listen(wire.start)


def test_what_is_forgotten_hears_nothing_and_parameters_hold_nobody() -> None:
    net = layers(5, 4, 4)
    parameters = [layer.weight for layer in net]
    made, wire = Buckets(parameters, 1, cut=True), Wire()
    assert made.fits(parameters) and not made.fits(parameters[:1])
    assert not made.fits([nn.Parameter(p.detach()) for p in parameters]), "their gradients would not be heard of"
    made.listen(wire.start)
    made.forget()
    net[1](net[0](torch.ones(1, 5))).sum().backward()
    assert wire.left == []
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None
