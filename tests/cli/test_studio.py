"""`treadle studio`: runs that nobody trains are looked at, and go on only when the page asks for it."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from treadle import RunError, UsageError
from treadle.checkpoint.store import read_checkpoint
from treadle.cli.main import main
from treadle.cli.script import add_trainer  # noqa: F401  (imported once, before threads are)
from treadle.recipes.scripts import load_trainer
from treadle.runs.lock import RunLock
from treadle.runs.run import read_journal
from treadle.studio.client import StudioClient
from treadle.studio.protocol import (
    Apply,
    Change,
    Curves,
    Extend,
    Frame,
    Look,
    Open,
    Play,
    Propose,
    Rewind,
    Runs,
    Save,
    State,
    States,
    Stop,
    Watch,
)

PROGRAM = """
import numpy as np
from treadle import testing
from treadle.reports.views import LiveView

class Slope(LiveView):
    lossless = True

    def __init__(self, trainer):
        self.trainer = trainer

    def draw(self, window):
        level = int(self.trainer.model.weight.item() * 50) % 256
        return np.full((window.size[1], window.size[0]), level, np.uint8)

class Mine(testing.Line):
    @classmethod
    def load_data(cls, config, path):
        return {"data": testing.line_data(), "validation_data": testing.line_data()}

    def views(self):
        return {"slope": Slope(self)}
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("program") / "mine_program.py"
    file.write_text(PROGRAM)
    return f"{file}:Mine"


@pytest.fixture
def train(script: str, tmp_path: Path) -> Callable[..., Any]:
    """Make a run of the program's trainer below `tmp_path`/runs, trained to its end."""

    def made(name: str = "mine", **settings: Any) -> Any:
        kind = load_trainer(script)
        settings = {"batch_size": 10, "max_epochs": 4, "save_every": "5 steps", "keep_checkpoints": 99} | settings
        return kind(**kind.load_data(None, None), run_dir=tmp_path / "runs" / name, seed=4, **settings)

    return made


@pytest.fixture
def opened(capfd: pytest.CaptureFixture[str], script: str) -> Callable[..., Any]:
    """Run `treadle studio` in a thread, in a block; gives a way to connect to it. It has to end with code 0."""

    @contextmanager
    def studio(*arguments: str) -> Iterator[Callable[..., StudioClient]]:
        codes: list[int] = []
        command = ["studio", *arguments, "--no-browser"]
        thread = threading.Thread(target=lambda: codes.append(main(command)), daemon=True)
        thread.start()
        said, url = "", None
        while url is None and thread.is_alive():
            said += capfd.readouterr().err
            url = re.search(r"http://\S+#token=\S+", said)
            threading.Event().wait(0.01)
        assert url is not None, said
        address = url[0]
        try:
            yield lambda **how: StudioClient(address, **how)
        finally:
            end = time.monotonic() + 60
            while thread.is_alive() and time.monotonic() < end:  # out of a training, too, and of what is looked at then
                with suppress(UsageError, RunError), StudioClient(address) as client:
                    client.take_control()
                    client.request(Stop(id=0))
                thread.join(1)
        assert codes == [0]

    return studio


