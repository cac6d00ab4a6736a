"""Hooks that settings switch on while a run goes on: there, off, back with what they had seen, and always in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from treadle import Hook, Trainer, UsageError
from treadle.checkpoint.store import list_checkpoints
from treadle.config.settings import setting
from treadle.engine.commands import Change, Edit
from treadle.engine.schedule import Every
from treadle.engine.settings import TrainerConfig
from treadle.hooks.early_stopping import EarlyStopping
from treadle.hooks.examples import Examples
from treadle.runs.run import read_config, read_journal
from treadle.runs.verify import verify_run
from treadle.testing import Line, kill, line_data

SCORES = [9, 8, 7, 6, 5, 6, 4, 5, 5, 5, 5, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5]
"""By step: no improvement on 4 from step 7 to 10; a hook that begins after step 7 sees 5, and nothing better."""


class Scored(Line):
    """Validates after each step to what `SCORES` says, and can make pictures."""

    @dataclass(kw_only=True)
    class Config(TrainerConfig):
        examples_every: str | None = setting(None, parse=Every, resumable=True, affects_state=False, live="unless null")

    def setup(self) -> None:
        super().setup()
        self.add_hook_of("examples_every", lambda config: Examples.of(config.examples_every))

    def validation_step(self, batch: Any) -> Any:
        return {"loss": float(SCORES[self.progress.step])}

    def examples(self) -> dict[str, Any]:
        self.journal.append({"event": "picture", "step": self.progress.step})
        return {}


class Refuses(Hook):
    """Has what is switched on with it refused."""

    def on_settings(self, trainer: Trainer) -> None:
        if trainer.config.clip_value == 9.0:
            raise UsageError("not with this")


def scored(**settings: Any) -> Scored:
    usual = {"data": line_data(), "batch_size": 10, "max_steps": 20, "seed": 0, "validate_every": "1 step"}
    return Scored(**({"validation_data": line_data(10)} | usual | settings))


def at(trainer: Scored, step: int, *changes: tuple[str, Any]) -> Scored:
    """The trainer after so many steps, with settings changed."""
    while trainer.progress.step < step:
        assert trainer.iterate()
    if changes:
        trainer.commands.edit([Change("setting", *change) for change in changes])
    return trainer


def stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [hook for hook in trainer.hooks if isinstance(hook, EarlyStopping)]


def names(trainer: Trainer) -> list[str]:
    return [type(hook).__name__ for hook in trainer.hooks]


def test_it_is_proposed_from_null_checked_made_told_and_taken_back(tmp_path):
    trainer = at(scored(run_dir=tmp_path / "run"), 2)
    found = {each["target"]: each for each in trainer.editable() if each["what"] == "setting"}
    assert (found["patience"]["value"], found["patience"]["kind"], found["patience"]["low"]) == (None, "number", 1)
    assert (found["examples_every"]["value"], found["examples_every"]["kind"]) == (None, "text")
    (proposed,) = trainer.loop.edits.propose([Change("setting", "patience", 3)])
    assert (proposed["before"], proposed["after"]) == (None, 3) and not stopping(trainer)
    for wrong in (0, "three", 2.5):
        with pytest.raises(UsageError, match="patience is "):
            trainer.loop.edits.propose([Change("setting", "patience", wrong)])
    at(trainer, 2, ("patience", 3), ("examples_every", "2 steps"))
    at(trainer, 5)
    assert stopping(trainer)[0].policy.best == 5.0 and stopping(trainer)[0].policy.patience == 3
    assert [entry["step"] for entry in trainer.journal if entry["event"] == "picture"] == [4]
    assert read_config(trainer.run.path)["config"]["patience"] is None  # the plan
    trainer.commands.undo()
    at(trainer, 9)
    assert not stopping(trainer) and trainer.config.patience is None and trainer.loop.edits.in_force() == []
    told = [entry for entry in read_journal(trainer.run.path) if entry["event"] == "edit"]
    pairs = [[(each["target"], each["before"], each["after"]) for each in entry["changes"]] for entry in told]
    assert pairs == [
        [("patience", None, 3), ("examples_every", None, "2 steps")],
        [("patience", 3, None), ("examples_every", "2 steps", None)],
    ]
    trainer.close()


def test_it_stands_where_it_would_have_stood_from_the_start():
    own = EarlyStopping(90)
    expected = scored(hooks=[own], patience=50, examples_every="2 steps", max_time=1e6)
    trainer = scored(hooks=[own], max_time=1e6)
    trainer.add_hook(Refuses())
    at(trainer, 1, ("examples_every", "2 steps"))
    at(trainer, 2, ("patience", 50))
    at(trainer, 3)
    assert names(trainer) == [*names(expected), "Refuses"]
    assert names(expected) == ["EarlyStopping", "BestModel", "EarlyStopping", "TimeLimit", "Examples"]


def test_one_that_was_switched_off_and_on_begins_anew_one_that_stays_on_does_not():
    trainer = at(scored(patience=9), 5)
    (first,) = stopping(trainer)
    at(trainer, 5, ("patience", 8))
    at(trainer, 6, ("patience", None))
    at(trainer, 7)
    assert first.policy.patience == 8 and not stopping(trainer)
    at(trainer, 7, ("patience", 7))
    at(trainer, 8)
    (second,) = stopping(trainer)
    assert second is not first and (second.policy.best, second.policy.waited) == (5.0, 0)


def test_a_refused_edit_leaves_the_hook_with_what_it_had_seen():
    trainer = scored(patience=9, hooks=[Refuses()])
    at(trainer, 9)
    (hook,) = stopping(trainer)
    waited = hook.policy.waited
    refused = trainer.commands.edit([Change("setting", "patience", None), Change("setting", "clip_value", 9.0)])
    trainer.iterate()
    assert "not with this" in str(refused.exception(timeout=0)) and waited
    assert stopping(trainer) == [hook] and hook.policy.waited == waited + 1


def test_after_a_kill_it_is_there_again_with_what_it_had_seen_and_ends_the_run_at_the_same_step(tmp_path):
    expected = at(scored(run_dir=tmp_path / "expected"), 7, ("patience", 4))
    expected.train()
    assert expected.progress.step == 15 and expected.reason.startswith("early stopping")  # the 3 of step 11 was better
    trainer = at(scored(run_dir=tmp_path / "run", save_every="3 steps", keep_checkpoints=20), 7, ("patience", 4))
    for step in (10, 14, 14):
        at(trainer, step)
        kill(trainer)
        trainer = scored(run_dir=trainer.run.path, resume=True, save_every="3 steps", keep_checkpoints=20)
        assert trainer.progress.step == step - step % 3 and trainer.config.patience == 4
        assert stopping(trainer)[0].policy.waited == 1
    trainer.train()
    assert (trainer.digest(), trainer.reason) == (expected.digest(), expected.reason)
    for start in (0, 9, 12):
        assert verify_run(trainer.run.path, lambda where: scored(run_dir=where, save_every="3 steps"), start).holds


@pytest.mark.parametrize("memory", [True, False])
def test_a_rewind_takes_it_away_and_brings_it_back(tmp_path, memory):
    often = {"snapshot_every": "1 step", "keep_snapshots": 20} if memory else {"save_every": "1 step"}

    def make(name: str) -> Scored:
        return scored(**(often if memory else often | {"run_dir": tmp_path / name, "keep_checkpoints": 20}))

    expected, kept = make("expected"), at(make("kept"), 7, ("patience", 4))
    at(expected, 16), kept.train()
    trainer = at(make("run"), 7, ("patience", 4))
    at(trainer, 10, ("patience", None))
    at(trainer, 13)
    trainer.rewind(9)
    assert stopping(trainer)[0].policy.waited == 1 and trainer.config.patience == 4
    trainer.train()
    assert trainer.digest() == kept.digest() and trainer.progress.step == 15
    trainer.rewind(4)
    assert not stopping(trainer) and trainer.config.patience is None
    at(trainer, 16)
    assert trainer.digest() == expected.digest() and not trainer.ended
    trainer.close(), expected.close()


def test_switched_off_and_on_at_the_step_of_a_checkpoint_it_is_verified(tmp_path):
    def make(where):
        return scored(run_dir=where, save_every="3 steps", patience=9, keep_checkpoints=20)

    trainer = at(make(tmp_path / "run"), 9, ("patience", None))
    trainer.commands.change_setting("patience", 8)
    trainer.train()
    steps = [int(path.name[5:]) for path in list_checkpoints(trainer.run.path / "checkpoints")]
    assert 9 in steps and verify_run(trainer.run.path, make, 9).holds and verify_run(trainer.run.path, make, 0).holds


def test_pictures_change_nothing_of_the_run():
    expected = scored()
    expected.train()
    trainer = at(scored(), 3, ("examples_every", "2 steps"))
    at(trainer, 8, ("examples_every", None))
    trainer.train()
    assert [entry["step"] for entry in trainer.journal if entry["event"] == "picture"] == [4, 6, 8]
    assert trainer.digest() == expected.digest()


def test_where_there_is_nothing_for_it_to_do_it_is_refused():
    class Nowhere(Scored):
        def setup(self) -> None:
            Line.setup(self)
            self.add_hook_of("examples_every", lambda config: None)

    trainer = Nowhere(data=line_data(), max_steps=9)
    for changes, error in (
        ([("patience", 3)], "patience is 3, but nothing is validated: give validation_data, or no patience"),
        ([("examples_every", "1 step")], "examples_every is '1 step', and nothing here could heed it"),
    ):
        wrong = trainer.commands.put(Edit([Change("setting", *change) for change in changes]))
        trainer.iterate()
        assert str(wrong.exception(timeout=0)).startswith(error)
    with pytest.raises(UsageError, match=r"add_hook_of\('patience'\) after setup"):
        trainer.add_hook_of("patience", lambda config: None)
    assert scored(monitor=None).loop.switches.settings == {"patience", "examples_every"}
    with pytest.raises(UsageError, match="monitor is null: name the metric"):
        scored(monitor=None).loop.edits.propose([Change("setting", "patience", 3)])
