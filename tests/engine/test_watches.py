"""Waiting for something to be so: values in a row, what is no better, new bests; breakpoints that stay."""

from __future__ import annotations

import pytest

from treadle import Hook, UsageError
from treadle.engine.commands import Break
from treadle.engine.lifecycle import Lifecycle, Stage
from treadle.engine.progress import Progress
from treadle.engine.until import Until
from treadle.engine.watches import MOST_BREAKPOINTS, Newest, Watch, Watches


def looks(text, values, *, of="outputs", larger=False):
    """At which looks (from 1) a watch for `text` is reached, whose metric "x" has these values, each one new."""
    watch = Watch(Until.parse(text), Progress(), larger=lambda name: larger)
    return [
        number
        for number, value in enumerate(values, 1)
        if watch.reached(Progress(step=number), Newest(**{of: {"x": value}}))
    ]


def test_a_rule_may_have_to_hold_several_times_in_a_row():
    values = [1, 5, 5, 1, 5, 5, 5, 5]
    assert looks("x > 3 for 3", values) == [7, 8]
    assert looks("x > 3 for 2", values) == [3, 6, 7, 8]
    assert looks("validation/x > 3 for 2", values, of="validation_metrics") == [3, 6, 7, 8]
    assert looks("x > 3 for 2", [5, float("nan"), 5, 5]) == [4]


def test_steps_between_two_validations_do_not_count():
    watch = Watch(Until.parse("validation/x > 3 for 2"), Progress())
    first, second = {"x": 5.0}, {"x": 5.0}
    for step, metrics, reached in [(1, first, False), (2, first, False), (3, second, True), (4, second, True)]:
        assert watch.reached(Progress(step=step), Newest(validation_metrics=metrics)) is reached
    logged = Watch(Until.parse("x > 3 for 2"), Progress())
    assert [logged.reached(Progress(step=n), Newest(metrics=m)) for n, m in enumerate([first, first, second])] == [
        *(False, False, True)
    ]


def test_a_value_that_is_no_better_for_so_long():
    assert looks("x no better for 2", [3, 2, 2, 2, 1, 1, 1]) == [4, 7]
    assert looks("x no better for 2", [3, 4, 3, 2, 2, 1], larger=False) == [3]
    assert looks("x no better for 2", [3, 4, 5, 5, 4], larger=True) == [5]
    assert looks("x no better for 1", [float("nan"), 3, float("nan")]) == [3]
    assert looks("x no better for 1", [float("nan"), 3, 2, 1]) == []


def test_what_is_better_follows_the_metric(line):
    trainer = line()
    seen = {}
    for name in ("loss", "psnr", "hard/psnr"):
        answer = trainer.commands.breakpoint(f"validation/{name} no better for 1", "mark")
        trainer.iterate()
        seen[name] = answer.result(timeout=0)
    for values in ({"loss": 1.0, "psnr": 1.0, "hard/psnr": 1.0}, {"loss": 2.0, "psnr": 2.0, "hard/psnr": 2.0}):
        trainer.loop.validation_metrics = values
        trainer.iterate()
    hits = {each["until"]: each["hits"] for each in trainer.loop.watches.breakpoints}
    assert list(hits.values()) == [1, 0, 0]


def test_a_new_best_is_told_once_and_again_after_going_back():
    watch = Watch(Until.parse("best"), Progress(step=4), {"step": 3})
    for step, best, reached in [
        *((5, 3, False), (6, 6, True), (7, 6, False), (8, 7, True), (9, 7, False)),
        *((2, 1, False), (6, 1, False), (7, 7, True)),
    ]:
        assert watch.reached(Progress(step=step), Newest(best={"step": best})) is reached, step
    assert not Watch(Until.parse("best"), Progress()).reached(Progress(step=1), Newest())


def watches(progress):
    noted = []
    lifecycle = Lifecycle()
    lifecycle.to(Stage.RUNNING)
    made = Watches(progress, lifecycle, lambda event, **fields: noted.append((event, fields)), lambda name: False)
    return made, lifecycle, noted


