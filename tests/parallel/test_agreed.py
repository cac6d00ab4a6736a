"""Commands to a run of several processes: whichever of them is asked, all obey after the same step."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.parallel.test_disk import SETTINGS, journal
from tests.parallel.test_group import Dropping, Net, some_data
from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.engine import hearing
from treadle.parallel import this_world
from treadle.testing import capture

WAIT = 90
"""Seconds that an answer may take."""


class Driver(threading.Thread):
    """Somebody who asks one of the processes for one thing after the other, and keeps the answers."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(daemon=True)
        self.trainer, self.said, self.error = trainer, {}, ""  # type: ignore[var-annotated]

    def run(self) -> None:
        try:
            self.ask()
        except BaseException as error:
            self.error = f"{type(error).__name__}: {error}"
            self.trainer.commands.stop()

    def ask(self) -> None:
        commands, said = self.trainer.commands, self.said
        said["advance"] = commands.advance(4).result(WAIT)
        commands.save().result(WAIT)
        said["validate"] = commands.validate().result(WAIT)
        said["note"] = commands.note(4, "here").result(WAIT)
        said["rate"] = commands.lr_multiplier(0.5).result(WAIT)
        said["edit"] = [commands.freeze("model.0").result(WAIT), commands.loss_weight("mse", 2.0).result(WAIT)]
        said["undo"] = commands.undo().result(WAIT)
        said["call"] = commands.call(lambda: (self.trainer.progress.step, self.trainer.model.training)).result(WAIT)
        with pytest.raises(UsageError, match=f"a call between two steps is in process {this_world().rank} alone, of 2"):
            commands.call(lambda: capture(self.trainer)).result(WAIT)
        with pytest.raises(UsageError, match="Call is obeyed by a run of one process"):
            commands.call(print, edits="all")
        with pytest.raises(UsageError, match="cannot rewind to step 40"):
            commands.rewind(40).result(WAIT)
        said["break"] = commands.breakpoint("mse > 0", "mark").result(WAIT)
        said["until"] = commands.run_until("event breakpoint").result(WAIT)
        commands.remove_breakpoint(said["break"]).result(WAIT)
        said["to 8"] = commands.run_until("step 8").result(WAIT)
        commands.rewind(4).result(WAIT)
        said["back"] = self.trainer.progress.step
        said["limit"] = commands.set_limit("max_steps", 10).result(WAIT)
        commands.resume().result(WAIT)


def drive(path: str, rank: int) -> dict[str, Any]:
    hearing.BEAT = 0.05  # not a second, at each of the twenty questions that come in a pause
    data = some_data(54)
    trainer = Dropping(data=data, validation_data=data, run_dir=path, **SETTINGS)
    driver = Driver(trainer)
    trainer.commands.note(0, "by all of them")
    if this_world().rank == rank:
        trainer.commands.pause()
        driver.start()
    summary = trainer.train()
    if this_world().rank == rank:
        driver.join(WAIT)
    done = [summary.status, summary.step, trainer.digest(), trainer.overview().learning_rates]
    return {"done": done, "said": driver.said, "error": driver.error}


@pytest.mark.parametrize("rank", [0, 1])
def test_whichever_process_is_asked_all_obey_after_the_same_step(tmp_path: Path, rank: int) -> None:
    found = together(2, tmp_path, drive, str(tmp_path / "run"), rank)
    assert [one["error"] for one in found] == ["", ""]
    assert found[0]["done"] == found[1]["done"]
    assert found[0]["done"][:2] == ["finished", 10]
    assert found[1 - rank]["said"] == {}
    said = found[rank]["said"]
    assert said["advance"] == {"reached": True, "step": 4} and said["to 8"] == {"reached": True, "step": 8}
    assert said["until"] == {"reached": True, "step": 5}
    assert said["note"] is True and said["call"] == (4, False) and said["back"] == 4 and said["break"] == 1
    assert [said["rate"][0][key] for key in ("target", "before", "after")] == ["optimizer", 1.0, 0.5]
    assert [said["limit"][0][key] for key in ("target", "before", "after")] == ["max_steps", 14, 10]
    events = [(entry["event"], entry["step"]) for entry in journal(tmp_path / "run" / "v001")]
    for one in [("note", 0), ("note", 4), ("pause", 0), ("validate", 4), ("breakpoint set", 4), ("rewind", 4)]:
        assert events.count(one) == 1, one
    assert events.count(("edit", 4)) == 5
    assert json.loads((tmp_path / "run" / "v001" / "summary.json").read_text())["digest"] == found[0]["done"][2]


