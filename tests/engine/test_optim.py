"""Parameter groups by pattern, and optimizers switched to fused kernels as if built that way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from treadle.engine.optim import backpropagate, follow_groups, parameter_groups, prefer_fused, take_step
from treadle.errors import UsageError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))


def names_of(groups: list[dict[str, Any]], net: nn.Module) -> dict[str, list[str]]:
    known = {id(parameter): name for name, parameter in net.named_parameters()}
    return {group["name"]: [known[id(parameter)] for parameter in group["params"]] for group in groups}


# Groups --------------------------------------------------------------------------------------------------------------


def test_the_first_pattern_that_matches_takes_a_parameter() -> None:
    net = network()
    groups = parameter_groups(net, {"*.bias": {"weight_decay": 0.0}, "0.*": {"lr": 0.1, "name": "first"}})
    assert names_of(groups, net) == {
        "*.bias": ["0.bias", "2.bias", "4.bias"],
        "first": ["0.weight"],
        "rest": ["2.weight", "4.weight"],
    }
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.01, 0.0), (0.1, 0.01), (0.01, 0.01)]


def test_every_parameter_is_in_exactly_one_group() -> None:
    net = network()
    groups = parameter_groups(net, {"*": {}})
    assert [group["name"] for group in groups] == ["*"]  # nothing is left, so there is no rest
    assert len(groups[0]["params"]) == 6


def test_parameters_by_name_and_names_with_case() -> None:
    xy, rgb = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = parameter_groups({"XY": xy, "rgb": rgb}, {"XY": {"lr": 1.0}})
    assert groups[0]["params"] == [xy]
    with pytest.raises(UsageError):
        parameter_groups({"XY": xy, "rgb": rgb}, {"xy": {}})


def test_options_are_not_changed_or_shared() -> None:
    options = {"lr": 1.0}
    groups = parameter_groups(network(), {"*.bias": options, "*.weight": options})
    groups[0]["lr"] = 5.0
    assert options == {"lr": 1.0}
    assert groups[1]["lr"] == 1.0


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        ({"3.*": {}}, "'3.*' matches no parameter; the nearest name is"),
        ({"0.wieght": {}}, "the nearest name is '0.weight'"),
        ({"*.bias": {}, "0.bias": {}}, "taken by earlier patterns"),
        ({"*.bias": {"params": []}}, "leave 'params' out"),
        ({"*.bias": {"name": "x"}, "0.*": {"name": "x"}}, "two groups are named 'x'"),
        ({"*.bias": {"name": "rest"}}, "two groups are named 'rest'"),
    ],
)
def test_bad_patterns_are_named(patterns: dict[str, dict[str, Any]], told: str) -> None:
    with pytest.raises(UsageError) as error:
        parameter_groups(network(), patterns)
    assert told in str(error.value)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="no parameters"):
        parameter_groups(nn.Tanh(), {})


# Fused kernels -------------------------------------------------------------------------------------------------------

Build = Callable[..., torch.optim.Optimizer]
KINDS: list[Build] = [
    lambda p, **k: torch.optim.Adam(p, lr=0.01, **k),
    lambda p, **k: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1, **k),
    lambda p, **k: torch.optim.AdamW(p, lr=0.01, **k),
    lambda p, **k: torch.optim.AdamW(p, lr=torch.tensor(0.01), maximize=True, **k),
    lambda p, **k: torch.optim.SGD(p, lr=0.1, **k),
    lambda p, **k: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **k),
    lambda p, **k: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.1, lr_decay=0.1, **k),
]


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        x = torch.randn(16, 5, generator=torch.Generator().manual_seed(step))
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", KINDS)
def test_switched_equals_built_fused_bit_for_bit(build: Build, dtype: torch.dtype) -> None:
    with default_dtype(dtype):
        net, other, plain = network(), network(), network()
        switched = build(net.parameters())
        assert prefer_fused(switched)
        fused, unfused = build(other.parameters(), fused=True), build(plain.parameters())
        for each, optimizer in ((net, switched), (other, fused), (plain, unfused)):
            train(each, optimizer, 12)
        assert same_bits(net, other)
        ours, theirs = switched.state_dict(), fused.state_dict()
        assert ours["param_groups"] == theirs["param_groups"]
        for mine, its in zip(ours["state"].values(), theirs["state"].values(), strict=True):
            for key in mine:
                assert torch.equal(mine[key], its[key])
                assert (mine[key].dtype, mine[key].device) == (its[key].dtype, its[key].device)
        assert switched.defaults == fused.defaults
        assert switched._step_supports_amp_scaling == fused._step_supports_amp_scaling


@pytest.mark.parametrize("build", KINDS)
def test_switched_in_mid_training_goes_on_as_a_fused_one_with_that_state(build: Build) -> None:
    net, other = network(), network()
    switched, fused = build(net.parameters()), build(other.parameters(), fused=True)
    train(net, switched, 5)
    other.load_state_dict(net.state_dict())
    state = copy.deepcopy(switched.state_dict())
    for group, its in zip(state["param_groups"], fused.param_groups, strict=True):
        group["fused"] = its["fused"]
    fused.load_state_dict(state)
    assert prefer_fused(switched)
    train(net, switched, 7, start=5)
    train(other, fused, 7, start=5)
    assert same_bits(net, other)


def test_momentum_of_a_layer_that_wakes_up_later() -> None:
    # torch's own fused SGD fails here: a group with some momentum buffers and some missing.
    results = []
    for fused in (True, False):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        assert not fused or prefer_fused(optimizer)
        net[0].requires_grad_(False)
        train(net, optimizer, 3)
        net[0].requires_grad_(True)
        train(net, optimizer, 3)
        results.append(net)
    for one, other in zip(results[0].parameters(), results[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


class OwnStep(torch.optim.SGD):
    """A user's optimizer, whose step may do anything."""


