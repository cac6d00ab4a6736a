"""Histograms and timing: what they say, and that the run is the same with them or without."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from treadle import Hook
from treadle.engine import lifecycle
from treadle.errors import UsageError
from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.studio.measures import timing
from treadle.studio.measures.histograms import Gradients, histogram, of_parameters
from treadle.studio.measures.timing import Clock
from treadle.testing import Line, capture


@contextmanager
def served(trainer: Line) -> Iterator[StudioClient]:
    with Studio(trainer, quiet=True, open_browser=False) as studio, StudioClient(studio.url) as client:
        yield client


def taking_steps(trainer: Line, future: Any) -> Any:
    """Take steps until there is an answer."""
    end = time.monotonic() + 60
    while not future.done() and time.monotonic() < end:
        trainer.iterate()
        time.sleep(0.01)
    return future.result(0)


# Histograms -----------------------------------------------------------------------------------------------------------


def test_a_histogram_counts_every_entry() -> None:
    found = histogram("a", torch.tensor([[0.0, 1.0, 2.0], [2.0, 4.0, 4.0]]), 4)
    assert found["counts"] == [1, 1, 2, 2] and (found["low"], found["high"]) == (0.0, 4.0)
    assert found["shape"] == [2, 3] and found["entries"] == 6 and found["mean"] == pytest.approx(13 / 6)
    odd = histogram("b", torch.tensor([float("nan"), float("inf"), 1.0, -float("inf")]), 8)
    assert (odd["nan"], odd["infinite"], sum(odd["counts"])) == (1, 2, 1)
    assert histogram("c", torch.tensor([float("nan")]), 4)["low"] is None
    assert histogram("d", torch.empty(0), 4)["counts"] == [0, 0, 0, 0]
    assert sum(histogram("e", torch.tensor([3e38, -3e38, 0.0]), 4)["counts"]) == 3
    assert histogram("e", torch.tensor([1e308, -1e308], dtype=torch.float64), 4)["counts"] == [1, 0, 0, 1]
    assert histogram("f", torch.tensor([1 + 2j, 3 + 4j]), 4)["entries"] == 4
    assert histogram("g", torch.tensor([1.0, 2.0], dtype=torch.bfloat16), 4)["counts"] == [1, 0, 0, 1]
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), torch.tensor([1.0, 2.0]), (5,), check_invariants=True)
    assert histogram("h", sparse, 4)["mean"] == 3.0 and histogram("h", sparse, 4)["shape"] == [5]


def test_parameters(line: Callable[..., Line]) -> None:
    trainer = line()
    with served(trainer) as client:
        future = client.send(protocol.Histograms(id=0, bins=8))
        answer = taking_steps(trainer, future)
        assert [one["name"] for one in answer["histograms"]] == ["model.weight", "model.bias"]
        assert all(sum(one["counts"]) == 1 for one in answer["histograms"])
        assert answer["left_out"] == 0 and answer["averaged"] is False
    trainer.train()
    ended = trainer.commands.call(lambda: of_parameters(trainer.loop, 8)).result(60)
    assert ended["histograms"][0]["low"] == pytest.approx(float(trainer.model.weight.detach()))


def test_gradients_are_those_of_one_step(line: Callable[..., Line]) -> None:
    seen: list[float] = []

    class See(Hook):
        def pre_update(self, trainer: Any, optimizer: Any) -> None:
            seen.append(float(trainer.model.weight.grad))

    trainer = line(hooks=[See()], clip_norm=1e-6, max_epochs=10**6)  # until there is an answer, however late
    with served(trainer) as client:
        before = len(trainer.hooks)
        future = client.send(protocol.Histograms(id=0, of="gradients", bins=8))
        again = client.send(protocol.Histograms(id=0, of="gradients", bins=8))
        answer = taking_steps(trainer, future)
        assert again.result(60) == answer
        weight = answer["histograms"][0]
        assert weight["name"] == "model.weight" and weight["low"] == pytest.approx(seen[answer["step"] - 1])
        assert len(trainer.hooks) == before  # nobody listens any more
        trainer.commands.set_limit("max_epochs", trainer.progress.epoch + 2)
        trainer.train()
        with pytest.raises(UsageError, match="takes no step whose gradients"):
            client.request(protocol.Histograms(id=0, of="gradients"))


def test_gradients_of_a_run_that_ends_before(line: Callable[..., Line]) -> None:
    trainer = line(max_steps=1, max_epochs=None)
    probe = Gradients(trainer.loop, 8)
    trainer.commands.pause()
    trainer.iterate()
    future = trainer.commands.call(probe.attach)
    trainer.iterate()
    future.result(0)
    trainer.close()
    with pytest.raises(Exception, match="the run has ended"):
        probe.found.result(0)
    assert all(not isinstance(hook, Gradients) for hook in trainer.hooks)


def test_with_accumulation_the_step_that_updates_is_waited_for(line: Callable[..., Line]) -> None:
    trainer = line(accumulate=3)
    probe = Gradients(trainer.loop, 8)
    trainer.commands.call(probe.attach)
    steps = 0
    while not probe.found.done():
        trainer.iterate()
        steps += 1
    assert probe.found.result(0)["step"] == steps == 3


# Timing ---------------------------------------------------------------------------------------------------------------


class Slow(Line):
    def step(self, batch: Any) -> dict[str, Any]:
        time.sleep(0.004)
        return super().step(batch)

    def validation_step(self, batch: Any) -> dict[str, Any]:
        time.sleep(0.01)
        return super().validation_step(batch)


class Sleepy(Hook):
    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        time.sleep(0.002)


def test_the_phases_are_told_apart_and_add_up(line: Callable[..., Line], line_data: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validation_data": line_data, "run_dir": tmp_path / "v001", "max_epochs": 4}
    trainer = line(Slow, hooks=[Sleepy()], **settings)
    trainer.iterate()
    clock = Clock(trainer.loop)
    clock.ask()
    trainer.commands.call(clock.attach)
    trainer.commands.call(lambda: time.sleep(0.03))
    start = time.perf_counter()
    for _ in range(6):
        trainer.iterate()
    trainer.save()
    trainer.iterate()
    took = time.perf_counter() - start
    report = clock.report()
    seconds = {phase["name"]: phase["seconds"] for phase in report["phases"]}
    assert report["steps"] == 7 and list(seconds) == list(timing.PHASES)
    assert seconds["step"] >= 7 * 0.004 and seconds["hooks"] >= 7 * 0.002
    assert seconds["validation"] >= 0.02 and seconds["call"] >= 0.03 and seconds["checkpoint"] > 0
    assert 0.8 * took < sum(seconds.values()) < took
    hooks = {hook["name"]: hook["seconds"] for hook in report["hooks"]}
    assert hooks["Sleepy"] >= 7 * 0.002 and "RunRecorder" in hooks and not any(name.startswith("_") for name in hooks)


def test_pauses_are_no_work(line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]  # a clock of its own, that no other work on the machine moves on
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def passes(seconds: float) -> None:
        now[0] += seconds

    trainer = line(max_epochs=None, max_steps=20)
    clock = Clock(trainer.loop)
    clock.ask()
    trainer.commands.call(clock.attach)
    trainer.iterate()
    trainer.commands.pause()
    trainer.iterate()
    trainer.commands.call(lambda: passes(0.06))
    passes(0.06)
    trainer.iterate()
    assert {phase["name"]: phase["seconds"] for phase in clock.report()["phases"]}["pause"] == pytest.approx(0.12)
    trainer.commands.resume()
    trainer.iterate()
    seconds = {phase["name"]: phase["seconds"] for phase in clock.report()["phases"]}
    assert seconds.pop("pause") == pytest.approx(0.12) and all(abs(other) < 1e-9 for other in seconds.values())


def test_nothing_is_measured_when_nobody_looks(line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = line(max_epochs=None, max_steps=10**6)
    with served(trainer) as client:
        trainer.iterate()
        assert not trainer.loop.events.listens("pre_step") and trainer.loop.lifecycle.measured() is None
        report = taking_steps(trainer, client.send(protocol.Timing(id=0)))
        assert report["steps"] == 0 and trainer.loop.events.listens("pre_step")
        trainer.iterate()
        assert client.request(protocol.Timing(id=0))["steps"] >= 1
        monkeypatch.setattr(timing, "LOOKED_AT", 0.0)
        trainer.iterate()
        assert not trainer.loop.events.listens("pre_step") and trainer.loop.lifecycle.measured() is None
        trainer.commands.set_limit("max_steps", trainer.progress.step + 3)
        trainer.train()
        client.request(protocol.Timing(id=0))  # answered from what was measured


def test_the_run_is_the_same_with_it_or_without(line: Callable[..., Line], line_data: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validation_data": line_data, "max_epochs": 6, "snapshot_every": "2 steps"}
    plain = line(run_dir=tmp_path / "v001", **settings)
    digest = plain.train().digest
    watched = line(run_dir=tmp_path / "v002", save_every="3 steps", **settings)
    with served(watched) as client:
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                for request in (protocol.Timing(id=0), protocol.Histograms(id=0, of="gradients", bins=16)):
                    try:
                        client.request(request)
                    except UsageError:  # it has ended meanwhile
                        return

        thread = threading.Thread(target=look)
        thread.start()
        while watched.progress.step < 9:
            watched.iterate()
            time.sleep(0.005)
        watched.rewind(5)
        summary = watched.train()
        ended.set()
        thread.join(60)
    assert watched.progress.step == plain.progress.step == 18
    assert capture(watched).digest == capture(plain).digest and summary.digest == digest


def test_a_rewind_takes_it_away_and_the_next_question_brings_it_back(line: Callable[..., Line]) -> None:
    trainer = line(snapshot_every="1 step", max_epochs=4)
    clock = Clock(trainer.loop)
    clock.ask()
    trainer.iterate()
    trainer.commands.call(clock.attach)
    for _ in range(4):
        trainer.iterate()
    trainer.rewind(3)
    if not clock.attached:
        trainer.commands.call(clock.attach)
    trainer.iterate()
    assert clock.attached and clock.report()["steps"] >= 1
