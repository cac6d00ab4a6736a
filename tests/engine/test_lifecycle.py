"""Where a run stands: legal transitions, the words for it, its clock; and that each open period is torn down once."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle import Hook, RunError, UsageError
from treadle.engine.lifecycle import NEXT, Lifecycle, Stage
from treadle.testing import Line, line_data

LEGAL = {
    "new": {"running", "paused", "stopped", "finished", "failed", "closed"},
    "running": {"paused", "stopped", "finished", "failed", "closed"},
    "paused": {"running", "stopped", "finished", "failed", "closed"},
    "stopped": {"running", "paused", "finished", "failed", "closed"},
    "finished": {"running"},
    "failed": {"running"},
    "closed": {"running"},
}
WORDS = {"paused": "running", "closed": "stopped"}


@pytest.mark.parametrize("before", list(Stage))
@pytest.mark.parametrize("after", list(Stage))
def test_only_legal_transitions(before, after):
    lifecycle = Lifecycle()
    lifecycle.stage = before
    if after == before or after in LEGAL[before]:
        lifecycle.to(after, "because")
        assert lifecycle.stage is after
        if after != before:
            assert lifecycle.reason == "because" and lifecycle.ended == (after in ("finished", "failed", "closed"))
    else:
        with pytest.raises(UsageError, match=f"a run that is {before} cannot become {after}: rewind it, or make a new"):
            lifecycle.to(after)
        assert lifecycle.stage is before


def test_the_table_is_complete():
    assert {str(stage): {str(after) for after in NEXT[stage]} for stage in Stage} == LEGAL


@pytest.mark.parametrize("stage", list(Stage))
def test_status_words_are_those_of_summaries(stage):
    lifecycle = Lifecycle()
    lifecycle.stage = stage
    assert lifecycle.status == WORDS.get(stage, stage.value)
    assert lifecycle.status in ("new", "running", "stopped", "finished", "failed")


def test_closing_keeps_an_end_and_the_reason_of_a_stop():
    lifecycle = Lifecycle()
    lifecycle.to(Stage.FINISHED, "all done")
    lifecycle.close()
    assert (lifecycle.stage, lifecycle.reason) == (Stage.FINISHED, "all done")
    lifecycle = Lifecycle()
    lifecycle.to(Stage.STOPPED, "lunch")
    lifecycle.close()
    assert (lifecycle.stage, lifecycle.reason) == (Stage.CLOSED, "lunch")
    lifecycle = Lifecycle()
    lifecycle.close()
    assert (lifecycle.stage, lifecycle.reason) == (Stage.CLOSED, "closed")


def test_the_clock_runs_while_it_is_entered_however_often():
    lifecycle = Lifecycle()
    time.sleep(0.01)
    assert lifecycle.seconds == 0.0
    with lifecycle, lifecycle:
        time.sleep(0.02)
        inside = lifecycle.seconds
    after = lifecycle.seconds
    assert 0.02 <= inside <= after
    time.sleep(0.01)
    assert lifecycle.seconds == after
    lifecycle.seconds = 50.0
    with lifecycle:
        time.sleep(0.01)
    assert 50.01 <= lifecycle.seconds < 100


def test_being_occupied_ends_with_the_block_also_after_an_error():
    lifecycle = Lifecycle()
    with suppress(ValueError), lifecycle.occupied():
        with lifecycle.occupied():
            pass
        assert lifecycle.in_step
        raise ValueError
    assert not lifecycle.in_step


def test_what_is_under_way_has_a_name():
    lifecycle = Lifecycle()
    assert lifecycle.under_way == ""
    lifecycle.in_step = True
    assert lifecycle.under_way == "step"
    with lifecycle.occupied("validation"):
        with lifecycle.occupied():
            assert lifecycle.under_way == "validation"
        with lifecycle.occupied("checkpoint"):
            assert lifecycle.under_way == "checkpoint"
        assert lifecycle.under_way == "validation"
    assert lifecycle.under_way == "step"


def test_a_run_says_what_is_under_way_wherever_it_is(tmp_path):
    seen = {}

    class Looks(Line):
        def step(self, batch):
            seen["step"] = self.loop.lifecycle.under_way
            return super().step(batch)

        def validation_step(self, batch):
            seen["validation"] = self.loop.lifecycle.under_way
            return super().validation_step(batch)

        def on_save(self, state):
            seen["checkpoint"] = self.loop.lifecycle.under_way

        def on_load(self, state):
            seen["rewind"] = self.loop.lifecycle.under_way

    trainer = Looks(data=line_data(20), validation_data=line_data(4), batch_size=8, max_steps=3, run_dir=tmp_path / "r")
    trainer.train()
    trainer.commands.call(lambda: seen.update(call=trainer.loop.lifecycle.under_way))
    assert trainer.loop.lifecycle.under_way == ""
    trainer.rewind(3)
    assert seen == {name: name for name in ("step", "validation", "checkpoint", "rewind", "call")}
    assert trainer.loop.lifecycle.under_way == ""
    trainer.close()


# Of whole runs, however they are driven ----------------------------------------------------------------------------


class Counts(Hook):
    """How often a run was torn down."""

    def __init__(self):
        self.teardown_count = 0

    def teardown(self, trainer):
        self.teardown_count += 1
        assert trainer.ended


class Fragile(Line):
    """Fails at one step, once."""

    fails_at = -1

    def step(self, batch):
        if self.progress.step == type(self).fails_at:
            type(self).fails_at = -1
            raise ValueError("once")
        return super().step(batch)


ACTIONS = {
    "iterate": lambda t: t.iterate(),
    "iterate thrice": lambda t: [t.iterate() for _ in range(3)],
    "to the end": lambda t: [t.iterate() for _ in range(9)],
    "stop and train": lambda t: (t.commands.stop("for now"), t.train()),
    "pause": lambda t: t.commands.pause(),
    "continue": lambda t: t.commands.resume(),
    "stop": lambda t: t.stop("later"),
    "finish": lambda t: t.ended or t.finish("enough"),
    "validate": lambda t: t.commands.validate(),
    "call": lambda t: t.commands.call(lambda: 1),
    "until": lambda t: t.commands.run_until("step 4"),
    "rewind": lambda t: t.rewind(max(0, t.progress.step - 2)),
    "rewind by command": lambda t: t.commands.rewind(max(0, t.progress.step - 1)),
    "close": lambda t: t.close(),
    "fail": lambda t: setattr(type(t), "fails_at", t.progress.step),
}


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=14))
def test_however_it_is_driven_transitions_are_legal_and_teardown_fires_once_per_open_period(actions):
    counts = Counts()
    kind = type("Fragile", (Fragile,), {})
    trainer = kind(
        data=line_data(20),
        batch_size=8,
        max_epochs=2,
        seed=0,
        hooks=[counts],
        validation_data=line_data(4),
        snapshot_every="1 step",
        keep_snapshots=20,
    )
    trainer.loop.snapshots.take(trainer.loop.state.capture())
    stages = [trainer.loop.lifecycle.stage]
    go = trainer.loop.lifecycle.to

    def watched(stage, reason=""):
        before = trainer.loop.lifecycle.stage
        go(stage, reason)
        if stage is not before:
            assert str(stage) in LEGAL[before]
            stages.append(stage)

    trainer.loop.lifecycle.to = watched
    futures = []
    for action in actions:
        before = trainer.progress.step
        taken = None
        try:
            result = ACTIONS[action](trainer)
        except (ValueError, UsageError, RunError):
            pass
        else:
            futures += [result] if hasattr(result, "done") else []
            taken = result if action == "iterate" else None
        if taken is not None and not any(word.startswith("rewind") for word in actions):
            assert trainer.progress.step - before == int(taken), "iterate tells whether it took a step"
        stage = trainer.loop.lifecycle.stage
        assert trainer.status == WORDS.get(stage, stage.value) and trainer.paused == (stage == "paused")
        assert trainer.ended == (stage in ("finished", "failed", "closed"))
        assert trainer.progress.step <= 6 and not trainer.loop.lifecycle.in_step
        ends = sum(str(stage) in ("finished", "failed", "closed") for stage in stages)
        assert counts.teardown_count == ends
    trainer.close()
    trainer.close()
    assert all(future.done() for future in futures), "every command has its answer"
    ends = sum(str(stage) in ("finished", "failed", "closed") for stage in stages)
    reopened = sum(str(a) in ("finished", "failed", "closed") for a in stages[:-1])
    assert counts.teardown_count == ends == reopened + 1


def test_the_program_s_own_generators_are_back_whatever_happened():
    before = torch.get_rng_state()
    kind = type("Fragile", (Fragile,), {"fails_at": 2})
    trainer = kind(data=line_data(20), batch_size=8, max_epochs=2, seed=0, snapshot_every="1 step")
    with pytest.raises(ValueError, match="once"):
        trainer.train()
    trainer.rewind(1)
    trainer.train()
    assert torch.equal(torch.get_rng_state(), before) and trainer.status == "finished"
