"""The curves of a run: what is logged, read from its log as it grows, drawn on any axis, given up by a rewind."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from treadle.errors import RunError, UsageError
from treadle.runs.metrics import MetricLog
from treadle.studio.curves import lines
from treadle.studio.curves.axes import Drawn
from treadle.studio.curves.lines import Follower, Line
from treadle.studio.curves.series import RunSeries


def logged(log: MetricLog, steps: range, per_epoch: int = 100) -> None:
    for step in steps:
        log.append("train", {"loss": 1 / step, "lr": 0.1}, step=step, epoch=step // per_epoch)
        if step % per_epoch == 0:
            log.append("epoch", {"loss": 2 / step}, step=step, epoch=step // per_epoch)
            log.append("validation", {"psnr": math.log(step)}, step=step, epoch=step // per_epoch)


@pytest.fixture
def run(tmp_path: Path) -> tuple[MetricLog, RunSeries, Follower]:
    series = RunSeries()
    return MetricLog(tmp_path), series, Follower(tmp_path, series)


def test_all_splits_are_read_as_the_log_grows(run: tuple[MetricLog, RunSeries, Follower]) -> None:
    log, series, follower = run
    follower.read()
    assert series.keys == []
    logged(log, range(1, 151))
    assert follower.behind > 0
    follower.read()
    assert follower.behind == 0
    assert series.keys == ["train/loss", "train/lr", "epoch/loss", "validation/psnr"]
    logged(log, range(151, 301))
    with open(log.file.path, "ab") as file:
        file.write(b'{"split": "train", "st')  # a line that is being written
    follower.read()
    steps, values = series.steps_and_values("train/loss")
    assert steps.tolist() == list(range(1, 301)) and values.tolist() == [1 / step for step in steps]
    assert series.newest == {
        "train/loss": 1 / 300,
        "train/lr": 0.1,
        "epoch/loss": 2 / 300,
        "validation/psnr": math.log(300),
    }
    with pytest.raises(UsageError, match="did you mean 'train/loss'"):
        series.curve("train/los")


@pytest.mark.parametrize("block", [1 << 20, 2000])
def test_what_was_cut_from_a_log_is_read_anew(
    run: tuple[MetricLog, RunSeries, Follower], monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(lines, "BLOCK", block)
    log, series, follower = run
    logged(log, range(1, 301))
    follower.read()
    log.rewind(120)
    follower.read()
    assert series.steps_and_values("train/loss")[0][-1] == 120 and len(series.curve("epoch/loss")) == 1
    assert series.newest["validation/psnr"] == math.log(100)
    log.rewind(50)
    for step in range(51, 400):  # longer than before, with other values
        log.append("train", {"loss": -float(step), "lr": 0.1}, step=step, epoch=0)
    follower.read()
    steps, values = series.steps_and_values("train/loss")
    assert steps.tolist() == list(range(1, 400)) and values[[49, 50]].tolist() == [1 / 50, -51.0]
    assert "epoch/loss" not in series.keys and series.lost == {}
    log.file.path.unlink()
    follower.read()
    assert series.keys == [] and series.draw("lost/train/loss").total == 0


def test_of_a_long_log_only_what_was_cut_is_read_again(
    run: tuple[MetricLog, RunSeries, Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK", 4000)
    log, series, follower = run
    logged(log, range(1, 1001))
    follower.read()
    read: list[int] = []
    real = os.pread

    def reading(descriptor: int, count: int, place: int) -> bytes:
        found = real(descriptor, count, place)
        if count == 4000:
            read.append(len(found))
        return found

    monkeypatch.setattr(os, "pread", reading)
    log.rewind(900)
    log.append("train", {"loss": 5.0, "lr": 0.1}, step=901, epoch=9)
    follower.read()
    assert series.newest["train/loss"] == 5.0 and len(series.curve("train/loss")) == 901
    assert sum(read) < 0.1 * log.file.size


def test_what_rewinds_gave_up_is_read_too(run: tuple[MetricLog, RunSeries, Follower]) -> None:
    log, series, follower = run
    logged(log, range(1, 151))
    follower.read()
    for step in (120, 60):
        log.abandon(step)
        log.rewind(step)
        logged(log, range(step + 1, step + 71))
    follower.read()
    assert series.lost == {1: (121, 150), 2: (61, 190)}
    assert series.draw("lost/1/train/loss").points.steps.tolist() == list(range(121, 151))
    assert series.draw("lost/train/loss").points.steps.tolist() == list(range(61, 191))
    assert len(series.curve("lost/2/epoch/loss")) == 1
    with open(log.directory / "abandoned.jsonl", "ab") as file:
        file.write(b'nonsense\n{"split": "train", "step": 1, "values": {"loss": 1}}\n')
    follower.read()
    assert list(series.lost) == [1, 2] and series.curve("train/loss").steps()[-1] == 130


def test_numbers_that_json_has_no_word_for(run: tuple[MetricLog, RunSeries, Follower]) -> None:
    log, series, follower = run
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf, 2.0], 1):
        log.append("train", {"loss": value}, step=step, epoch=0)
    follower.read()
    drawn = series.draw("train/loss")
    assert drawn.points.last.tolist() == [1.0, 2.0] and drawn.total == 5
    assert drawn.marks_x.tolist() == [2, 3, 4] and drawn.points.marks[:, 1].tolist() == [0, 1, -1]
    np.testing.assert_array_equal(series.steps_and_values("train/loss")[1], [1, math.nan, math.inf, -math.inf, 2])
    assert [row[3] for row in csv.reader(io.StringIO(series.table(["train/loss"])))] == [
        *("train/loss", "1.0", "NaN", "Infinity", "-Infinity", "2.0")
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"split": "train", "step": 2}\n', "line 2 is damaged"),
        (b"nonsense\n", "line 2 is damaged"),
        (b'{"split": "train", "step": 9007199254740992, "values": {}}\n', "line 2 is damaged"),
    ],
)
def test_a_damaged_line_is_named(run: tuple[MetricLog, RunSeries, Follower], line: bytes, why: str) -> None:
    log, _, follower = run
    log.append("train", {"loss": 1.0}, step=1, epoch=0)
    with open(log.file.path, "ab") as file:
        file.write(line)
    with pytest.raises(RunError, match=why):
        follower.read()


def test_lines_of_other_programs_are_read_as_the_rest_of_the_house_does(
    run: tuple[MetricLog, RunSeries, Follower],
) -> None:
    log, series, follower = run
    log.file.path.write_bytes(
        b'{"split": "train", "step": 1, "values": {"a": true, "b": null, "c": "high"}, "time": "x", "more": 1}\n'
        b'{"split": "train", "step": 2, "epoch": 0, "values": {"a": 2, "b": "NaN"}}\n'
    )
    follower.read()
    assert series.steps_and_values("train/a")[1].tolist() == [1.0, 2.0]
    assert series.curve("train/b").kinds(0, 2)[0].tolist() == [0, 1]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"split": "train", "step": 1, "values": {"loss": 1}}\n')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read: it is a link"):
        Follower(tmp_path / "run", RunSeries()).read()
    os.remove(tmp_path / "run" / "metrics.jsonl")
    os.mkfifo(tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(RunError, match="no regular file"):
        Follower(tmp_path / "run", RunSeries()).read()


# Axes -----------------------------------------------------------------------------------------------------------------


def many(count: int = 20_000, per_epoch: int = 500) -> RunSeries:
    """Values at steps 1 to `count`, of which the second half took ten times as long."""
    steps = np.arange(1, count + 1)
    times = 1e9 + np.cumsum(np.where(steps > count // 2, 1.0, 0.1))
    series = RunSeries()
    series.add(
        Line("train", step, {"loss": math.sin(step)}, step // per_epoch, time)
        for step, time in zip(steps.tolist(), times.tolist(), strict=True)
    )
    return series


def inside(drawn: Drawn, low: float, high: float) -> NDArray[np.float64]:
    return drawn.x[(drawn.x >= low) & (drawn.x <= high)]


def test_epochs() -> None:
    series = many()
    whole = series.draw("train/loss", "epoch", most=300)
    assert len(whole.x) <= 300 and whole.x[-1] == 40.0 and 0 < whole.x[0] < 0.3
    near = series.draw("train/loss", "epoch", 3.0, 3.1, most=300)
    assert near.points.exact and near.points.steps.tolist() == list(range(1499, 1552))
    np.testing.assert_allclose(near.x, near.points.steps / 500)
    one = RunSeries()
    one.add([Line("train", 10, {"loss": 1.0}, 0, 0.0)])
    assert one.draw("train/loss", "epoch").x.tolist() == [0.0]
    one.axes.batches = 100
    assert one.draw("train/loss", "epoch").x.tolist() == [0.1]


def test_time_has_buckets_of_its_own() -> None:
    series = many()
    drawn = series.draw("train/loss", "time", most=300)
    assert 150 < len(drawn.x) <= 300 and drawn.x[-1] == pytest.approx(11_000 - 0.1)
    assert len(inside(drawn, 1000, 11_000)) > 5 * len(inside(drawn, 0, 1000))  # as they took longer
    near = series.draw("train/loss", "time", 999.0, 1003.0, most=300)
    assert near.points.exact and len(inside(near, 999.0, 1003.0)) == 13
    between = series.draw("train/loss", "time", 5000.2, 5000.8, most=16)
    assert between.x.tolist() == pytest.approx([4999.9, 5000.9], abs=0.01)  # a line leads through


@pytest.mark.parametrize("x", ["step", "epoch", "time"])
def test_a_logarithmic_axis_is_evenly_filled(x: Any) -> None:
    series = many()
    drawn = series.draw("train/loss", x, log_x=True, most=200)
    assert len(drawn.x) <= 200 and np.all(drawn.x > 0) and np.all(np.diff(drawn.x) > 0)
    low, high = math.log2(drawn.x[0]), math.log2(drawn.x[-1])
    last_octaves = np.histogram(np.log2(drawn.x), bins=np.arange(high - 6, high + 0.1))[0]
    assert last_octaves.min() >= 7 and high - low > 12
    values = np.sin(np.arange(1, 20_001))
    assert drawn.points.high.max() == values.max() and drawn.points.low.min() == values.min()
    moved = series.draw("train/loss", x, low=drawn.x[-1] / 8, log_x=True, most=200)
    again = series.draw("train/loss", x, low=drawn.x[-1] / 7.9, log_x=True, most=200)
    shared = np.intersect1d(moved.points.steps, again.points.steps)
    assert len(shared) > 0.9 * len(again.x)


def test_what_is_not_after_zero_has_no_place_on_a_logarithmic_axis() -> None:
    series = RunSeries()
    series.add(Line("train", 0, {"loss": float(index)}, 0, 5.0) for index in range(100))
    for x in ("step", "epoch", "time"):
        assert len(series.draw("train/loss", x, log_x=True, most=50).x) == 0
    with pytest.raises(UsageError, match="finite"):
        series.draw("train/loss", "step", math.inf)


def test_smoothing_is_kept_and_follows() -> None:
    series = many()
    smooth = series.draw("train/loss", smoothing=0.99, most=100)
    assert smooth.points.high[10:].max() < 0.02
    before = series.nbytes
    series.draw("train/loss", smoothing=0.99, most=100)
    assert series.nbytes == before
    series.add([Line("train", 20_001, {"loss": 1e9}, 40, 2e9)])
    assert series.draw("train/loss", smoothing=0.99, most=100).points.high.max() > 1e6


def test_what_was_smoothed_before_a_rewind_is_smoothed_anew() -> None:
    series = many()
    series.draw("train/loss", smoothing=0.99, most=100)
    series.rewind(6000)
    series.add(Line("train", step, {"loss": 7.0}, 20, 2e9) for step in range(6001, 20_001))
    again = RunSeries()
    again.add(Line("train", step, {"loss": math.sin(step)}, 0, 0.0) for step in range(1, 6001))
    again.add(Line("train", step, {"loss": 7.0}, 0, 0.0) for step in range(6001, 20_001))
    first, second = (one.draw("train/loss", smoothing=0.99, most=100).points for one in (series, again))
    np.testing.assert_allclose(first.last, second.last)
    np.testing.assert_allclose(first.high, second.high)


# Rewinds --------------------------------------------------------------------------------------------------------------


def test_a_rewind_cuts_and_keeps_what_was_lost() -> None:
    series = many(1000)
    series.add([Line("validation", 1000, {"psnr": math.nan}, 2, 3e9)])
    series.draw("train/loss", smoothing=0.9)
    series.rewind(600)
    assert series.steps_and_values("train/loss")[0][-1] == 600 and "validation/psnr" not in series.keys
    assert series.newest == {"train/loss": math.sin(600)} and series.lost == {1: (601, 1000)}
    lost = series.draw("lost/train/loss")
    assert lost.points.steps.tolist() == list(range(601, 1001)) and lost.points.last[0] == math.sin(601)
    assert math.isnan(series.steps_and_values("lost/validation/psnr")[1][0])
    series.add(Line("train", step, {"loss": 7.0}, 1, 4e9) for step in range(601, 701))
    series.rewind(650)
    assert series.draw("lost/train/loss").points.last.tolist() == [7.0] * 50
    assert len(series.curve("lost/1/train/loss")) == 400 and len(series.curve("lost/2/train/loss")) == 50
    assert series.lost == {1: (601, 1000), 2: (651, 700)}
    for nothing in ("lost/3/train/loss", "lost/0/train/loss", "lost/validation/other", "lost/", "lost/²/train/loss"):
        assert len(series.curve(nothing)) == 0
    assert series.draw("train/loss", "epoch").x[-1] == pytest.approx(650 / 500)
    assert "lost/train/loss" in series.keys
    series.rewind(650)
    assert len(series.lost) == 2  # nothing was given up


def test_a_line_that_goes_back_gives_up_what_was_after() -> None:
    series = many(100)
    series.add([Line("train", 40, {"loss": 5.0}, 0, 2e9), Line("train", 41, {"loss": 6.0}, 0, 2e9)])
    assert series.steps_and_values("train/loss")[0].tolist() == list(range(1, 42))
    assert series.lost == {1: (40, 100)}


def test_only_the_newest_stretches_are_kept() -> None:
    series = RunSeries()
    for _ in range(30):
        series.add([Line("train", 1, {"loss": 1.0}, 0, 0.0), Line("train", 2, {"loss": 1.0}, 0, 0.0)])
        series.rewind(0)
    assert list(series.lost) == list(range(11, 31)) and len(series.curve("lost/30/train/loss")) == 2
    assert len(series.curve("lost/5/train/loss")) == 0


# A table --------------------------------------------------------------------------------------------------------------


def test_a_table_has_every_value_and_is_no_program() -> None:
    series = RunSeries()
    series.add(
        [
            Line("train", 10, {"loss": 0.1, "=cmd()": 1.0}, 0, 100.0),
            Line("train", 10, {"loss": 0.2}, 0, 100.5),
            Line("train", 20, {"loss": 0.3, "=cmd()": 3.0}, 1, 101.0),
            Line("validation", 20, {"psnr, dB": 1e-7}, 1, 101.5),
        ]
    )
    text = series.table(["train/loss", "train/=cmd()", "validation/psnr, dB"])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [
        ["step", "epoch", "time", "train/loss", "train/=cmd()", "validation/psnr, dB"],
        ["10", "0.5", "100.000", "0.1", "1.0", ""],
        ["10", "0.5", "100.500", "0.2", "", ""],
        ["20", "1", "101.000", "0.3", "3.0", "1e-07"],
    ]
    assert series.table(["train/loss"], 1).splitlines()[1:] == ["20,1,101.000,0.3"]
    first = RunSeries()
    first.add([Line("=x", 1, {"y": 1.0}, 0, 0.0)])
    assert first.table(["=x/y"]).splitlines()[0].endswith(",'=x/y")


def test_metrics_that_are_logged_now_and_then() -> None:
    series = RunSeries()
    for step in range(1, 1001):
        values = {"loss": float(step)} | ({"norm": -float(step)} if step % 7 == 0 else {})
        series.add([Line("train", step, values, 0, float(step))])
    assert series.steps_and_values("train/norm")[0].tolist() == list(range(7, 1001, 7))
    assert series.draw("train/norm", "time", 69.0, 78.0, most=50).x.tolist() == [62.0, 69.0, 76.0, 83.0]
    series.rewind(500)
    assert series.newest == {"train/loss": 500.0, "train/norm": -497.0}
    assert len(series.curve("lost/train/norm")) == 142 - 71
    series.add([Line("train", 501, {"norm": 1.0}, 0, 501.0)])
    assert series.steps_and_values("train/norm")[0][-2:].tolist() == [497, 501]
