"""Branches: forks of the run in processes of their own, with the parent's trainer and data, ended with it."""

from __future__ import annotations

import importlib.util
import inspect
import io
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import treadle
from tests.warm.python import python
from treadle import UsageError
from treadle.checkpoint.store import read_checkpoint
from treadle.recipes.scripts import script_of
from treadle.runs.run import read_config, read_journal, read_summary
from treadle.studio.client import StudioClient
from treadle.studio.driving import branches
from treadle.studio.driving.branches import Branches, check_memory, check_settings
from treadle.studio.hook import Studio
from treadle.studio.protocol import Branch, Compare, Drive, Frame, Inspect, Overlay, Save, Watch
from treadle.studio.protocol import Branches as Told
from treadle.testing import Line

PROGRAM = """
from dataclasses import dataclass
from pathlib import Path
import time
import numpy as np
from treadle import testing
from treadle.reports.views import LiveView, Option, Sample, Shapes
from treadle.config.settings import setting
from treadle.engine.settings import TrainerConfig

@dataclass(kw_only=True)
class SlowConfig(TrainerConfig):
    lr: float = setting(0.1, above=0)
    wait: float = setting(0.0, least=0)
    held: bool = False

class Rate(LiveView):
    lossless = True

    def __init__(self, trainer):
        self.trainer = trainer

    def options(self):
        return [Option("plus", "Plus", "range", 0.0, high=50.0)]

    def draw(self, window):
        level = 1000 * self.trainer.optimizer.param_groups[0]["lr"] + window.options["plus"]
        return np.full((window.size[1], window.size[0]), round(level), np.uint8)

    def inspect(self, window, x, y):
        return {"x": x, "y": y}

    def samples(self):
        yield Sample("only", {"rate": self.trainer.config.lr})

    def shapes(self, window):
        return Shapes(points=np.eye(3, dtype=np.float32))

class Slow(testing.Line):
    Config = SlowConfig

    def views(self):
        return {"rate": Rate(self)}

    @classmethod
    def load_data(cls, config, path):
        return {"data": testing.line_data(), "validation_data": testing.line_data()}

    def step(self, batch):
        time.sleep(self.config.wait)
        while self.config.held and not Path(__file__).with_name("go").exists():
            time.sleep(0.01)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr
        return super().step(batch)
"""