def test_a_breakpoint_is_hit_when_it_becomes_so_and_again_after_it_was_not():
    progress = Progress()
    made, lifecycle, noted = watches(progress)
    assert not made.any
    number = made.add(Until.parse("x < 1"), "mark", None)
    assert made.any
    for value in (2, 0, 0, 2, 0):
        progress.step += 1
        made.look(Newest({"x": value}), may_pause=True)
    assert [fields for _, fields in noted] == [{"number": number, "until": "x < 1", "act": "mark"}] * 2
    assert lifecycle.stage is Stage.RUNNING
    assert made.breakpoints == [{"number": 1, "until": "x < 1", "act": "mark", "hits": 2}]
    assert made.remove(number) == Until.parse("x < 1") and not made.any
    with pytest.raises(UsageError, match="there is no breakpoint 1: there are none"):
        made.remove(number)


def test_a_step_that_has_passed_is_a_breakpoint_only_after_going_back():
    progress = Progress(step=5)
    made, lifecycle, noted = watches(progress)
    made.add(Until.parse("step 3"), "pause", None)
    for step in (6, 7, 2, 3, 4):
        progress.step = step
        made.look(Newest(), may_pause=True)
        lifecycle.to(Stage.RUNNING)
    assert len(noted) == 1


def test_each_epoch_and_each_event_is_a_hit():
    progress = Progress()
    made, _, noted = watches(progress)
    made.add(Until.parse("epoch"), "mark", None)
    made.add(Until.parse("event prune"), "mark", None)
    for epoch, event in [(0, ""), (1, ""), (1, "prune"), (2, "prune"), (2, "")]:
        progress.epoch = epoch
        made.journal(event)
        made.look(Newest(), may_pause=True)
    assert [fields["until"] for _, fields in noted] == ["epoch", "event prune", "epoch", "event prune"]


def test_there_are_so_many_at_most():
    made, *_ = watches(Progress())
    for _ in range(MOST_BREAKPOINTS):
        made.add(Until.parse("nan"), "mark", None)
    with pytest.raises(UsageError, match=f"there are {MOST_BREAKPOINTS} breakpoints already"):
        made.add(Until.parse("nan"), "mark", None)


# Of whole runs -----------------------------------------------------------------------------------------------------


def test_breakpoints_of_a_run_stay_mark_and_pause_and_are_no_part_of_its_state(line, line_data):
    expected = line(max_epochs=4, validation_data=line_data)
    expected.train()
    trainer = line(max_epochs=4, validation_data=line_data)
    commands = trainer.commands
    pause, mark, gone = commands.breakpoint("epoch"), commands.breakpoint("best", "mark"), commands.breakpoint("step 1")
    assert not gone.done()
    unknown = commands.remove_breakpoint(9)
    commands.remove_breakpoint(3)
    stops = []
    while not trainer.ended:
        while trainer.iterate():
            pass
        stops.append((trainer.progress.step, trainer.reason))
        commands.resume()
    assert (pause.result(timeout=0), mark.result(timeout=0), gone.result(timeout=0)) == (1, 2, 3)
    assert "there is no breakpoint 9: there are 1, 2, 3" in str(unknown.exception(timeout=0))
    assert stops == [*((step, "breakpoint 1: epoch") for step in (3, 6, 9)), (12, "")]
    hits = [(e["number"], e["until"], e["act"], e["step"]) for e in trainer.journal if e["event"] == "breakpoint"]
    assert [hit for hit in hits if hit[0] == 1] == [(1, "epoch", "pause", step) for step in (3, 6, 9, 12)]
    improved = [step for number, _, _, step in hits if number == 2]
    assert improved and improved[-1] == trainer.best["step"]
    assert [e["until"] for e in trainer.journal if e["event"] == "breakpoint set"] == ["epoch", "best", "step 1"]
    assert [e["until"] for e in trainer.journal if e["event"] == "breakpoint removed"] == ["step 1"]
    assert trainer.digest() == expected.digest()


