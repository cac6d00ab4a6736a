"""Loss terms: what is summed, what is logged, and that no term waits for the device or shares state."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treadle import Trainer
from treadle.engine.objective import Losses, Objective
from treadle.engine.progress import Progress
from treadle.engine.terms import Term
from treadle.errors import StateError, UsageError

weights = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1e3))


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True) * 1


SPEC = {
    "basic": [
        Term("G_GAN", tags=("G",)),
        Term("G_L1", torch.nn.functional.l1_loss, weight=100.0, tags=("G",)),
        Term("D_real", tags=("D",)),
    ],
    "sobel": [Term("G_SOBEL", weight=3)],
    "again": [Term("G_L1")],
}


# What is summed ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(weights, st.floats(-10, 10)), min_size=1, max_size=5))
def test_the_total_is_the_plain_weighted_sum_bit_for_bit(given_terms: list[tuple[float, float]]) -> None:
    objective = Objective()
    values = {}
    for index, (weight, value) in enumerate(given_terms):
        objective.add(f"t{index}", weight=weight)
        values[f"t{index}"] = scalar(value)
    losses = objective(**values)
    parts = [values[f"t{index}"] * weight for index, (weight, _) in enumerate(given_terms) if weight]
    by_hand = parts[0] if parts else torch.zeros(())
    for part in parts[1:]:
        by_hand = by_hand + part
    assert torch.equal(losses.total, by_hand)
    assert losses.weights == {f"t{index}": weight for index, (weight, _) in enumerate(given_terms)}


def test_gradients_are_weighted() -> None:
    objective = Objective([Term("a", weight=2.0), Term("b", weight=0.5)])
    x = torch.tensor(3.0, requires_grad=True)
    objective(a=x * x, b=x).total.backward()
    assert x.grad == 2.0 * 6.0 + 0.5


def test_functions_are_called_with_their_arguments_and_only_for_terms_given() -> None:
    def refuse(*arguments: Any) -> Tensor:
        raise AssertionError("not asked for")

    objective = Objective(
        [Term("gan", lambda logits, target: (logits - target).square().mean()), Term("other", refuse)]
    )
    losses = objective(gan=(torch.tensor([2.0, 4.0]), 1.0))
    assert dict(losses) == {"gan": torch.tensor(5.0)}
    assert losses.total == 5.0


def test_raw_values_are_detached_and_total_is_not() -> None:
    losses = Objective([Term("a", weight=2.0)])(a=scalar(3.0))
    assert isinstance(losses, Losses)
    assert not losses["a"].requires_grad
    assert losses.total.requires_grad


def test_a_term_of_weight_zero_is_reported_but_not_part_of_the_graph() -> None:
    seen: list[bool] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return x * math.nan

    objective = Objective([Term("a"), Term("off", watched, weight=0.0)])
    losses = objective(a=scalar(1.0), off=(scalar(1.0),))
    assert losses.total == 1.0  # 0 * NaN would be NaN
    assert losses["off"].isnan()
    assert losses.weights["off"] == 0.0
    assert seen == [False]


def test_only_terms_of_weight_zero_sum_to_zero() -> None:
    losses = Objective([Term("a", weight=0.0)])(a=scalar(3.0))
    assert losses.total == 0.0
    assert losses.total.shape == ()


@pytest.mark.filterwarnings("ignore:Losses.subset")
def test_terms_are_selected_by_tag() -> None:
    objective = Objective([Term("a", weight=2.0, tags=("G",)), Term("b", tags=("G", "x")), Term("c", tags=("D",))])
    losses = objective(a=scalar(1.0), b=scalar(10.0), c=scalar(100.0))
    assert set(losses.subset(tags="G")) == {"a", "b"}
    assert losses.subset(tags="G").total == 12.0
    assert losses.subset(tags=("x", "D")).total == 110.0
    assert losses.subset(tags=["D"]).total.requires_grad
    with pytest.raises(UsageError, match="has the tag"):
        losses.subset("E")


def test_the_subset_by_tag_says_that_it_goes() -> None:
    with pytest.warns(FutureWarning, match="Losses.subset will be removed: call the objective once") as told:
        Objective([Term("a", tags=("G",))])(a=scalar(1.0)).subset("G")
    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.filterwarnings("ignore:Losses.subset")
def test_a_subset_of_terms_of_weight_zero_sums_to_zero() -> None:
    losses = Objective([Term("a", weight=0.0, tags=("G",)), Term("b")])(a=scalar(3.0), b=scalar(1.0))
    assert losses.subset("G").total == 0.0
    assert dict(losses.subset("G")) == {"a": 3.0}


def test_one_tag_may_be_given_as_a_word() -> None:
    assert Term("a", tags="generator").tags == ("generator",)  # type: ignore[arg-type]
    assert Term("a", tags=["x", "y"]).tags == ("x", "y")  # type: ignore[arg-type]


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda o: o(l1_=scalar(1.0)), "no term 'l1_'; did you mean 'l1'"),
        (lambda o: o(l1=torch.ones(3)), r"'l1' has shape \(3,\)"),
        (lambda o: o(l1=torch.ones(1)), r"'l1' has shape \(1,\)"),
        (lambda o: o(l1=3.0), "'l1' is a float"),
        (lambda o: o(l1=(torch.ones(3),)), "'l1' has no function"),
        (lambda o: o(), "without any term"),
        (lambda o: o.add("l1"), "a term 'l1' already"),
        (lambda o: o.add("l 1"), "identifier"),
        (lambda o: o.add("x", weight=-1.0), "finite number >= 0"),
        (lambda o: o.add("x", weight="cosin 1 to 0"), "did you mean 'cosine'"),
        (lambda o: o.set_weight("l1", math.nan), "finite number >= 0"),
        (lambda o: o.set_weight("l1", -0.5), "finite number >= 0"),
        (lambda o: o.set_weight("l1", "2"), "finite number >= 0"),
        (lambda o: o.set_weight("l11", 1.0), "did you mean 'l1'"),
        (lambda o: o.weight("l11"), "did you mean 'l1'"),
        (lambda o: o(scheduled=scalar(1.0)), "bind"),
    ],
)
def test_bad_use_names_the_term(call: Callable[[Objective], object], told: str) -> None:
    objective = Objective([Term("l1"), Term("scheduled", weight="linear 1 to 0")])
    with pytest.raises(UsageError, match=told):
        call(objective)
    assert objective.flush(Progress()) == {}
    assert objective.weight("l1") == 1.0


def test_a_schedule_that_gives_a_negative_weight_is_refused() -> None:
    objective = Objective([Term("a", weight=lambda progress: -1.0)])
    objective.bind(Progress())
    with pytest.raises(UsageError, match=r"'a': weight -1\.0"):
        objective(a=scalar(1.0))


# Weights -------------------------------------------------------------------------------------------------------------


def test_the_logged_weight_is_the_applied_weight() -> None:
    objective = Objective([Term("a", weight="linear 1 to 0")])
    progress = Progress(max_steps=4)
    objective.bind(progress)
    x = torch.tensor(1.0, requires_grad=True)
    for step in range(4):
        progress.step = step
        losses = objective(a=x * 1)
        (gradient,) = torch.autograd.grad(losses.total, x)
        progress.step += 1
        logged = objective.flush(progress)
        applied = [1.0, 0.75, 0.5, 0.25][step]
        assert gradient == losses.weights["a"] == logged["a.weight"] == applied
        assert objective.history["a"][-1] == (step + 1, 1.0, applied)


def test_a_weight_set_in_the_running_program_replaces_the_schedule() -> None:
    objective = Objective([Term("a", weight="linear 1 to 0"), Term("b")])
    objective.bind(Progress(max_steps=10))
    objective.set_weight("a", 7)
    assert objective.weight("a") == 7.0
    assert objective(a=scalar(1.0), b=scalar(1.0)).total == 8.0
    assert objective.flush(Progress())["a.weight"] == 7.0


def test_terms_share_nothing() -> None:
    one, other = Objective(), Objective()
    for objective in (one, other):
        objective.add("a")
        objective.add("b")
    one.set_weight("a", 5.0)
    one(a=scalar(1.0), b=scalar(1.0))
    one.flush(Progress(step=1))
    assert (one.weight("a"), one.weight("b"), other.weight("a"), other.weight("b")) == (5.0, 1.0, 1.0, 1.0)
    assert other.history == {}
    assert other.flush(Progress(step=1)) == {}
    assert one.history["a"] is not one.history["b"]


# Specs ---------------------------------------------------------------------------------------------------------------


def test_specs_are_built_from_their_parts() -> None:
    assert list(Objective.from_spec(SPEC).terms) == ["G_GAN", "G_L1", "D_real"]
    assert list(Objective.from_spec(SPEC, "again").terms) == ["G_L1"]
    objective = Objective.from_spec(SPEC, "basic", "sobel", weights={"G_L1": "linear 10 to 0", "G_SOBEL": 5.0})
    objective.bind(Progress(step=1, max_steps=2))
    assert list(objective.terms) == ["G_GAN", "G_L1", "D_real", "G_SOBEL"]
    assert [objective.weight(name) for name in objective.terms] == [1.0, 5.0, 1.0, 5.0]
    assert objective.terms["G_L1"].tags == ("G",)
    assert objective(G_L1=(torch.zeros(2), torch.ones(2)))["G_L1"] == 1.0


def test_objectives_of_one_spec_share_nothing() -> None:
    one, other = Objective.from_spec(SPEC), Objective.from_spec(SPEC)
    one.set_weight("G_L1", 1.0)
    one(G_L1=scalar(1.0))
    assert other.weight("G_L1") == 100.0
    assert other.flush(Progress()) == {}
    assert Objective.from_spec(SPEC).weight("G_L1") == 100.0


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Objective.from_spec(SPEC, "basik"), "no sub-spec 'basik'; did you mean 'basic'"),
        (lambda: Objective.from_spec(SPEC, weights={"G_L2": 1.0}), "no term 'G_L2'; did you mean 'G_L1'"),
        (lambda: Objective.from_spec(SPEC, weights={"G_L1": -1.0}), "finite number >= 0"),
        (lambda: Objective.from_spec(SPEC, "basic", "again"), "'G_L1' already"),
    ],
)
def test_bad_specs_are_named(call: Callable[[], object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        call()


# History and cost ----------------------------------------------------------------------------------------------------


def test_flush_gives_means_over_the_calls_that_had_the_term() -> None:
    objective = Objective([Term("a"), Term("b", weight=3.0), Term("c")])
    objective(a=scalar(1.0), b=scalar(10.0))
    objective(b=scalar(20.0), a=scalar(2.0))
    objective(a=scalar(6.0))
    assert objective.flush(Progress(step=3)) == {"a": 3.0, "a.weight": 1.0, "b": 15.0, "b.weight": 3.0}
    assert objective.flush(Progress(step=4)) == {}
    objective(a=scalar(5.0))
    assert objective.flush(Progress(step=5)) == {"a": 5.0, "a.weight": 1.0}
    assert objective.history == {"a": [(3, 3.0, 1.0), (5, 5.0, 1.0)], "b": [(3, 15.0, 3.0)]}


def test_long_means_are_exact_enough() -> None:
    objective = Objective([Term("a")])
    for _ in range(3000):
        objective(a=torch.tensor(0.1))
    assert objective.flush(Progress())["a"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-14)


def test_validation_is_computed_but_not_recorded() -> None:
    objective = Objective([Term("a", weight=2.0)])
    with torch.no_grad():
        assert objective(a=torch.tensor(3.0)).total == 6.0
    with torch.inference_mode():
        assert objective(a=torch.tensor(3.0)).total == 6.0
    assert objective.flush(Progress()) == {}
    objective(a=scalar(1.0))
    assert objective.flush(Progress())["a"] == 1.0


READS = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "to")


class OnDevice(Tensor):
    """A scalar that says it is not on the CPU, and takes note of who asks for its value: waiting for a GPU is dear."""

    is_cpu = False  # type: ignore[assignment]
    read: list[str] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READS:
            cls.read.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_call_never_waits_for_the_device_and_flush_reads_once_for_each_set_of_terms() -> None:
    objective = Objective([Term("a", weight=2.0), Term("b", weight="linear 1 to 0"), Term("c", weight=0.0)])
    objective.bind(Progress(max_steps=10))
    OnDevice.read.clear()
    for _ in range(3):
        objective(**{name: scalar(1.0).as_subclass(OnDevice) for name in "abc"})
        objective(a=scalar(2.0).as_subclass(OnDevice))
    assert OnDevice.read == []
    logged = objective.flush(Progress(step=3))
    assert OnDevice.read == ["tolist", "tolist"]
    assert logged["a"] == 1.5


def test_a_result_that_is_kept_keeps_no_graph_of_a_term_without_weight() -> None:
    class Activations:
        """What a graph holds on to."""

    held = Activations()
    alive = weakref.ref(held)
    off = scalar(2.0) * 3.0
    assert off.grad_fn is not None
    off.grad_fn.metadata["saved"] = held
    losses = Objective([Term("a"), Term("off", weight=0.0)])(a=scalar(1.0), off=off)
    del off, held
    gc.collect()
    assert alive() is None and losses["off"] == 6.0


# State ---------------------------------------------------------------------------------------------------------------


def walk(objective: Objective, progress: Progress, values: list[float]) -> list[dict[str, float]]:
    logged = []
    for value in values:
        losses = objective(a=scalar(value)) if progress.step % 3 else objective(a=scalar(value), b=scalar(value / 3))
        losses.total.backward()
        progress.step += 1
        if progress.step % 4 == 0:
            logged.append(objective.flush(progress))
    return logged


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=8, max_size=16), st.integers(0, 8))
def test_state_continues_exactly_inside_an_interval(values: list[float], cut: int) -> None:
    def build(progress: Progress) -> Objective:
        objective = Objective([Term("a", weight="linear 1 to 0.5"), Term("b")])
        objective.bind(progress)
        return objective

    whole_progress = Progress(max_steps=20)
    whole = build(whole_progress)
    whole.set_weight("b", 0.25)
    expected = walk(whole, whole_progress, values)

    progress = Progress(max_steps=20)
    first = build(progress)
    first.set_weight("b", 0.25)
    logged = walk(first, progress, values[:cut])
    state = first.state_dict()
    walk(first, Progress(step=cut, max_steps=20), values)  # what happens afterwards is not in the state
    second = build(progress)
    second.load_state_dict(state)
    logged += walk(second, progress, values[cut:])
    assert logged == expected
    assert second.history == whole.history
    assert second.weight("b") == 0.25


def test_state_is_plain_data_and_tensors() -> None:
    objective = Objective([Term("a"), Term("b")])
    walk(objective, Progress(), [1.0, 2.0, 3.0, 4.0, 5.0])
    state = objective.state_dict()
    tensors = state["sums"].pop("sums")
    assert json.loads(json.dumps(state)) == state
    assert all(type(tensor) is Tensor for tensor in tensors.values())


def test_a_loaded_state_can_be_loaded_again() -> None:
    objective = Objective([Term("a")])
    objective(a=scalar(1.0))
    state = objective.state_dict()
    for _ in range(2):
        objective.load_state_dict(state)
        objective(a=scalar(3.0))
        assert objective.flush(Progress(step=2)) == {"a": 2.0, "a.weight": 1.0}
        assert len(objective.history["a"]) == 1


def test_a_weight_set_after_the_save_is_undone_by_the_load() -> None:
    objective = Objective([Term("a", weight=3.0)])
    state = objective.state_dict()
    objective.set_weight("a", 9.0)
    objective.load_state_dict(state)
    assert objective.weight("a") == 3.0


def test_state_of_other_terms_is_refused_and_changes_nothing() -> None:
    objective = Objective([Term("a"), Term("b")])
    walk(objective, Progress(), [1.0] * 5)
    before = objective.state_dict()
    with pytest.raises(StateError, match="differing: b, c"):
        objective.load_state_dict(Objective([Term("a"), Term("c")]).state_dict())
    assert objective.state_dict()["history"] == before["history"]


def test_a_step_that_returns_nothing_still_logs_its_objective() -> None:
    class Quiet(Trainer):
        def setup(self) -> None:
            self.model = torch.nn.Linear(1, 1)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            self.objective = Objective()
            self.objective.add("fit", weight=2.0)

        def step(self, batch: Any) -> Any:
            self.minimize(self.objective(fit=self.model(batch).square().mean()))
            return {}

    trainer = Quiet(data=torch.ones(4, 1), batch_size=2, max_epochs=1, log_every="1 step")
    trainer.train()
    assert [entry.step for entry in trainer.objective.history["fit"]] == [1, 2]
    assert trainer.metrics["fit.weight"] == 2.0