def ask_late(rank: int) -> Any:
    trainer = Dropping(data=some_data(54), **{key: SETTINGS[key] for key in ("batch_size", "max_steps", "seed")})
    answers: list[Any] = []

    def ask(batch: Any, outputs: Any) -> None:
        if trainer.progress.step == 14 and this_world().rank == rank:
            answers.append(trainer.commands.extend(max_steps=16))

    trainer.post_step = ask  # type: ignore[method-assign]
    summary = trainer.train()
    after = trainer.commands.rewind(3), trainer.commands.pause()
    told = [summary.step, [each.done() for each in answers], *(str(each.exception(WAIT)) for each in after)]
    trainer.extend(max_steps=18)  # in all of them
    return [*told, trainer.train().step]


def test_what_is_asked_at_the_very_end_is_heard_and_what_comes_later_is_refused(tmp_path: Path) -> None:
    found = together(2, tmp_path, ask_late, 1)
    assert [one[0] for one in found] == [16, 16]
    assert [one[1] for one in found] == [[], [True]]
    refused = "the run has ended (finished): no command is obeyed any more"
    remedy = ", for its 2 processes wait for one another no longer: call rewind() or extend() in all of them, or start"
    assert all(one[2].startswith(refused + remedy) and one[3] == refused for one in found)
    assert all(one[4:] == [18] for one in found)


class ByHand(Net):
    """Never calls `minimize`: it looks at its data, say, or has an update of its own."""

    def step(self, batch: Any) -> dict[str, Any]:
        return {"loss": nn.functional.mse_loss(self.model(batch[0]), batch[1])}


class Seldom(ByHand):
    """Trains in every 50th step."""

    def step(self, batch: Any) -> dict[str, Any]:
        return ByHand.step(self, batch) if self.progress.step % 50 else Net.step(self, batch)


def ask_by_hand(kind: type[Net], path: str, accumulate: int) -> list[Any]:
    trainer = kind(data=some_data(54), run_dir=path, batch_size=12, max_steps=120, accumulate=accumulate)
    answers = []
    if this_world().rank == 1:
        answers.append(trainer.commands.note(0, "before the first"))
    while trainer.iterate():
        if this_world().rank == 1 and trainer.progress.step == 3:
            answers.append(trainer.commands.save())
        if this_world().rank == 1 and trainer.progress.step == 60:
            trainer.stop("enough")
    return [trainer.status, trainer.progress.step, [answer.result(WAIT) for answer in answers]]


@pytest.mark.parametrize(("kind", "accumulate"), [(ByHand, 1), (ByHand, 4), (Seldom, 1)])
def test_steps_without_minimize_hear_commands_too(tmp_path: Path, kind: Any, accumulate: int) -> None:
    found = together(2, tmp_path, ask_by_hand, kind, str(tmp_path / "run"), accumulate)
    assert found[0][:2] == found[1][:2] and found[0][0] == "stopped"
    assert 60 <= found[0][1] < 60 + accumulate
    assert [one[2] for one in found] == [[], [False, None]]  # there is no checkpoint of step 0
    saved = [entry["step"] for entry in journal(tmp_path / "run" / "v001") if entry["event"] == "checkpoint"]
    assert saved[0] in range(3, 4 + accumulate)
