"""The dispatcher by itself: who listens, what observers are given, what becomes of their failures."""

from __future__ import annotations

import random
from collections import OrderedDict, UserDict

import numpy as np
import pytest
import torch

from treadle import Hook, Order, UsageError
from treadle.engine import apart, dispatch
from treadle.engine.dispatch import FAILURES_ALLOWED, Dispatcher
from treadle.engine.events import Events, Record
from treadle.testing import Line, line_data


class Owner(Events):
    def __init__(self):
        self.heard = []

    def pre_epoch(self):
        self.heard.append("owner")


@pytest.fixture
def notes():
    return []


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
def dispatcher(owner, notes):
    return Dispatcher(owner, lambda event, **fields: notes.append((event, fields)), lambda: "here")


def listener(name="x", observer=False, order=Order.NORMAL, **events):
    return type(name, (Hook,), {"observer": observer, "order": order} | events)()


def test_it_works_without_a_trainer(dispatcher, owner):
    dispatcher.fire("pre_epoch")
    dispatcher.listen([])
    dispatcher.listen([listener(pre_epoch=lambda self, trainer: trainer.heard.append("hook"))])
    dispatcher.fire("pre_epoch")
    assert owner.heard == ["owner", "hook"]
    assert dispatcher.listens("pre_epoch") and not dispatcher.listens("post_epoch")


def test_a_replacement_stands_for_the_owners_method_until_it_is_taken_back(dispatcher, owner):
    dispatcher.replace("pre_epoch", lambda: owner.heard.append("other"))
    dispatcher.fire("pre_epoch")
    dispatcher.replace("pre_epoch", None)
    dispatcher.fire("pre_epoch")
    assert owner.heard == ["other", "owner"]


def test_who_joins_during_an_event_hears_the_next_one_and_nobody_hears_one_twice(dispatcher, owner):
    early = listener("Early", order=Order.FIRST, pre_epoch=lambda self, trainer: trainer.heard.append("early"))

    def join(self, trainer):
        trainer.heard.append("joiner")
        dispatcher.listen([early, joiner, last])

    joiner = listener("Joiner", pre_epoch=join)
    last = listener("Last", order=Order.LAST, pre_epoch=lambda self, trainer: trainer.heard.append("last"))
    dispatcher.listen([joiner, last])
    dispatcher.fire("pre_epoch")
    assert owner.heard == ["owner", "joiner", "last"]
    dispatcher.fire("pre_epoch")
    assert owner.heard[3:] == ["owner", "early", "joiner", "last"]


def test_something_else_than_a_hook_is_refused():
    with pytest.raises(UsageError, match="hooks holds a type: expected Hook objects"):
        Line(data=line_data(), max_epochs=1, hooks=[Hook])


@pytest.mark.parametrize(
    "given",
    [
        {"loss": 1.0},
        OrderedDict(loss=1.0),
        UserDict(loss=1.0),
        [1.0, 2.0],
        Record("scalars", "train", {"loss": 1.0}, 3, 1),
    ],
    ids=lambda given: type(given).__name__,
)
def test_an_observer_is_given_a_copy_of_its_own_and_a_critical_hook_the_thing_itself(dispatcher, given):
    def clear(self, trainer, thing):
        seen.append(thing)
        (thing.value if isinstance(thing, Record) else thing).clear()

    def contents(thing):
        value = thing.value if isinstance(thing, Record) else thing
        return list(value.items()) if hasattr(value, "items") else list(value)

    seen, before = [], contents(given)
    dispatcher.listen([listener(observer=True, on_journal=clear)])
    dispatcher.fire("on_journal", given)
    assert type(seen[0]) is type(given) and contents(seen[0]) == [] and contents(given) == before
    dispatcher.listen([listener(on_journal=clear)])
    dispatcher.fire("on_journal", given)
    assert seen[1] is given and contents(given) == []


@pytest.mark.parametrize("given", ["text", None, 3, 2.5, b"x", torch.optim.SGD([torch.zeros(2)], lr=1.0)])
def test_what_cannot_be_edited_or_has_to_be_the_thing_itself_is_not_copied(dispatcher, given):
    seen = []
    dispatcher.listen([listener(observer=True, pre_step=lambda self, trainer, batch: seen.append(batch))])
    dispatcher.fire("pre_step", given)
    assert seen[0] is given


