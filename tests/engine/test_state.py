"""The state of a run: its sections; what observers keep, apart from the digest; hooks whose state is optional."""

from __future__ import annotations

import pytest
import torch

from treadle import Hook, StateError, Trainer
from treadle.engine.state import RESTORED_FIRST
from treadle.hooks.early_stopping import EarlyStopping
from treadle.testing import capture, kill, restore


class Keeper(Hook):
    """Counts steps, and keeps the count in both ways there are."""

    def __init__(self):
        self.steps = 0
        self.gift = None

    def post_step(self, trainer, batch, outputs):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]

    def on_save(self, trainer, state):
        state[type(self).__name__] = [self.steps, float("inf")]

    def on_load(self, trainer, state):
        self.gift = state[type(self).__name__]


class Watcher(Keeper):
    observer = True


def test_all_sections_are_there_and_restored_in_an_order_that_fits(line):
    trainer = line()
    values = capture(trainer).values
    assert set(values) == {
        *("format", "progress", "began", "finish_reason", "validated_step", "random", "minimizer", "meter", "metrics"),
        *("validation_metrics", "recovery", "attributes", "hooks", "feeds", "user", "data"),
    }
    assert RESTORED_FIRST[0] == "data", "whether it is the right data is asked before anything changes"


def test_a_critical_hooks_state_is_in_the_digest_and_an_observers_is_not(line):
    plain, watched, kept = line(), line(hooks=[Watcher()]), line(hooks=[Keeper()])
    for trainer in (plain, watched, kept):
        trainer.train()
    assert watched.digest() == plain.digest() != kept.digest()
    assert capture(watched).clock["observers"] == {
        "hooks": {"Watcher.1": {"steps": 6}},
        "user": {"Watcher": [6, {"~float": "inf"}]},
    }
    assert "observers" not in capture(plain).clock, "a state without observers is as version 0.1.0 wrote it"


@pytest.mark.parametrize("kind", [Keeper, Watcher])
@pytest.mark.parametrize("way", ["rewind", "resume", "restore"])
def test_both_are_restored(line, tmp_path, kind, way):
    trainer = line(hooks=[kind(), kind()], run_dir=tmp_path / "run", save_every="1 step")
    for _ in range(3):
        trainer.iterate()
    state = capture(trainer).copy()
    trainer.iterate(), trainer.iterate()
    if way == "rewind":
        trainer.rewind(3)
    elif way == "restore":
        restore(trainer, state)
    else:
        kill(trainer)
        trainer = line(hooks=[kind(), kind()], run_dir=trainer.run.path, resume=True, save_every="1 step")
    expected = 5 if way == "resume" else 3
    assert [hook.steps for hook in trainer.hooks[:2]] == [expected] * 2
    assert trainer.hooks[0].gift == [expected, float("inf")]


def test_an_observer_may_be_new_or_gone_and_a_critical_hook_may_be_new(line, capsys):
    class Counter(Keeper):
        on_load = Hook.on_load

    plain, watched, kept = line(), line(hooks=[Watcher()]), line(hooks=[Counter()])
    restore(plain, capture(watched))
    restore(watched, capture(plain))
    capsys.readouterr()
    restore(kept, capture(plain))
    assert kept.hooks[0].steps == 0
    assert capsys.readouterr().err == "treadle: the run has had no hook Counter so far: its state begins here\n"


def test_a_critical_hook_that_is_gone_may_be_added_until_the_first_step(line, tmp_path):
    first = line(hooks=[Keeper()], run_dir=tmp_path / "run")
    first.iterate(), first.iterate(), first.save()
    kill(first)
    for finish in (lambda trainer: trainer.train(), lambda trainer: trainer.digest()):
        resumed = line(run_dir=first.run.path, resume=True)
        with pytest.raises(StateError, match=r"has hook 'Keeper\.1', the trainer has not: give it again, with hooks="):
            finish(resumed)
        kill(resumed)
    resumed = line(run_dir=first.run.path, resume=True)
    resumed.add_hook(Keeper())
    assert resumed.digest() == first.digest() and resumed.hooks[-1].steps == 2