def hashes(run: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*") if path.is_file()}


def again(connect: Callable[..., StudioClient], run: str, stage: str, after: str = "") -> StudioClient:
    """A connection once the studio shows this run at this stage, and no longer does what it did in instance `after`."""
    end = time.monotonic() + 100
    while time.monotonic() < end:
        try:
            client = connect()
        except UsageError:  # it has just begun to show something else
            continue
        welcome = client.welcome
        if welcome.instance != after and welcome.run == run and client.wait_for(State, 60).stage == stage:
            return client
        client.close()
        threading.Event().wait(0.05)
    raise AssertionError(f"{run} was not {stage}")


def test_a_finished_run_is_looked_at_and_not_changed(opened: Any, train: Any, script: str) -> None:
    with train() as trainer:
        trainer.train()
    path, weight = trainer.run.path, trainer.model.weight.item()
    before = hashes(path)
    greys: dict[int, tuple[int, int]] = {}
    arrived = threading.Condition()

    def on_frame(frame: Frame, data: bytes | memoryview) -> None:
        with arrived:
            greys[frame.pane] = frame.step, Image.open(io.BytesIO(data)).convert("L").getpixel((0, 0))
            arrived.notify_all()

    with opened(str(path), "--trainer", script) as connect, connect(on_frame=on_frame) as client:
        assert client.welcome.run == "mine/v001"
        state = client.wait_for(State, 60)
        assert (state.stage, state.step, state.epoch) == ("finished", 20, 4)
        assert state.metrics["validation/loss"] == pytest.approx(trainer.validation_metrics["loss"])
        states = client.wait_for(States, 60)
        assert [kept["step"] for kept in states.kept if kept["kind"] == "checkpoint"] == [5, 10, 15, 20]
        client.request(Look(id=0, step=5, sure=True))
        client.request(Watch(id=0, pane=0, view="slope", width=16, height=8))
        client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, state=5))
        with arrived:
            assert arrived.wait_for(lambda: len(greys) == 2, 60)
        then = read_checkpoint(path / "checkpoints" / "step-00000005").tensors["model/state/weight"].item()
        assert greys == {0: (20, int(weight * 50) % 256), 1: (5, int(then * 50) % 256)}
        header, _ = client.request(Curves(id=0, key="epoch/loss"))
        assert header.points == 4
        with pytest.raises(UsageError, match="has come to its end: raise its limits, or continue from an earlier"):
            client.play()
        with pytest.raises(UsageError, match="newest state is of step 20"):
            client.request(Rewind(id=0, step=21, keep=False))
        RunLock(path).release()
    assert hashes(path) | {str(path / ".lock"): ""} == before | {str(path / ".lock"): ""}


def test_a_finished_run_is_extended_and_nothing_else_of_it_can_be_edited(opened: Any, train: Any, script: str) -> None:
    with train("other") as other:
        other.train()
        for epochs in (6, 7):
            other.commands.extend(max_epochs=epochs).result(60)
            expected = other.train().digest
    with train() as trainer:
        trainer.train()
    path = trainer.run.path
    with opened(str(path), "--trainer", script) as connect:
        with again(connect, "mine/v001", "finished") as client:
            refused = {entry["what"]: entry.get("refused", "") for entry in client.welcome.editable}
            assert refused.pop("limit") == "" and len(refused) > 2
            assert set(refused.values()) == {"the run has come to its end: only its limits can be raised"}
            for change, why in [
                (Change(what="lr_multiplier", target="optimizer", value=0.5), "only its limits can be raised"),
                (Change(what="limit", target="max_epochs", value=None), "max_epochs: give a number"),
            ]:
                with pytest.raises(UsageError, match=why):
                    client.request(Apply(id=0, changes=[change]))
            six = Change(what="limit", target="max_epochs", value=6)
            assert client.request(Propose(id=0, changes=[six]))[0]["after"] == 6
            looked_at = client.welcome.instance
            assert client.request(Apply(id=0, changes=[six])) == {"opens": True}
        while [entry["event"] for entry in read_journal(path)].count("finish") < 2:
            threading.Event().wait(0.05)
        with again(connect, "mine/v001", "finished", after=looked_at) as client:
            assert client.state is not None and (client.state.step, client.state.max_epochs) == (30, 6)
            client.take_control()
            trained = client.welcome.instance
            client.request(Stop(id=0))  # of the one that is trained here by now
        with again(connect, "mine/v001", "finished", after=trained) as client:
            client.take_control()
            assert client.request(Extend(id=0, max_epochs=7)) == {"opens": True}
        while [entry["event"] for entry in read_journal(path)].count("finish") < 3:
            threading.Event().wait(0.05)
    assert [entry["changed"] for entry in read_journal(path) if entry["event"] == "extend"] == [
        {"max_epochs": [4, 6]},
        {"max_epochs": [6, 7]},
    ]
    assert read_checkpoint(path / "checkpoints" / "step-00000035").digest == expected


