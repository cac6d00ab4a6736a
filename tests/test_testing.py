"""What tests of trainers are given: a kill that leaves what kills leave, and a check of resuming that finds faults."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle import Hook, RunError, UsageError
from treadle.checkpoint import writer
from treadle.checkpoint.store import list_checkpoints, write_checkpoint
from treadle.runs.metrics import read_metrics
from treadle.runs.run import read_journal, read_summary
from treadle.testing import Line, capture, check_resume, kill, line_data, restore


def line(kind: type[Line] = Line, **settings: Any) -> Line:
    """A `Line` of 6 steps, the last of each epoch shorter than the others."""
    return kind(**({"data": line_data(), "batch_size": 20, "max_epochs": 2, "seed": 0} | settings))


def content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


# The line ------------------------------------------------------------------------------------------------------------


def test_the_line_is_found() -> None:
    trainer = Line(data=line_data(), validation_data=line_data(20), max_epochs=100, seed=0)
    summary = trainer.train()
    assert summary.status == "finished" and summary.validation_metrics["loss"] < 0.01
    assert abs(trainer.model.weight.item() - 3) < 0.2 and abs(trainer.model.bias.item() - 1) < 0.2


def test_its_points_are_on_it() -> None:
    x, y = line_data(7)
    assert x.shape == y.shape == (7, 1) and x.dtype == y.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1) and torch.equal(y, 3 * x + 1)


# State ---------------------------------------------------------------------------------------------------------------


def test_a_state_is_the_trainers_own_until_it_is_copied_and_can_be_gone_back_to() -> None:
    trainer = line()
    trainer.iterate()
    own, kept = capture(trainer), capture(trainer).copy()
    digest = kept.digest
    assert digest == trainer.digest() and kept.values["progress"]["step"] == 1
    trainer.iterate()
    assert torch.equal(own.tensors["model/state/weight"], trainer.model.weight)
    assert not torch.equal(kept.tensors["model/state/weight"], trainer.model.weight)
    restore(trainer, kept)
    assert trainer.digest() == digest and trainer.progress.step == 1
    other = line()
    restore(other, kept)
    assert other.digest() == digest
    while other.iterate():
        pass
    whole = line()
    whole.train()
    assert other.digest() == whole.digest()


# A kill --------------------------------------------------------------------------------------------------------------


class Events(Hook):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def teardown(self, trainer: Any) -> None:
        self.seen.append("teardown")

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self.seen.append("on_exception")


def test_a_kill_fires_nothing_writes_nothing_and_leaves_the_run_to_the_next(tmp_path: Path) -> None:
    events = Events()
    trainer = line(run_dir=tmp_path / "line", save_every="2 steps", log_every="1 step", hooks=[events])
    for _ in range(3):
        trainer.iterate()
    trainer.loop.archive.finish()
    path = trainer.run.path
    before = content(path)
    kill(trainer)
    kill(trainer)
    trainer.close()
    assert events.seen == [] and trainer.ended and not trainer.iterate()
    assert content(path) == before and "summary.json" not in before
    with line(run_dir=path, resume=True, save_every="2 steps", log_every="1 step") as resumed:
        assert resumed.progress.step == 2
        assert [entry["step"] for entry in read_metrics(path) if entry["split"] == "train"] == [1, 2]


def test_after_a_kill_its_files_are_closed(tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", log_every="1 step")
    trainer.iterate()
    opened = {Path(link).name for link in links(trainer.run.path)}
    kill(trainer)
    assert "metrics.jsonl" in opened and not links(trainer.run.path)


def links(run: Path) -> list[str]:
    """The files of a run that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(str(run)):
            found.append(target)
    return found


def test_a_checkpoint_that_is_under_way_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, opened = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert opened.wait(60)
        return write_checkpoint(*arguments)

    monkeypatch.setattr(writer, "write_checkpoint", slow)
    trainer = line(run_dir=tmp_path / "line", save_every="1 step")
    trainer.iterate()
    assert entered.wait(60)
    threading.Timer(0.2, opened.set).start()  # a kill that does not wait would be over by then
    kill(trainer)
    assert [path.name for path in list_checkpoints(trainer.run.path / "checkpoints")] == ["step-00000001"]


def test_no_kill_in_the_middle_of_a_step(tmp_path: Path) -> None:
    class Kills(Line):
        def post_step(self, batch: Any, outputs: Any) -> None:
            kill(self)

    trainer = line(Kills, run_dir=tmp_path / "line")
    with pytest.raises(UsageError, match="inside a step or a hook"):
        trainer.iterate()
    assert read_summary(trainer.run.path)["status"] == "failed"


# Resuming ------------------------------------------------------------------------------------------------------------


def test_a_trainer_that_resumes_passes_and_was_really_resumed(tmp_path: Path) -> None:
    built: list[tuple[str, bool]] = []

    def build(run_dir: Path, resume: bool) -> Line:
        built.append((run_dir.parent.name, resume))
        return line(run_dir=run_dir, resume=resume)

    check_resume(build, tmp_path, stops=[0, 1, 5])
    assert built[0] == ("whole", False)
    assert built[1:] == [(f"stopped-{stop}", resume) for stop in (0, 1, 5) for resume in (False, True)]
    for stop in (0, 1, 5):
        entries = read_journal(tmp_path / f"stopped-{stop}" / "v001")
        assert [entry["step"] for entry in entries if entry["event"] == "resume"] == [stop]


class Forgets(Line):
    """Counts its steps where no checkpoint looks, and lets them count."""

    transient = ("calls",)

    def setup(self) -> None:
        super().setup()
        self.calls = [0]

    def loss(self, batch: Any) -> torch.Tensor:
        self.calls[0] += 1
        return super().loss(batch) * (2 if self.calls[0] > 4 else 1)


def test_hidden_state_is_found_and_the_first_entry_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"^killed after step 3 and resumed it ends elsewhere: \S+: "):
        check_resume(lambda **where: line(Forgets, **where), str(tmp_path), stops=[3])


def test_a_trainer_that_is_built_otherwise_each_time_is_found(tmp_path: Path) -> None:
    epochs = iter([2, 1])

    def build(**where: Any) -> Line:
        return line(max_epochs=next(epochs), **where)

    with pytest.raises(AssertionError, match="built once more it ends after step 3, not 6"):
        check_resume(build, tmp_path, stops=[5])


def never(**where: Any) -> Line:
    trainer = line(**where)
    trainer.stop("enough")
    return trainer


@pytest.mark.parametrize(
    ("build", "stops", "message"),
    [
        (line, [], "no stops"),
        (line, [6], r"cannot stop after step 6: the run takes 6"),
        (line, [-1], r"cannot stop after step -1"),
        (never, [1], r"is stopped \(enough\), not finished"),
    ],
)
def test_a_check_that_would_check_nothing_is_refused(
    build: Callable[..., Line], stops: list[int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        check_resume(build, tmp_path, stops=stops)


def test_an_error_in_the_middle_comes_through_and_the_run_is_let_go(tmp_path: Path) -> None:
    class Fails(Line):
        def loss(self, batch: Any) -> torch.Tensor:
            if self.progress.step == 2:
                raise RunError("no light")
            return super().loss(batch)

    with pytest.raises(RunError, match="no light"):
        check_resume(lambda **where: line(Fails, **where), tmp_path)
    assert not links(tmp_path)
