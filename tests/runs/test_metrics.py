"""The metric log: lines, series, rewinding."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from treadle.errors import RunError
from treadle.runs import metrics
from treadle.runs.metrics import MetricLog, read_metrics, series


def test_lines_and_series(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    for epoch in range(3):
        log.append("train", {"loss": 1.0 / (epoch + 1), "lr": 0.1}, step=10 * epoch + 5, epoch=epoch)
        log.append("epoch", {"loss": 2.0 / (epoch + 1)}, step=10 * epoch + 10, epoch=epoch + 1)
        log.append("validation", {"psnr/db": 20.0 + epoch}, step=10 * epoch + 10, epoch=epoch + 1)
    log.close()
    lines = read_metrics(tmp_path)
    assert [line["split"] for line in lines] == ["train", "epoch", "validation"] * 3
    assert lines[0]["values"] == {"loss": 1.0, "lr": 0.1} and lines[0]["step"] == 5 and lines[0]["epoch"] == 0
    steps, values = series(tmp_path, "loss")
    assert steps.tolist() == [5, 15, 25] and values.tolist() == [1.0, 0.5, 1 / 3]
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == ["epoch.loss.npy", "validation.psnr-db.npy"]
    saved = np.load(tmp_path / "logs" / "epoch.loss.npy", allow_pickle=False)
    assert saved.dtype == np.float64
    np.testing.assert_array_equal(saved, [[10, 2.0], [20, 1.0], [30, 2 / 3]])
    assert series(tmp_path, "none")[0].shape == (0,)


def test_nan_and_inf_are_strict_json_and_read_back(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    log.append("epoch", {"a": math.nan, "b": -math.inf}, step=1, epoch=1)
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["values"] == {"a": "NaN", "b": "-Infinity"}
    values = read_metrics(tmp_path)[0]["values"]
    assert math.isnan(values["a"]) and values["b"] == -math.inf
    assert np.load(tmp_path / "logs" / "epoch.b.npy")[0, 1] == -math.inf


def test_names_cannot_escape_and_do_not_collide(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    log = MetricLog(run)
    log.append("epoch", {"../../evil": 1.0, "/etc/x": 2.0, "a/b": 3.0, "a-b": 4.0, "A/b": 5.0}, step=1, epoch=1)
    log.close()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    names = sorted(p.name for p in (run / "logs").iterdir())
    assert len(names) == 5
    assert sorted(float(np.load(run / "logs" / name)[0, 1]) for name in names) == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_rewind_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    for step in (10, 20, 30, 40):
        log.append("train", {"loss": float(step)}, step=step, epoch=0)
        log.append("validation", {"loss": float(step)}, step=step, epoch=0)
    log.rewind(20)
    log.append("validation", {"loss": -1.0}, step=30, epoch=0)
    log.close()
    assert [(line["split"], line["step"]) for line in read_metrics(tmp_path)] == [
        ("train", 10), ("validation", 10), ("train", 20), ("validation", 20), ("validation", 30),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "logs" / "validation.loss.npy"), [[10, 10], [20, 20], [30, -1]])


def test_a_continued_run_keeps_its_series(tmp_path: Path) -> None:
    first = MetricLog(tmp_path)
    first.append("epoch", {"loss": 1.0}, step=1, epoch=1)
    first.close()
    second = MetricLog(tmp_path)
    second.append("epoch", {"loss": 2.0}, step=2, epoch=2)
    second.close()
    np.testing.assert_array_equal(np.load(tmp_path / "logs" / "epoch.loss.npy"), [[1, 1], [2, 2]])


def test_series_cost_is_linear_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    original = metrics.write_whole

    def counting(path: Path, content: bytes) -> None:
        nonlocal written
        written += len(content)
        original(path, content)

    monkeypatch.setattr(metrics, "write_whole", counting)
    monkeypatch.setattr(metrics, "SERIES_PERIOD", 0.0)
    log = MetricLog(tmp_path)
    for epoch in range(2000):
        log.append("epoch", {"loss": 1.0}, step=epoch, epoch=epoch)
    log.close()
    assert np.load(tmp_path / "logs" / "epoch.loss.npy").shape == (2000, 2)
    assert written < 20 * 2000 * 16  # each rewritten in full would be 2000 * 2000 * 16 / 2


def test_no_series_is_written_where_a_link_leads(tmp_path: Path) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine"
    run.mkdir()
    mine.mkdir()
    (run / "logs").symlink_to(mine)
    with pytest.raises(RunError, match=r"cannot write .*run/logs: it is a link: put what it leads to in its place"):
        MetricLog(run).append("epoch", {"loss": 1.0}, step=1, epoch=1)
    assert list(mine.iterdir()) == []


def test_series_are_written_once_a_second_at_most_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("treadle.runs.metrics.time.monotonic", lambda: now[0])
    log = MetricLog(tmp_path)
    path = tmp_path / "logs" / "epoch.loss.npy"
    lengths = []
    for epoch in range(1, 9):
        log.append("epoch", {"loss": 1.0}, step=epoch, epoch=epoch)
        lengths.append(len(np.load(path)))
        now[0] += 0.4
    assert lengths == [1, 1, 1, 4, 4, 4, 7, 7]
    log.close()
    assert len(np.load(path)) == 8
    log.append("test", {"loss": 2.0}, step=8, epoch=8)
    log.append("test", {"loss": 3.0}, step=8, epoch=8)
    assert len(np.load(tmp_path / "logs" / "test.loss.npy")) == 2