def test_it_continues_from_an_earlier_state_as_one_that_was_rewound(opened: Any, train: Any, script: str) -> None:
    with train("other") as other:
        other.train()
        other.rewind(10)
        expected = other.train().digest
    with train() as trainer:
        trainer.train()
    path = trainer.run.path
    with opened(str(path), "--trainer", script) as connect:
        with connect() as client:
            looked_at = client.welcome.instance
            assert client.request(Rewind(id=0, step=10, keep=False)) == {"opens": True}
        while [entry["event"] for entry in read_journal(path)].count("finish") < 2:
            threading.Event().wait(0.05)
        with again(connect, "mine/v001", "finished", after=looked_at) as client:
            client.take_control()
            trained = client.welcome.instance
            client.request(Stop(id=0))
        with again(connect, "mine/v001", "finished", after=trained) as client:
            assert client.wait_for(States, 60).lost == [[10, 20]]
    newest = read_checkpoint(path / "checkpoints" / "step-00000020")
    assert newest.digest == expected


def test_a_stopped_run_plays_on_and_is_stopped_again(opened: Any, train: Any, script: str) -> None:
    with train(max_epochs=10**6) as trainer:
        while trainer.progress.step < 7:
            trainer.iterate()
        trainer.save()
    path = trainer.run.path
    with opened(str(path), "--trainer", script) as connect:
        with again(connect, "mine/v001", "stopped") as client:
            assert client.state is not None and client.state.step == 7
            with pytest.raises(UsageError, match="nothing is trained here now, so there is nothing to save"):
                client.request(Save(id=0))
            assert {entry["refused"] for entry in client.welcome.editable} == {
                "nothing is trained here now: play first"
            }
            client.play()
        with again(connect, "mine/v001", "running") as client:
            client.take_control()
            client.pause()
            with pytest.raises(UsageError, match="is being trained by process"):
                RunLock(path)
            assert client.state is not None and client.state.step >= 7
            client.request(Stop(id=0))
        again(connect, "mine/v001", "stopped").close()
    assert [entry["event"] for entry in read_journal(path)].count("resume") == 1


def test_the_table_opens_runs(opened: Any, train: Any, script: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        with train(name, max_epochs=1) as trainer:
            trainer.train()
    with opened(str(tmp_path / "runs")) as connect:
        with connect() as client:
            assert client.welcome.run == "" and "train" not in client.welcome.features
            names = sorted(row["name"] for row in client.request(Runs(id=0)))
            assert names == ["one/v001", "two/v001"]
            with pytest.raises(UsageError, match="there is no run 'three/v001'"):
                client.request(Open(id=0, run="three/v001"))
            client.request(Open(id=0, run="two/v001"))
        with again(connect, "two/v001", "finished") as client:
            client.take_control()
            with pytest.raises(UsageError, match="cannot be made again here"):
                client.request(Extend(id=0, max_epochs=9))
            client.request(Open(id=0, run=None))
        again(connect, "", "new").close()


def test_a_run_that_another_process_trains_is_followed(opened: Any, train: Any, script: str) -> None:
    trainer = train(max_epochs=10**6, log_every="1 step")
    while trainer.progress.step < 6:
        trainer.iterate()
    trainer.save()
    with opened(str(trainer.run.path), "--trainer", script) as connect, connect() as client:
        assert client.wait_for(State, 60).stage == "running"
        with pytest.raises(UsageError, match="another process trains this run: here it is only looked at"):
            client.request(Play(id=0))
        while trainer.progress.step < 30:
            trainer.iterate()
        trainer.note("prune", rows=3)
        while client.wait_for(State, 60).step < 29:
            pass
        while not any(mark["kind"] == "prune" for mark in client.wait_for(States, 60).marks):
            pass
    trainer.close()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "no run nowhere"),
        (["."], "no runs in ."),
        ([".", "--port", "x"], "--port"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studio", *arguments]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_a_trainer_says_nothing_about_a_directory_of_runs(
    train: Any, script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(max_epochs=1).close()
    assert main(["studio", str(tmp_path / "runs"), "--trainer", script]) == 2
    assert "--trainer says whose" in capsys.readouterr().err


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", "--help"]) == 0
    told = capsys.readouterr().out
    assert "treadle studio runs/image/v001" in told and all(len(line) < 81 for line in told.splitlines())