P = nn.Parameter
LEFT_ALONE: dict[str, Callable[[], torch.optim.Optimizer]] = {
    "foreach chosen": lambda: torch.optim.Adam(network().parameters(), foreach=False),
    "fused refused": lambda: torch.optim.Adam(network().parameters(), fused=False),
    "fused already": lambda: torch.optim.Adam(network().parameters(), fused=True),
    "capturable": lambda: torch.optim.Adam(network().parameters(), capturable=True),
    "differentiable": lambda: torch.optim.SGD(network().parameters(), lr=0.1, differentiable=True),
    "one group's choice": lambda: torch.optim.SGD([{"params": [P(torch.zeros(1))], "foreach": True}], lr=0.1),
    "dampening": lambda: torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9, dampening=0.1),
    "no fused form": lambda: torch.optim.RMSprop(network().parameters()),
    "subclass": lambda: OwnStep(network().parameters(), lr=0.1),
    "complex": lambda: torch.optim.Adam([P(torch.zeros(2, dtype=torch.complex64)), P(torch.zeros(2))]),
    "no such device": lambda: torch.optim.Adam([P(torch.zeros(2, device="meta", dtype=torch.complex64))]),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_left_alone(case: str) -> None:
    optimizer = LEFT_ALONE[case]()
    before, defaults = [dict(group) for group in optimizer.param_groups], dict(optimizer.defaults)
    assert not prefer_fused(optimizer)
    assert [dict(group) for group in optimizer.param_groups] == before
    assert optimizer.defaults == defaults
    assert "momentum_buffer" not in optimizer.state.get(optimizer.param_groups[0]["params"][0], {})


def test_sparse_gradients_that_exist_keep_their_optimizer() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    assert not prefer_fused(optimizer)
    optimizer.step()


def test_groups_added_afterwards_are_fused_too() -> None:
    net = network()
    optimizer = torch.optim.Adam(net[0].parameters())
    assert prefer_fused(optimizer)
    optimizer.add_param_group({"params": list(net[2].parameters())})
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]
    train(net, optimizer, 2)


def test_groups_that_fused_kernels_do_not_take_are_left_out_when_they_join() -> None:
    net, odd = network(), nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    assert prefer_fused(optimizer)
    optimizer.add_param_group({"params": [odd]})
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    follow_groups(optimizer)
    assert [group["fused"] for group in optimizer.param_groups] == [True, False, True]
    odd.grad = torch.ones_like(odd)
    grow_gradients(net)
    optimizer.step()
    assert not torch.equal(odd, torch.ones_like(odd))