def test_a_goal_and_breakpoints_are_waited_for_together(line):
    trainer = line(max_epochs=4)
    trainer.commands.breakpoint("step 2", "mark"), trainer.commands.breakpoint("step 3")
    goal = trainer.commands.run_until("step 5")
    while trainer.iterate():
        pass
    assert trainer.progress.step == 3 and not goal.done()
    trainer.commands.resume()
    while trainer.iterate():
        pass
    assert trainer.progress.step == 5 and goal.result(timeout=0) == {"reached": True, "step": 5}


def test_a_breakpoint_on_what_goes_wrong(line, line_class):
    class Bad(line_class):
        def step(self, batch):
            if self.progress.step in (2, 4):
                batch = batch[0], batch[1] * float("inf")
            return super().step(batch)

    trainer = line(Bad, on_bad_step="skip", max_epochs=3)
    trainer.commands.breakpoint("nan", "mark")
    trainer.train()
    assert [e["step"] for e in trainer.journal if e["event"] == "breakpoint"] == [3, 5]


def test_an_event_of_the_journal_by_name(line):
    class Prunes(Hook):
        def post_step(self, trainer, batch, outputs):
            if trainer.progress.step in (2, 4):
                trainer.note("prune", cells=3)

    trainer = line(hooks=[Prunes()], max_epochs=3)
    trainer.commands.breakpoint("event prune")
    stops = []
    while not trainer.ended:
        while trainer.iterate():
            pass
        stops.append(trainer.progress.step)
        trainer.commands.resume()
    assert stops == [2, 4, 9]


def test_what_a_breakpoint_does_is_one_of_two_things(line):
    with pytest.raises(UsageError, match="act is 'stop', expected 'pause' or 'mark'"):
        Break(Until("nan"), "stop")


@pytest.mark.parametrize(
    ("count", "unit", "ends"), [(1, "steps", [1, 2, 3]), (4, "steps", [4, 8, 9]), (1, "epochs", [3, 6, 9])]
)
def test_advancing_takes_so_many_steps_or_epochs_and_pauses(line, count, unit, ends):
    expected, trainer = line(max_epochs=3), line(max_epochs=3)
    expected.train()
    trainer.commands.pause()
    found = []
    for _ in ends:
        answer = trainer.commands.advance(count, unit)
        assert not answer.done()
        while trainer.iterate():
            pass
        assert answer.result(timeout=0)["step"] == trainer.progress.step
        found.append(trainer.progress.step)
    assert found == ends
    trainer.commands.resume()
    trainer.train()
    assert trainer.digest() == expected.digest()


def test_steps_that_are_asked_for_before_others_were_taken_add_up(line):
    trainer = line(max_epochs=3)
    trainer.commands.pause()
    answers = [trainer.commands.advance(count) for count in (1, 1, 2)]
    while trainer.iterate():
        pass
    assert trainer.progress.step == 4 and all(answer.done() for answer in answers)
    trainer.commands.run_until("step 8")
    trainer.commands.advance(1)  # another goal is not added to
    while trainer.iterate():
        pass
    assert trainer.progress.step == 5


@pytest.mark.parametrize(("count", "unit"), [(0, "steps"), (True, "steps"), (1.5, "steps"), (1, "hours")])
def test_what_to_advance_by_is_checked_in_the_callers_thread(line, count, unit):
    with pytest.raises(UsageError, match="advance: the"):
        line().commands.advance(count, unit)


def test_nothing_is_looked_at_while_nothing_is_waited_for(line, monkeypatch):
    looked = []
    trainer = line(max_epochs=3)
    look = trainer.loop.watches.look
    monkeypatch.setattr(
        trainer.loop.watches, "look", lambda *a, **b: (looked.append(trainer.progress.step), look(*a, **b))
    )
    trainer.iterate()
    trainer.commands.breakpoint("step 3", "mark")
    trainer.iterate(), trainer.iterate()
    trainer.commands.remove_breakpoint(1)
    trainer.train()
    assert looked == [2, 3]