@dataclass
class Family:
    """A parent that is paused at step 12, and its branch from step 5."""

    parent: Any
    topic: Branches
    client: StudioClient
    answer: Any
    url: str


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    folder = tmp_path_factory.mktemp("branches")
    file = folder / "slow_program.py"
    file.write_text(PROGRAM)
    spec = importlib.util.spec_from_file_location("slow_program", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules["slow_program"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = {
        "batch_size": 10,
        "max_epochs": 10**6,
        "save_every": "5 steps",
        "keep_checkpoints": 10**6,  # the parent trains on, as long as the machine takes for the tests
        "seed": 4,
        "wait": 0.02,
    }
    parent = module.Slow(**module.Slow.load_data(None, None), run_dir=folder / "slow", **settings)
    with Studio(parent, paused=True, quiet=True, open_browser=False) as studio:
        topic = studio.topic(Branches)
        thread = threading.Thread(target=parent.train)
        thread.start()
        with StudioClient(studio.url) as client:
            client.advance(12)
            client.play()
            answer = client.request(Branch(id=0, step=5, settings={"lr": 0.02, "wait": 0.01}))
            yield Family(parent, topic, client, answer, studio.url)
        parent.commands.stop()
        thread.join(60)
    parent.close()
    assert all(not child.alive and not child.folder.exists() for child in topic.children)
    left = [child for child in topic.children if child.name == "slow/v003"]
    for child in left:
        assert read_summary(child.run)["reason"] == "its parent has ended" and child.process.returncode == 0
    del sys.modules["slow_program"]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a branch is started with has imported everything."""
    monkeypatch.setattr(branches, "CHILD", (python(), *branches.CHILD[1:]))


def told(client: StudioClient, **wanted: Any) -> dict[str, Any]:
    while True:
        for run in client.wait_for(Told).runs:
            if all(run.get(key) == value for key, value in wanted.items()):
                return run


def test_a_branch_is_a_fork_in_a_process_of_its_own(family: Family) -> None:
    assert family.answer == {"run": "slow/v002", "step": 5} and family.parent.paused
    run = told(family.client, stage="running")
    assert (run["run"], run["step"], run["settings"]) == ("slow/v002", 5, {"lr": 0.02, "wait": 0.01})
    assert run["alive"] and not run["error"]
    fork = family.parent.run.path.with_name("v002")
    settings = read_config(fork)["config"]
    assert (settings["lr"], settings["max_epochs"]) == (0.02, 10**6)
    first = read_checkpoint(fork / "checkpoints" / "step-00000005").digest
    assert first == read_checkpoint(family.parent.run.path / "checkpoints" / "step-00000005").digest
    entry = read_journal(fork)[0]
    assert (entry["event"], entry["step"], entry["others"]) == ("fork", 5, ["lr", "wait"])


def test_its_command_line_names_nothing_that_a_browser_said(family: Family) -> None:
    child = family.topic.children[0]
    assert psutil.Process(child.process.pid).cmdline()[1:] == ["-m", "treadle.studio.child"]
    assert child.folder.stat().st_mode & 0o777 == 0o700
    assert (child.folder / "studio").stat().st_mode & 0o777 == 0o600


def test_it_is_paused_and_played_by_itself(family: Family) -> None:
    family.client.request(Drive(id=0, run="slow/v002", act="pause"))
    at = told(family.client, stage="paused")["at"]
    family.client.request(Drive(id=0, run="slow/v002", act="play"))
    assert told(family.client, stage="running")["at"] >= at >= 5
    with pytest.raises(UsageError, match="'slow/v009' is no branch"):
        family.client.request(Drive(id=0, run="slow/v009", act="play"))


def test_it_is_seen_beside_its_parent(family: Family) -> None:
    greys: dict[int, int] = {}
    arrived = threading.Condition()

    def on_frame(frame: Frame, data: bytes | memoryview) -> None:
        with arrived:
            greys[frame.pane] = Image.open(io.BytesIO(data)).convert("L").getpixel((0, 0))
            arrived.notify_all()

    with StudioClient(family.url, on_frame=on_frame) as client:
        watch = {"view": "rate", "width": 32, "height": 16, "options": {"plus": 7.0}}
        client.request(Watch(id=0, pane=0, **watch))
        client.request(Watch(id=0, pane=1, run="slow/v002", **watch))
        with arrived:
            assert arrived.wait_for(lambda: greys == {0: 107, 1: 27}, 60), greys
        assert client.request(Inspect(id=0, pane=1, x=9, y=3)) == {"x": 9, "y": 3}
        found = client.request(Compare(id=0, view="rate", run="slow/v002"))
        assert found == [{"name": "only", "figures": {"rate": pytest.approx(0.02)}}]
        _, data = client.request(Overlay(id=0, view="rate", run="slow/v002"))
        assert np.frombuffer(data, "<f4").tolist() == np.eye(3).ravel().tolist()
        with pytest.raises(UsageError, match="no option 'minus'"):
            client.request(Watch(id=0, pane=1, view="rate", run="slow/v002", options={"minus": 1.0}))
        with pytest.raises(UsageError, match="there is no run 'slow/v007'"):
            client.request(Watch(id=0, pane=1, view="rate", run="slow/v007"))


def test_one_that_is_ended_can_be_resumed(family: Family) -> None:
    child = family.topic.children[0]
    pid = child.process.pid
    assert family.client.request(Drive(id=0, run="slow/v002", act="end")) == {"run": "slow/v002", "code": 0}
    assert told(family.client, alive=False)["stage"] == "gone" and not psutil.pid_exists(pid)
    fork = family.parent.run.path.with_name("v002")
    summary = read_summary(fork)
    assert (summary["status"], summary["reason"]) == ("stopped", "stopped in the studio")
    again = treadle.resume(fork, trainer=type(family.parent))
    assert again.progress.step == summary["step"] > 5
    again.close()


@pytest.mark.usefixtures("quickly")
def test_one_that_was_told_to_go_on_outlives_its_parent_to_its_end(tmp_path: Path, family: Family) -> None:
    kind = type(family.parent)
    settings = {"batch_size": 10, "max_epochs": 10**6, "save_every": "5 steps", "seed": 0, "wait": 0.02}
    parent = kind(**kind.load_data(None, None), run_dir=tmp_path / "slow", **settings)
    with Studio(parent, paused=True, quiet=True, open_browser=False) as studio:
        thread = threading.Thread(target=parent.train, daemon=True)
        thread.start()
        with StudioClient(studio.url) as client:
            client.advance(5)
            client.request(Save(id=0))  # it is there, and not only being written
            told = client.request(Branch(id=0, step=5, settings={"held": True, "max_epochs": 4}))
            assert client.request(Drive(id=0, run=told["run"], act="go on")) == {"run": told["run"], "goes_on": True}
        child = studio.topic(Branches).children[0]
        parent.commands.stop()
        thread.join(60)
    parent.close()
    assert child.run is not None and child.alive, "it was told to go on"
    Path(inspect.getfile(kind)).with_name("go").touch()  # until now it has waited
    assert child.process.wait(60) == 0
    summary = read_summary(child.run)
    assert (summary["status"], summary["step"]) == ("finished", 20)


def test_one_that_fails_or_is_killed_says_why_and_the_parent_goes_on(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    family.client.play()
    for script, why in (
        ("read x; echo 'treadle: other text' >&2; echo 'treadle: the disk is full' >&2; exit 1", "the disk is full"),
        ("kill -9 $$", r"it was killed \(signal 9\)"),
    ):
        monkeypatch.setattr(branches, "CHILD", ("sh", "-c", script))
        with pytest.raises(UsageError, match=f"the branch could not begin: {why}"):
            family.client.request(Branch(id=0, step=5))
        while family.parent.paused:
            time.sleep(0.01)
    assert [child.process.returncode for child in family.topic.children[-2:]] == [1, -9]


def test_what_cannot_be_is_refused_before_a_process_is_made(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(family.topic.children)
    for request, why in (
        (Branch(id=0, step=7), "has no checkpoint at step 7; there are: 5, 10"),
        (Branch(id=0, step=5, settings={"lrr": 1.0}), "SlowConfig has no setting 'lrr'; did you mean 'lr'"),
        (Branch(id=0, step=5, settings={"lr": -1.0}), "lr"),
        (Branch(id=0, step=5, settings={"device": "cuda"}), "device is not set from a browser"),
        (Branch(id=0, step=5, settings={"monitor": "../../etc"}), "monitor is not set from a browser"),
    ):
        with pytest.raises(UsageError, match=why):
            family.client.request(request)
    monkeypatch.setattr(branches, "free_memory", lambda: 5_000_000)
    with pytest.raises(UsageError, match=r"as much memory as this process, .* and 5 MB are free"):
        family.client.request(Branch(id=0, step=5))
    assert len(family.topic.children) == before


@pytest.mark.usefixtures("quickly")
def test_one_is_ended_with_its_parent(family: Family) -> None:
    """The next one is left alone: the fixture's end looks at what becomes of it."""
    answer = family.client.request(Branch(id=0, step=5, pause=False))
    assert answer["run"] == "slow/v003" and not family.parent.paused


def test_memory_and_settings_are_checked() -> None:
    check_memory()
    trainer = Line(data=treadle.testing.line_data(), max_epochs=1)
    check_settings(trainer.config, {"max_epochs": 7})
    with pytest.raises(UsageError):
        check_settings(trainer.config, {"max_epochs": "many"})


def test_a_class_that_no_other_process_could_have_says_why(tmp_path: Path) -> None:
    assert script_of(treadle.recipes.registry.trainer("image")) is None
    assert script_of(Line) == f"{Path(treadle.testing.__file__).absolute()}:Line"

    class Inner(Line):
        pass

    with pytest.raises(UsageError, match="Inner cannot be had in another process: it is defined inside"):
        script_of(Inner)
    Inner.__qualname__ = "Inner"
    with pytest.raises(UsageError, match="it is in no file"):
        script_of(Inner)
    for text, guarded in (
        ("import a\nclass M: ...\nM().train()\n", False),
        ("if __name__ == '__main__':\n  1\n", True),
    ):
        file = tmp_path / "main.py"
        file.write_text(text)
        main = sys.modules["__main__"]
        Inner.__module__ = "__main__"
        before = getattr(main, "__file__", None)
        main.__file__, main.Inner = str(file), Inner  # type: ignore[attr-defined]
        try:
            if guarded:
                assert script_of(Inner) == f"{file}:Inner"
            else:
                with pytest.raises(UsageError, match=r"main.py would train anew when it is imported"):
                    script_of(Inner)
        finally:
            main.__file__ = before
            del main.Inner  # type: ignore[attr-defined]