@pytest.mark.parametrize("switched", [False, True])
def test_restored_groups_say_whether_the_optimizer_was_switched(switched: bool) -> None:
    state = torch.optim.Adam(network().parameters(), fused=switched or None).state_dict()
    optimizer = torch.optim.Adam(network().parameters())
    if not switched:
        prefer_fused(optimizer)
    optimizer.load_state_dict(state)
    follow_groups(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    assert [group["fused"] for group in optimizer.param_groups] == [switched or None] * 2


@pytest.mark.parametrize("chosen", [{}, {"foreach": True}])
def test_a_group_that_joins_before_a_restored_optimizer_is_looked_at_is_switched_too(chosen: dict[str, bool]) -> None:
    """As in a run that was never left, where the group would have inherited it; its author's choice stays."""
    before = torch.optim.Adam(network().parameters())
    assert prefer_fused(before)
    optimizer = torch.optim.Adam(network().parameters())
    optimizer.load_state_dict(before.state_dict())
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], **chosen})
    follow_groups(optimizer)
    assert [group["fused"] for group in optimizer.param_groups] == [True, None if chosen else True]


# Stepping ------------------------------------------------------------------------------------------------------------


def grow_gradients(net: nn.Module) -> None:
    for p in net.parameters():
        p.grad = torch.ones_like(p)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop, OwnStep])
def test_take_step_changes_what_step_changes(kind: Callable[..., torch.optim.Optimizer]) -> None:
    ends = []
    for step in (take_step, lambda optimizer: optimizer.step()):
        net = network()
        optimizer = kind(net.parameters(), lr=0.1)
        for _ in range(3):
            grow_gradients(net)
            step(optimizer)
        ends.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], torch.cat([p.flatten() for p in network().parameters()]))


@contextmanager
def step_hook(place: str, optimizer: torch.optim.Optimizer, hook: Callable[..., None]) -> Iterator[None]:
    register = {
        "pre": optimizer.register_step_pre_hook,
        "post": optimizer.register_step_post_hook,
        "global pre": register_optimizer_step_pre_hook,
        "global post": register_optimizer_step_post_hook,
    }
    handle = register[place](hook)
    yield
    handle.remove()


@pytest.mark.parametrize("place", ["pre", "post", "global pre", "global post"])
def test_take_step_calls_step_hooks(place: str) -> None:
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    called = []
    with step_hook(place, optimizer, lambda *_: called.append(place)):
        take_step(optimizer)
    take_step(optimizer)
    assert called == [place]


def test_take_step_calls_a_step_that_the_instance_was_given() -> None:
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    called = []
    optimizer.step = lambda: called.append(True)
    take_step(optimizer)
    assert called == [True]


def test_take_step_is_seen_by_a_profiler() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    grow_gradients(net)
    with torch.profiler.profile() as profile:
        take_step(optimizer)
    assert "Optimizer.step#SGD.step" in {event.name for event in profile.events()}


def test_backpropagate_gives_the_gradients_of_backward() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    given = torch.linspace(-1, 1, 8).reshape(2, 4)
    gradients = []
    for backward in (backpropagate, torch.autograd.backward):
        for shape in ((), (1,), (1, 1)):
            backward((given @ weight.T).tanh().square().sum().reshape(shape))
            gradients.append(weight.grad)
            weight.grad = None
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    assert gradients[0] is not None and gradients[0].abs().sum() > 0


def test_a_backward_pass_that_writes_into_its_gradient_spoils_nothing() -> None:
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient.mul_(2)

    x = torch.ones((), requires_grad=True)
    for _ in range(2):
        x.grad = None
        backpropagate(Spoil.apply(x))
        assert x.grad == 2


def test_backpropagate_leaves_to_torch_what_torch_looks_at_first(caplog: pytest.LogCaptureFixture) -> None:
    class Told(torch.Tensor):
        calls: ClassVar[list[str]] = []

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            cls.calls.append(func.__name__)
            return super().__torch_function__(func, types, args, kwargs or {})

    x = torch.ones((), requires_grad=True)
    backpropagate((x * 3).as_subclass(Told))
    assert "backward" in Told.calls and x.grad == 3
    with pytest.raises(RuntimeError, match="scalar"):
        backpropagate(torch.ones(2, requires_grad=True) * 2)
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.vmap(lambda y: (backpropagate((x * y).sum()), y)[1])(torch.ones(2))
    with caplog.at_level("DEBUG", logger="torch.autograd.graph"):
        backpropagate(x * 3)
    assert caplog.records, "the debug log of autograd is not written"
