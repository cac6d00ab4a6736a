"""Row edits against a plain model of rows, bit for bit; and that whatever disagrees changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from treadle.engine import row_commit
from treadle.engine.rows import RowEdit
from treadle.errors import StateError, UsageError

Build = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam fused amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, fused=True),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "SGD fused nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "RMSprop centered": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.1),
    "Adagrad fused": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.1, fused=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01),
}
FRESH = {("Adagrad", "sum"): 0.1, ("Rprop", "step_size"): 0.01}
WIDTHS = {"xy": (2,), "rgb": (3, 1), "fixed": (), "seen": (), "flag": (1,)}


class Averaged:
    """The averages of some parameters: what a row edit needs to know of an EMA."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.pairs = [(p, p.detach().clone().double()) for p in parameters]  # another dtype than the parameters

    def update(self) -> None:
        for parameter, shadow in self.pairs:
            shadow.lerp_(parameter.detach().double(), 0.1)

    def shadow_of(self, parameter: Tensor, /) -> Tensor | None:
        return next((shadow for p, shadow in self.pairs if p is parameter), None)


class Cloud:
    """Rows in parameters and buffers, two optimizers (the first with two groups, "rgb" in both), and an average."""

    def __init__(self, rows: int, kind: str) -> None:
        generator = torch.Generator().manual_seed(rows)
        self.xy = nn.Parameter(torch.randn(rows, 2, generator=generator))
        self.rgb = nn.Parameter(torch.randn(rows, 3, 1, generator=generator))
        self.fixed = nn.Parameter(torch.randn(rows, generator=generator), requires_grad=False)
        self.seen = torch.arange(rows)
        self.flag = torch.arange(rows).reshape(rows, 1) % 2 == 0
        self.other = nn.Parameter(torch.randn(4, generator=generator))
        self.tensors: dict[str, Tensor] = {name: getattr(self, name) for name in WIDTHS}
        groups = [{"params": [self.xy, self.fixed]}, {"params": [self.rgb, self.other]}]
        self.optimizers = [OPTIMIZERS[kind](groups), OPTIMIZERS[kind]([self.rgb])]
        self.ema = Averaged([self.xy, self.fixed, self.other])

    def train(self, steps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            for parameter in (self.xy, self.rgb, self.other):
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            for optimizer in self.optimizers:
                optimizer.step()
            self.ema.update()

    def edit(self) -> RowEdit:
        return RowEdit(self.tensors, self.optimizers, [self.ema])

    def followers(self) -> dict[tuple[Any, ...], Tensor]:
        """Everything with rows: the tensors, their state, and their averages."""
        found: dict[tuple[Any, ...], Tensor] = {("value", name): tensor for name, tensor in self.tensors.items()}
        for name, tensor in self.tensors.items():
            for number, optimizer in enumerate(self.optimizers):
                for key, value in optimizer.state.get(tensor, {}).items():
                    if isinstance(value, Tensor) and value.dim():
                        found["state", name, number, type(optimizer).__name__, key] = value
            shadow = self.ema.shadow_of(tensor)
            if shadow is not None:
                found["average", name] = shadow
        return found

    def everything(self) -> list[Any]:
        """All there is, for comparing: identities of objects and copies of values."""
        tensors = [*self.tensors.values(), self.other]
        kept: list[Any] = [(id(t), t.detach().clone(), t.grad if t.grad is None else t.grad.clone()) for t in tensors]
        kept += [(id(shadow), shadow.clone()) for _, shadow in self.ema.pairs]
        kept += [copy.deepcopy(optimizer.state_dict()) for optimizer in self.optimizers]
        return kept


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


class Model:
    """The same edits on plain Python rows: each row a dict of its values, states and averages."""

    def __init__(self, cloud: Cloud) -> None:
        self.like = {key: tensor.detach() for key, tensor in cloud.followers().items()}
        count = len(cloud.xy)
        self.rows = [{key: tensor[i].clone() for key, tensor in self.like.items()} for i in range(count)]

    def row(
        self, values: dict[str, Tensor], i: int, moments: dict[tuple[Any, ...], Tensor] | None
    ) -> dict[Any, Tensor]:
        made = {}
        for key, tensor in self.like.items():
            if key[0] == "state":
                fresh = torch.full(tensor.shape[1:], FRESH.get(key[3:], 0.0), dtype=tensor.dtype)
                made[key] = fresh if moments is None else moments[key]
            else:
                made[key] = values[key[1]][i].to(tensor.dtype)
        return made

    def append(self, values: dict[str, Tensor], source: list[int] | None) -> None:
        count = len(values["xy"])
        new = [self.row(values, i, None if source is None else self.rows[source[i]]) for i in range(count)]
        self.rows = self.rows + new

    def replace(self, index: list[int], values: dict[str, Tensor], moments: str) -> None:
        for i, at in enumerate(index):
            before = self.rows[at]
            full = {name: values.get(name, torch.empty(len(index), *WIDTHS[name])) for name in WIDTHS}
            after = self.row(full, i, before if moments == "keep" else None)
            self.rows[at] = {key: after[key] if key[1] in values else before[key] for key in before}

    def result(self) -> dict[Any, Tensor]:
        return {
            key: torch.stack([row[key] for row in self.rows]) if self.rows else tensor[:0]
            for key, tensor in self.like.items()
        }


def new_rows(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "xy": torch.randn(count, 2, generator=generator),
        "rgb": torch.randn(count, 3, 1, generator=generator),
        "fixed": torch.randn(count, generator=generator),
        "seen": torch.randint(100, 200, (count,), generator=generator),
        "flag": torch.randint(0, 2, (count, 1), generator=generator).bool(),
    }


def both(edit: RowEdit, model: Model, operation: str, seed: int, cloud: Cloud) -> None:
    """One random operation on the edit and on the model."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(model.rows)
    assert edit.rows == rows
    mask = torch.rand(rows, generator=generator) < 0.6
    order = torch.randperm(rows, generator=generator)[: max(rows - 1, 0)]
    if operation == "keep mask":
        edit.keep(mask)
        model.rows = [row for row, kept in zip(model.rows, mask.tolist(), strict=True) if kept]
    elif operation == "keep index":
        edit.keep(order)
        model.rows = [model.rows[i] for i in order.tolist()]
    elif operation == "append":
        values = new_rows(seed % 4, generator)
        edit.append({cloud.tensors[name]: value for name, value in values.items()} if seed % 2 else values)
        model.append(values, None)
    elif operation == "append copy":
        count = seed % 4 if rows else 0
        source = torch.randint(0, max(rows, 1), (count,), generator=generator)
        values = new_rows(count, generator)
        edit.append(values, copy_from=source)
        model.append(values, source.tolist())
    else:
        moments = operation.removeprefix("replace ")
        values = new_rows(len(order), generator)
        for name in list(values)[: seed % 5]:  # in some of the tensors only
            del values[name]
        edit.replace(order, values, moments=moments)  # type: ignore[arg-type]
        model.replace(order.tolist(), values, moments)


OPERATIONS = ["keep mask", "keep index", "append", "append copy", "replace zero", "replace keep"]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(OPTIMIZERS)),
    rows=st.integers(0, 6),
    steps=st.integers(0, 3),
    operations=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 10_000)), max_size=5),
)
def test_edits_equal_the_model_and_training_goes_on_as_if_it_had_always_been_so(
    kind: str, rows: int, steps: int, operations: list[tuple[str, int]]
) -> None:
    cloud = Cloud(rows, kind)
    cloud.train(steps, seed=1)
    model = Model(cloud)
    objects = {key: id(tensor) for key, tensor in cloud.followers().items()}
    scalars = [
        {key: copy.deepcopy(value) for key, value in optimizer.state.get(cloud.rgb, {}).items() if key == "step"}
        for optimizer in cloud.optimizers
    ]
    edit = cloud.edit()
    for operation, seed in operations:
        both(edit, model, operation, seed, cloud)
    edit.commit()

    expected = model.result()
    actual = cloud.followers()
    assert same(actual, expected)
    assert {key: id(tensor) for key, tensor in actual.items()} == objects
    for optimizer, before in zip(cloud.optimizers, scalars, strict=True):
        assert same({k: v for k, v in optimizer.state.get(cloud.rgb, {}).items() if k == "step"}, before)

    # A cloud built with these rows and this state, in fresh objects, goes on with the same bits.
    other = Cloud(len(model.rows), kind)
    with torch.no_grad():
        for name, tensor in other.tensors.items():
            tensor.copy_(expected["value", name])
        other.other.copy_(cloud.other)
        for (_, shadow), (_, ours) in zip(other.ema.pairs, cloud.ema.pairs, strict=True):
            shadow.copy_(ours)
    for mine, its in zip(other.optimizers, cloud.optimizers, strict=True):
        mine.load_state_dict(copy.deepcopy(its.state_dict()))
    cloud.train(2, seed=2)
    other.train(2, seed=2)
    assert same(cloud.followers(), other.followers())


@pytest.mark.parametrize("kind", ["Adam", "AdamW fused", "SGD momentum", "RMSprop centered", "RAdam", "Adagrad"])
def test_appended_rows_train_like_rows_that_were_there_but_had_no_gradient(kind: str) -> None:
    start = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    grown, always = nn.Parameter(start[:4].clone()), nn.Parameter(start.clone())
    optimizers = [OPTIMIZERS[kind]([p]) for p in (grown, always)]
    for optimizer in optimizers:
        optimizer.param_groups[0]["weight_decay"] = 0.0
    generator = torch.Generator().manual_seed(1)
    for step in range(8):
        if step == 4:
            with RowEdit([grown], optimizers[:1]) as edit:
                edit.append([start[4:]])
        gradient = torch.randn(7, 3, generator=generator)
        if step < 4:
            gradient[4:] = 0.0
        grown.grad, always.grad = gradient[: len(grown)].clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(grown, always, rtol=1e-6, atol=1e-7)


def test_the_gradient_is_cleared_and_the_next_backward_fits() -> None:
    cloud = Cloud(5, "Adam")
    cloud.train(2, seed=0)
    with cloud.edit() as edit:
        edit.keep([0, 3])
    assert cloud.xy.grad is None
    cloud.xy.square().sum().backward()
    assert cloud.xy.grad is not None
    assert cloud.xy.grad.shape == (2, 2)


def test_tensors_for_which_nothing_was_staged_are_left_alone() -> None:
    cloud = Cloud(5, "Adam")
    cloud.train(2, seed=0)
    gradient, data = cloud.xy.grad, cloud.xy.data_ptr()
    with cloud.edit() as edit:
        edit.keep(torch.ones(5, dtype=torch.bool))
        edit.append(new_rows(0, torch.Generator()))
        edit.replace([], {"xy": torch.zeros(0, 2)})
        edit.replace([1], {"rgb": torch.zeros(1, 3, 1)})
    assert cloud.xy.grad is gradient
    assert cloud.xy.data_ptr() == data
    assert cloud.rgb.grad is None


def test_new_rows_are_copied_when_staged() -> None:
    xy = nn.Parameter(torch.zeros(1, 2))
    rows = torch.ones(2, 2)
    with RowEdit([xy]) as edit:
        edit.append([rows])
        rows.zero_()
    assert torch.equal(xy.data, torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))


def test_hooks_on_the_parameter_stay() -> None:
    xy = nn.Parameter(torch.ones(3))
    seen: list[str] = []
    xy.register_hook(lambda gradient: seen.append("gradient"))
    xy.register_post_accumulate_grad_hook(lambda parameter: seen.append("accumulated"))
    with RowEdit([xy]) as edit:
        edit.keep([0])
    (xy * 2).sum().backward()
    assert seen == ["gradient", "accumulated"]


def test_a_loss_still_in_scope_does_not_prevent_an_edit_and_cannot_be_used_after_it() -> None:
    xy, fixed = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))
    kept = (xy * 2).sum()
    kept.backward(retain_graph=True)
    with RowEdit({"xy": xy, "fixed": fixed}) as edit:
        edit.append({"xy": torch.zeros(2, 2), "fixed": torch.zeros(2)})
    (xy * 3).sum().backward()
    assert torch.equal(xy.grad, torch.full((5, 2), 3.0))  # type: ignore[arg-type]
    with pytest.raises(StateError, match="graph from before a row edit"):
        kept.backward()
    assert torch.equal(xy.grad, torch.full((5, 2), 3.0))  # type: ignore[arg-type]


def test_a_parameter_frozen_for_a_while_can_be_edited_meanwhile() -> None:
    xy = nn.Parameter(torch.ones(3))
    kept = (xy * 2).sum()
    xy.requires_grad_(False)
    with RowEdit([xy]) as edit:
        edit.keep([0])
    xy.requires_grad_(True)
    (xy * 2).sum().backward()
    assert kept.requires_grad
    assert torch.equal(xy.grad, torch.tensor([2.0]))  # type: ignore[arg-type]


def test_under_inference_mode_the_tensors_stay_trainable() -> None:
    xy = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([xy])
    with torch.inference_mode(), RowEdit([xy], [optimizer]) as edit:
        edit.append([torch.zeros(1)])
    (xy * 2).sum().backward()
    optimizer.step()


# All or nothing ------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Callable[[RowEdit, Cloud], object], str]] = {
    "mask length": (lambda e, c: e.keep(torch.ones(4, dtype=torch.bool)), "mask has 4 entries for 5 rows"),
    "index range": (lambda e, c: e.keep([0, 5]), "index 5 is out of range for 5 rows"),
    "negative": (lambda e, c: e.keep([-1]), "index -1 is out of range"),
    "duplicate": (lambda e, c: e.keep([1, 3, 1]), "row 1 comes twice"),
    "float index": (lambda e, c: e.keep(torch.tensor([0.5])), "boolean mask or integer indices"),
    "index shape": (lambda e, c: e.keep(torch.zeros(1, 1, dtype=torch.long)), "boolean mask or integer indices"),
    "after keep": (lambda e, c: (e.keep([0, 1]), e.keep([2])), "index 2 is out of range for 2 rows"),
    "missing": (lambda e, c: e.append({"xy": torch.zeros(1, 2)}), "no rows for 'rgb'"),
    "none": (lambda e, c: e.replace([0], {}), "no rows were given"),
    "unknown": (lambda e, c: e.replace([0], {"xyz": torch.zeros(1, 2)}), "no 'xyz'; did you mean 'xy'"),
    "stranger": (lambda e, c: e.replace([0], {c.other: torch.zeros(1)}), "this edit has no such tensor"),
    "row shape": (
        lambda e, c: e.replace([0], {"xy": torch.zeros(1, 3)}),
        r"'xy' have shape \(1, 3\); expected \(rows, 2\)",
    ),
    "row dims": (lambda e, c: e.replace([0], {"xy": torch.zeros(2)}), r"'xy' have shape \(2,\)"),
    "dtype": (
        lambda e, c: e.replace([0], {"seen": torch.zeros(1)}),
        "torch.float32 on cpu; expected torch.int64 on cpu",
    ),
    "device": (lambda e, c: e.replace([0], {"xy": torch.zeros(1, 2, device="meta")}), "on meta; expected"),
    "not a tensor": (lambda e, c: e.replace([0], {"xy": [[0.0, 0.0]]}), "a list; give a tensor"),
    "counts": (
        lambda e, c: e.append(new_rows(2, torch.Generator()) | {"seen": torch.zeros(3, dtype=torch.long)}),
        "3 rows for 'seen' where 2 belong",
    ),
    "replace count": (lambda e, c: e.replace([0], {"xy": torch.zeros(2, 2)}), "2 rows for 'xy' where 1 belong"),
    "copy count": (lambda e, c: e.append(new_rows(2, torch.Generator()), copy_from=[0]), "copy_from has 1 rows for 2"),
    "copy range": (lambda e, c: e.append(new_rows(1, torch.Generator()), copy_from=[7]), "index 7 is out of range"),
    "in order": (lambda e, c: e.append([torch.zeros(1, 2)]), "1 tensors of rows for an edit of 5"),
    "moments": (lambda e, c: e.replace([0], {"xy": torch.zeros(1, 2)}, moments="x"), "give 'zero' or 'keep'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD)
def test_bad_operations_are_named_and_change_nothing(case: str) -> None:
    call, told = BAD[case]
    cloud = Cloud(5, "Adam")
    cloud.train(2, seed=0)
    before = cloud.everything()
    with pytest.raises(UsageError, match=told), cloud.edit() as edit:
        edit.keep([0, 1, 2, 3, 4])
        call(edit, cloud)
    assert same(cloud.everything(), before)


def test_an_operation_that_is_refused_leaves_the_edit_as_it_was() -> None:
    cloud = Cloud(5, "Adam")
    edit = cloud.edit()
    edit.keep([0, 2])
    for case in ("duplicate", "missing", "counts", "copy range", "row shape", "replace count"):
        with pytest.raises(UsageError):
            BAD[case][0](edit, cloud)
    edit.commit()
    assert cloud.seen.tolist() == [0, 2]


def spoil_state(cloud: Cloud, value: Any) -> None:
    cloud.optimizers[1].state[cloud.rgb]["odd"] = value


class Crooked(Averaged):
    def shadow_of(self, parameter: Tensor, /) -> Tensor | None:
        return torch.zeros(3, 3) if parameter.shape[1:] == (3, 1) else super().shadow_of(parameter)


SPOILED: dict[str, tuple[Callable[[Cloud], object], str]] = {
    "state shape": (lambda c: spoil_state(c, torch.zeros(1, 3)), r"'odd' in Adam has shape \(1, 3\).*'rgb'"),
    "state kind": (lambda c: spoil_state(c, [torch.zeros(5)]), "Adam keeps 'odd' of 'rgb' as list"),
    "average shape": (lambda c: setattr(c, "ema", Crooked([c.xy])), r"average of 'rgb' has shape \(3, 3\)"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_does_not_fit_is_named_at_the_commit_and_nothing_is_changed(case: str) -> None:
    spoil, told = SPOILED[case]
    cloud = Cloud(5, "Adam")
    cloud.train(2, seed=0)
    spoil(cloud)
    before = cloud.everything()
    edit = cloud.edit()
    edit.keep([0, 1])
    with pytest.raises(UsageError, match=told):
        edit.commit()
    assert same(cloud.everything(), before)


def test_optimizers_that_mix_all_parameters_are_refused() -> None:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.LBFGS([first, second])

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (first + second).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    edit = RowEdit([second], [optimizer])
    edit.keep([0])
    with pytest.raises(UsageError, match="LBFGS keeps one history"):
        edit.commit()
    adafactor = torch.optim.Adafactor([wide := nn.Parameter(torch.ones(4, 6))])
    wide.grad = torch.ones(4, 6)
    adafactor.step()
    edit = RowEdit([wide], [adafactor])
    edit.keep([0])
    with pytest.raises(UsageError, match="'col_var' in Adafactor"):
        edit.commit()


def test_a_tensor_that_changed_meanwhile_is_named() -> None:
    xy = nn.Parameter(torch.ones(3))
    edit = RowEdit({"xy": xy})
    edit.keep([0])
    with RowEdit({"xy": xy}) as other:
        other.keep([1, 2])
    with pytest.raises(UsageError, match="'xy' has changed its shape since the edit began"):
        edit.commit()


def test_an_error_in_the_block_changes_nothing() -> None:
    cloud = Cloud(5, "Adam")
    cloud.train(2, seed=0)
    before = cloud.everything()
    with pytest.raises(RuntimeError, match="mine"), cloud.edit() as edit:
        edit.keep([0])
        raise RuntimeError("mine")
    assert same(cloud.everything(), before)


@pytest.mark.parametrize("after", range(12))
def test_an_interrupt_in_the_midst_of_the_exchange_is_undone(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(5, "Adam")
    cloud.train(2, seed=0)
    kept = cloud.xy.square().sum()  # a graph from before
    before = cloud.everything()
    calls = 0

    class Interrupting(list[Any]):
        def __iter__(self) -> Any:
            nonlocal calls
            for item in super().__iter__():
                calls += 1
                # The first pass over the swaps collects what was; the second exchanges.
                if calls == len(self) + 1 + after:
                    raise KeyboardInterrupt
                yield item

    original = row_commit.exchange
    monkeypatch.setattr("treadle.engine.rows.exchange", lambda edited, swaps: original(edited, Interrupting(swaps)))
    edit = cloud.edit()
    edit.keep([0, 1])
    with pytest.raises(KeyboardInterrupt):
        edit.commit()
    assert same(cloud.everything(), before)
    cloud.xy.grad = None
    kept.backward()  # the graph is as good as before
    assert torch.equal(cloud.xy.grad, 2 * cloud.xy.detach())  # type: ignore[arg-type]


def test_a_closed_edit_takes_nothing_more() -> None:
    xy = nn.Parameter(torch.ones(3))
    with RowEdit([xy]) as edit:
        edit.keep([0])
        edit.commit()  # leaving the block does not commit again
    assert len(xy) == 1
    calls: list[Callable[[], object]] = [
        edit.commit,
        lambda: edit.keep([0]),
        lambda: edit.append([torch.ones(1)]),
        lambda: edit.replace([0], [torch.ones(1)]),
    ]
    for call in calls:
        with pytest.raises(StateError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "at least one tensor"),
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, "'a' has 3, 'b' has 4"),
        ({"a": torch.tensor(1.0)}, "'a' is no dense tensor with rows"),
        ({"a": [1.0]}, "'a' is no dense tensor with rows"),
        ({"a": torch.zeros(4)[:2]}, "'a' is computed from or a view"),
        ({"a": torch.zeros(2, requires_grad=True) * 1}, "'a' is computed from or a view"),
        (dict.fromkeys("ab", torch.zeros(2)), "'a' and 'b' are the same tensor"),
    ],
)
def test_tensors_that_cannot_be_edited_together_are_named(tensors: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        RowEdit(tensors)


def test_state_that_is_not_floating_point_follows() -> None:
    xy = nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.SGD([xy], lr=0.1)
    optimizer.state[xy] = {
        "count": torch.tensor([3, 4, 5]),
        "on": torch.tensor([True, True, False]),
        "step": torch.ones(1),
    }
    with RowEdit([xy], [optimizer]) as edit:
        edit.keep([2, 1])
        edit.append([torch.zeros(1, 2)])
    assert optimizer.state[xy]["count"].tolist() == [5, 4, 0]
    assert optimizer.state[xy]["on"].tolist() == [False, True, False]
    assert optimizer.state[xy]["step"].tolist() == [1.0]