def test_an_observer_that_is_an_attribute_is_as_one_that_was_given(line, line_class):
    class Own(line_class):
        def setup(self):
            super().setup()
            self.watcher = Watcher()

    class Failing(line_class):
        def setup(self):
            super().setup()
            self.watcher = Broken()

    class Broken(Watcher):
        def state_dict(self):
            raise SystemExit

    plain, own, failing = line(), line(Own), line(Failing)
    for trainer in (plain, own, failing):
        trainer.iterate(), trainer.iterate()
    assert own.digest() == plain.digest() == failing.digest()
    state = capture(own).copy()
    own.iterate()
    restore(own, state)
    assert own.watcher.steps == 2 and own.watcher.gift == [2, float("inf")]


def test_version_0_1_0_saved_such_an_observer_as_any_attribute(line, line_class):
    class Own(line_class):
        def setup(self):
            super().setup()
            self.watcher = Watcher()

    trainer = line(Own)
    state = capture(trainer).copy()
    state.values["attributes"]["watcher"] = {"steps": 4}
    restore(trainer, state)
    with pytest.raises(StateError, match="the checkpoint has attribute 'watcher'"):
        restore(line(), state)


def test_the_state_of_early_stopping_is_optional(line, line_data):
    with_it = line(validation_data=line_data, patience=3)
    without = line(validation_data=line_data)
    with_it.train()
    assert "EarlyStopping.1" in capture(with_it).values["hooks"]
    restore(without, capture(with_it))
    assert without.progress.step == 6
    again = line(validation_data=line_data, patience=3)
    restore(again, capture(with_it))
    stopping = next(hook for hook in again.hooks if isinstance(hook, EarlyStopping))
    assert stopping.policy.best is not None
    fresh = line(validation_data=line_data, patience=3)
    restore(fresh, capture(line(validation_data=line_data)))
    assert next(hook for hook in fresh.hooks if isinstance(hook, EarlyStopping)).policy.best is None


def test_what_on_load_is_given_is_the_observers_to_edit(line):
    class Greedy(Watcher):
        order = 0

        def on_load(self, trainer, state):
            state.clear()

    trainer = line(hooks=[Greedy(), Keeper()])
    trainer.iterate()
    restore(trainer, capture(trainer).copy())
    assert trainer.hooks[1].gift == [1, float("inf")]


def test_a_state_that_is_only_compared_asks_nobody(line):
    asked = []

    class Asked(Hook):
        def on_save(self, trainer, state):
            asked.append(1)

    trainer = line(hooks=[Asked()])
    trainer.loop.state.capture(ask=False)
    assert asked == []
    trainer.loop.state.capture()
    assert asked == [1]


def test_seconds_are_restored_and_no_part_of_the_digest(line):
    trainer = line()
    trainer.iterate()
    state = capture(trainer).copy()
    state.clock["seconds"] = 100.0
    assert state.digest == capture(trainer).digest
    restore(trainer, state)
    assert trainer.seconds == pytest.approx(100.0, abs=5)


def test_a_restored_state_may_be_restored_again(line):
    trainer = line()
    trainer.iterate(), trainer.iterate()
    state = capture(trainer).copy()
    digest = state.digest
    for _ in range(2):
        restore(trainer, state)
        assert trainer.digest() == digest
        trainer.iterate()
    assert torch.isfinite(trainer.model.weight).all()


class Rows(Trainer):
    """Points that come and go; the loss of the last step stays in scope, with its graph."""

    def setup(self) -> None:
        self.points = torch.nn.Embedding(6, 2)
        self.optimizer = torch.optim.Adam(self.points.parameters(), lr=0.1)

    def step(self, batch):
        loss = (self.points.weight**2).sum()
        self.minimize(loss)
        _held.append(loss)
        return {"loss": loss}


_held: list[torch.Tensor] = []


def test_rows_come_back_with_gradients_although_a_graph_of_the_fewer_is_in_scope() -> None:
    trainer = Rows(data=torch.zeros(4, 1), batch_size=1, max_epochs=3, seed=0)
    for _ in range(2):
        trainer.iterate()
    before = capture(trainer).copy()
    with trainer.edit_rows({"weight": trainer.points.weight}) as edit:
        edit.keep(torch.tensor([True, False, True, False, True, True]))
    trainer.iterate()
    restore(trainer, before)
    assert trainer.points.weight.shape == (6, 2)
    trainer.iterate()
    assert trainer.points.weight.grad is None or trainer.points.weight.grad.shape == (6, 2)
