"""Curves over the wire: points, differences, tables; of the run that is trained, on disk or not, and of others."""

from __future__ import annotations

import csv
import io
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.runs.aside import create_run
from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.testing import Line


@contextmanager
def served(trainer: Line) -> Iterator[StudioClient]:
    with Studio(trainer, quiet=True, open_browser=False) as studio, StudioClient(studio.url) as client:
        yield client


def ask(client: StudioClient, key: str, **asked: Any) -> tuple[protocol.Series, np.ndarray[Any, Any]]:
    header, data = client.request(protocol.Curves(id=0, key=key, **asked))
    assert isinstance(header, protocol.Series)
    return header, np.frombuffer(data, "<f8").reshape(4, header.points)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs of other programs: a/v001, and a/v002 with values a little lower, at every second step."""
    for number, offset in ((1, 0.0), (2, 0.5)):
        run = create_run(tmp_path / "a" / f"v00{number}")
        for step in range(number, 101, number):
            run.metrics.append("train", {"loss": 100.0 / step - offset, "lr": 1e-3}, step=step, epoch=step // 50)
        run.close()
    return tmp_path / "a"


def make(line: Callable[..., Line], **settings: Any) -> Line:
    return line(log_every="1 step", max_epochs=3, **settings)


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_run_that_is_trained(line: Callable[..., Line], line_data: Any, tmp_path: Path, on_disk: bool) -> None:
    where = {"run_dir": tmp_path / "v009"} if on_disk else {}
    trainer = make(line, validation_data=line_data, snapshot_every="1 step", keep_snapshots=10, **where)
    with served(trainer) as client:
        seen = []
        for step in range(1, 7):
            trainer.iterate()
            _, rows = ask(client, "train/loss")
            assert rows[0].tolist() == list(range(1, step + 1))
            seen.append(float(rows[3, -1]))
        header, rows = ask(client, "train/loss")
        assert header.exact and header.total == 6 and rows[3].tolist() == seen
        assert ask(client, "epoch/loss")[1][0].tolist() == [3, 6]
        assert ask(client, "validation/loss")[1].shape[1] == 2
        np.testing.assert_allclose(ask(client, "train/loss", x="epoch")[1][0], np.arange(1, 7) / 3)
        trainer.rewind(4)
        assert ask(client, "train/loss")[1][0].tolist() == [1, 2, 3, 4]
        trainer.iterate()
        assert ask(client, "train/loss")[1][0].tolist() == [1, 2, 3, 4, 5]
        lost = ask(client, "lost/train/loss")[1]
        assert lost[0].tolist() == [5, 6] and lost[3].tolist() == seen[4:]
        trainer.train()
        assert ask(client, "train/loss")[1].shape[1] == 9


def test_a_studio_that_came_late_to_a_run_without_a_directory_has_what_was_logged_last(
    line: Callable[..., Line], tmp_path: Path
) -> None:
    trainer = make(line)
    for _ in range(4):
        trainer.iterate()
    with served(trainer) as client:
        assert ask(client, "train/loss")[1][0].tolist() == [4]
        trainer.iterate()
        assert ask(client, "train/loss")[1][0].tolist() == [4, 5]


def test_a_resumed_run_has_its_past(line: Callable[..., Line], tmp_path: Path) -> None:
    with make(line, run_dir=tmp_path / "v001") as trainer:
        for _ in range(5):
            trainer.iterate()
        trainer.save()
    with make(line, run_dir=tmp_path / "v001", resume=True) as again, served(again) as client:
        assert ask(client, "train/loss")[1][0].tolist() == [1, 2, 3, 4, 5]


def test_other_runs_and_what_differs(line: Callable[..., Line], root: Path) -> None:
    with served(make(line, run_dir=root / "v009")) as client:
        header, rows = ask(client, "train/loss", run="a/v001", points=10)
        assert not header.exact and header.total == 100 and 5 <= header.points <= 10
        assert rows[2].max() == 100.0 and rows[1].min() == 1.0
        _, rows = ask(client, "train/loss", run="a/v001", low=10, high=20)
        assert rows[0].tolist() == list(range(9, 22))
        header, rows = ask(client, "train/loss", run="a/v001", minus="a/v002")
        means = [(100 / step + 100 / (step - 1)) / 2 - 100 / step + 0.5 for step in range(2, 101, 2)]
        assert rows[0].tolist() == list(range(2, 101, 2))  # where the one with fewer values has them
        np.testing.assert_allclose(rows[3], means)
        smooth = ask(client, "train/loss", run="a/v001", minus="a/v002", smoothing=0.9)[1]
        assert np.ptp(smooth[3]) < np.ptp(rows[3])
        assert not ask(client, "train/loss", run="a/v001", minus="a/v001")[1][3].any()
        with open(root / "v001" / "metrics.jsonl", "a") as log:
            log.write('{"split": "train", "step": 101, "epoch": 2, "time": 1, "values": {"loss": "NaN", "lr": 0}}\n')
        header, _ = ask(client, "train/loss", run="a/v001")
        assert header.total == 101 and header.marks == [[101.0, 0.0]]


def test_beside_a_run_without_a_directory_there_are_no_others(line: Callable[..., Line]) -> None:
    with served(make(line)) as client, pytest.raises(UsageError, match="there is no run 'a/v001' beside this one"):
        ask(client, "train/loss", run="a/v001")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"key": "train/los", "run": "a/v001"}, "did you mean 'train/loss'"),
        ({"key": "train/loss", "run": "a/v003"}, "there is no run 'a/v003'"),
        ({"key": "train/loss", "run": "a/v001", "minus": "none"}, "there is no run 'none'"),
        ({"key": "validation/psnr", "run": "a/v001", "minus": "a/v002"}, "no 'validation/psnr'"),
        ({"key": "train/loss", "run": "a/v001", "points": 4001}, "not understood"),
        ({"key": "train/loss", "run": "a/v001", "smoothing": 1.0}, "not understood"),
    ],
)
def test_what_cannot_be_drawn_is_said(line: Callable[..., Line], root: Path, asked: dict[str, Any], why: str) -> None:
    with served(make(line, run_dir=root / "v009")) as client:
        with pytest.raises(UsageError, match=why):
            ask(client, **asked)
        (root / "v001" / "metrics.jsonl").write_text("nonsense\n")
        with pytest.raises(UsageError, match="line 1 is damaged"):
            ask(client, "train/loss", run="a/v001")


def test_a_table(line: Callable[..., Line], root: Path) -> None:
    with served(make(line, run_dir=root / "v009")) as client:
        text = client.request(protocol.Table(id=0, keys=["train/loss", "train/lr"], run="a/v002", rows=3))
        rows = list(csv.reader(io.StringIO(text)))
        assert rows[0] == ["step", "epoch", "time", "train/loss", "train/lr"]
        assert [row[0] for row in rows[1:]] == ["96", "98", "100"]
        assert [float(row[3]) for row in rows[1:]] == [100 / step - 0.5 for step in (96, 98, 100)]


def test_many_runs_are_looked_at_and_few_are_held(line: Callable[..., Line], tmp_path: Path) -> None:
    for number in range(10):
        run = create_run(tmp_path / "runs" / "a" / f"v{number:03}")
        run.metrics.append("train", {"loss": float(number)}, step=1, epoch=0)
        run.close()
    with served(make(line, run_dir=tmp_path / "runs" / "own" / "v001")) as client:
        for number in [*range(10), *range(10)]:
            assert ask(client, "train/loss", run=f"a/v{number:03}")[1][3].tolist() == [float(number)]


def test_curves_are_read_while_the_run_logs(line: Callable[..., Line], tmp_path: Path) -> None:
    """Many questions at once, beside a run that logs at every step: each answer is of one instant."""

    class Waiting(Line):
        def step(self, batch: Any) -> dict[str, Any]:
            if self.progress.step % 100 == 99:  # however slowly the answers come
                going_on.set()
                assert answered.wait(60)
                answered.clear()
            return super().step(batch)

    answered, going_on = threading.Event(), threading.Event()
    trainer = line(Waiting, log_every="1 step", max_steps=400, max_epochs=None)
    with served(trainer) as client:
        trainer.iterate()
        thread = threading.Thread(target=trainer.train)
        thread.start()
        totals = []
        for _ in range(4):
            waiting = [
                client.send(protocol.Curves(id=0, key="train/loss", points=50, smoothing=share))
                for share in (0.0, 0.5, 0.0)
            ]
            for future in waiting:
                header, data = future.result(60)
                rows = np.frombuffer(data, "<f8").reshape(4, header.points)
                assert np.all(np.diff(rows[0]) > 0) and header.points <= 50
                totals.append(header.total)
            assert going_on.wait(60)
            going_on.clear()
            answered.set()
        thread.join()
        assert totals[-1] > totals[0] and math.isfinite(rows[3, -1])
        assert ask(client, "train/loss")[0].total == 400