def test_an_observer_without_use_for_batches_gets_none(dispatcher):
    seen = []
    hear = lambda self, trainer, *given: seen.append(given)  # noqa: E731
    hook = listener(observer=True, wants_batches=False, pre_step=hear, post_step=hear, post_validation=hear)
    dispatcher.listen([hook])
    dispatcher.fire("pre_step", torch.zeros(2))
    dispatcher.fire("post_step", torch.zeros(2), {"loss": 1.0})
    dispatcher.fire("post_validation", {"loss": 1.0})
    assert seen == [(None,), (None, None), ({"loss": 1.0},)]


def test_what_observers_draw_and_seed_changes_no_stream(dispatcher):
    def draw(self, trainer):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        drawn.append((random.random(), np.random.randn(), torch.rand(()).item()))
        raise RuntimeError("after drawing")

    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    drawn, before = [], state()
    dispatcher.listen([listener(observer=True, pre_epoch=draw)])
    dispatcher.fire("pre_epoch")
    assert len(drawn) == 1 and state() == before


def test_what_one_observer_draws_and_sets_is_nothing_to_the_next(dispatcher):
    def meddle(self, trainer):
        torch.manual_seed(1), torch.set_grad_enabled(False), np.seterr(all="raise")

    def look(self, trainer):
        seen.append((torch.rand(()).item(), torch.is_grad_enabled(), np.geterr()))

    seen = []
    for before in ([], [listener(observer=True, pre_epoch=meddle)]):
        dispatcher.listen([*before, listener(observer=True, pre_epoch=look)])
        torch.manual_seed(5)
        dispatcher.fire("pre_epoch")
    assert seen[0] == seen[1] and seen[0][1]


def test_one_that_hands_over_is_apart_from_the_run_and_not_from_the_next(dispatcher):
    def meddle(self, trainer):
        random.seed(1), torch.manual_seed(1), torch.set_grad_enabled(False)

    def look(self, trainer):
        seen.append(torch.is_grad_enabled())

    seen = []
    liar, after = listener(observer=True, pre_epoch=meddle), listener(observer=True, pre_epoch=look)
    type(liar).hands_over = True
    critical = listener(order=Order.LAST, pre_epoch=look)
    before = random.getstate(), torch.get_rng_state().tolist()
    for hooks in ([liar, after, critical], [liar, critical], [liar]):
        dispatcher.listen(hooks)
        dispatcher.fire("pre_epoch")
        assert (random.getstate(), torch.get_rng_state().tolist()) == before and torch.is_grad_enabled()
    assert seen == [False, True, True]


def test_those_that_hand_over_share_a_copy(dispatcher):
    seen = []
    hear = lambda self, trainer, record: seen.append(record)  # noqa: E731
    hooks = [listener(observer=True, on_log=hear) for _ in range(4)]
    for hook in (hooks[0], hooks[2], hooks[3]):
        type(hook).hands_over = True
    dispatcher.listen(hooks)
    record = Record("scalars", "train", {"loss": 1.0}, 1, 0)
    for _ in range(2):
        dispatcher.fire("on_log", record)
    first, other, second, third = seen[:4]
    assert seen == [record] * 8 and first is second is third
    assert len({id(each.value) for each in (record, first, other, seen[4], seen[5])}) == 5


def test_streams_are_lent_once_to_observers_that_follow_one_another(dispatcher, monkeypatch):
    lent, before = [], apart.scoped_generators
    monkeypatch.setattr(apart, "scoped_generators", lambda: lent.append(1) or before())
    calls = []
    hooks = [listener(observer=True, on_log=lambda self, trainer, record: calls.append(record)) for _ in range(5)]
    for hook in hooks[:2]:
        hook.hears = ("image",)
    dispatcher.listen(hooks)
    record = Record("scalars", "train", {"loss": 1.0}, 1, 0)
    dispatcher.fire("on_log", record)
    assert len(lent) == 1 and calls == [record] * 3
    assert len({id(each.value) for each in [record, *calls]}) == 4
    dispatcher.listen(hooks[:2])
    dispatcher.fire("on_log", record)
    assert len(lent) == 1  # nobody is called


def test_who_hears_of_an_observers_failure_draws_from_the_streams(owner):
    def fail(self, trainer):
        raise RuntimeError("x")

    drawn = []
    dispatcher = Dispatcher(owner, lambda *_, **__: drawn.append(random.random()), lambda: "here")
    dispatcher.listen([listener(observer=True, pre_epoch=fail), listener(observer=True, pre_epoch=lambda *_: None)])
    random.seed(5)
    dispatcher.fire("pre_epoch")
    random.seed(5)
    assert drawn == [random.random()]


def test_a_critical_hook_does_draw_from_the_streams(dispatcher):
    before = random.getstate()
    dispatcher.listen([listener(pre_epoch=lambda self, trainer: random.random())])
    dispatcher.fire("pre_epoch")
    assert random.getstate() != before


@pytest.mark.parametrize("error", [SystemExit(2), GeneratorExit(), RuntimeError("x"), RecursionError()])
def test_an_observers_failure_is_noted_and_contained(dispatcher, notes, error, capsys):
    def fail(self, trainer):
        raise error

    dispatcher.listen([listener("Viewer", observer=True, pre_epoch=fail)])
    dispatcher.fire("pre_epoch")
    ((event, fields),) = notes
    assert (event, fields["observer"], fields["event_name"]) == ("observer failed", "Viewer", "pre_epoch")
    assert type(error).__name__ in fields["error"]
    assert "Viewer.pre_epoch failed" in capsys.readouterr().err


def test_after_a_failure_it_is_left_alone_for_a_while_and_at_last_switched_off(dispatcher, notes, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(dispatch, "perf_counter", lambda: clock[0])
    called = []

    def fail(self, trainer):
        called.append(clock[0])
        raise RuntimeError

    dispatcher.listen([listener(observer=True, pre_epoch=fail)])
    for _ in range(200):
        dispatcher.fire("pre_epoch")
        clock[0] += 0.5
    assert called == [0.0, 1.0, 3.0, 7.0, 15.0]
    assert len(notes) == FAILURES_ALLOWED == 5
    assert [handler.off for handler in dispatcher.handlers] == [True]


def test_teardown_is_told_also_to_one_that_is_switched_off(dispatcher):
    told = []

    def fail(self, trainer):
        raise RuntimeError

    hook = listener(observer=True, pre_epoch=fail, teardown=lambda self, trainer: told.append(1))
    dispatcher.listen([hook])
    for handler in dispatcher.handlers:
        handler.failures = FAILURES_ALLOWED
    dispatcher.fire("teardown")
    assert told == [1]


def test_contained_actions_count_as_failures_and_end_with_them(dispatcher, notes):
    hook = listener(observer=True)
    dispatcher.listen([hook])
    tried = []

    def fail():
        tried.append(1)
        raise SystemExit

    assert dispatcher.contain(hook, "state_dict", lambda: 7) == 7
    assert [dispatcher.contain(hook, "state_dict", fail) for _ in range(9)] == [None] * 9
    assert len(tried) == len(notes) == FAILURES_ALLOWED
    assert dispatcher.contain(hook, "state_dict", lambda: 7) is None, "it is switched off"


def test_hooks_that_stay_keep_their_failures(dispatcher):
    hook = listener(observer=True)
    dispatcher.listen([hook])
    dispatcher.contain(hook, "state_dict", lambda: 1 / 0)
    dispatcher.listen([listener(), hook])
    assert [handler.failures for handler in dispatcher.handlers] == [0, 1]


def test_a_critical_error_says_where(dispatcher):
    def fail(self, trainer):
        raise OSError("full")

    dispatcher.listen([listener("Writer", pre_epoch=fail)])
    with pytest.raises(OSError, match="full") as caught:
        dispatcher.fire("pre_epoch")
    assert caught.value.__notes__ == ["in pre_epoch of Writer, here"]


def test_on_save_keeps_what_observers_give_apart(dispatcher, notes):
    def give(value):
        return lambda self, trainer, state: state.update(gift=value)

    hooks = [
        listener("Critical", on_save=give(torch.ones(2))),
        listener("Fine", observer=True, on_save=give((1, float("nan")))),
    ]
    dispatcher.listen(hooks)
    critical, observed = dispatcher.gather_for_save()
    assert torch.equal(critical["gift"], torch.ones(2)) and "gift" in observed and not notes
    dispatcher.listen([hooks[0], listener("Poor", observer=True, on_save=give(object()))])
    critical, observed = dispatcher.gather_for_save()
    assert set(critical) == {"gift"} and observed == {}
    assert notes[0][1]["event_name"] == "on_save" and notes[0][1]["observer"] == "Poor"
