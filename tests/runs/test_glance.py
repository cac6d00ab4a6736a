"""A long metric log is looked at, not read: its end, stretches of it, and whatever is unlike the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from treadle import RunError
from treadle.runs import glance as module
from treadle.runs.aside import create_run
from treadle.runs.compare import compare, describe
from treadle.runs.glance import glance, glance_series, last_line
from treadle.runs.metrics import METRICS, all_series, metric_lines, parse_line
from treadle.runs.plot import losses

STEPS = 20_000


def write(run: Path, steps: int, odd: int = 0) -> Path:
    """A log of so many training lines; one in 500 is followed by a validation, the `odd`-th has a metric of its own."""
    with open(run / METRICS, "w") as file:
        for step in range(1, steps + 1):
            line = {"split": "train", "step": step, "epoch": step // 500, "time": 1.5e9 + step / 7}
            values = {"loss": 1 / step, "lr": 0.1} | ({"seldom": 7.0} if step == odd else {})
            file.write(json.dumps(line | {"values": values}) + "\n")
            if step % 500 == 0:
                values = {"loss": 2 / step, "psnr": 20.0 + step}
                file.write(json.dumps(line | {"split": "validation", "values": values}) + "\n")
    return run


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the lines that are parsed; blocks are small, so that a short log is a long one."""
    counted: list[int] = []

    def counting(path: Path, number: int, line: bytes) -> object:
        counted.append(number)
        return parse_line(path, number, line)

    monkeypatch.setattr(module, "parse_line", counting)
    monkeypatch.setattr(module, "SHORT", 1 << 16)
    monkeypatch.setattr(module, "BLOCK", 1 << 15)
    monkeypatch.setattr(module, "PIECE", 1 << 14)
    return counted


def test_a_short_log_is_read_in_full(tmp_path: Path) -> None:
    assert list(glance(tmp_path)) == [] and last_line(tmp_path) == {}
    write(tmp_path, 1500)
    assert list(glance(tmp_path)) == list(metric_lines(tmp_path / METRICS))


def test_of_a_long_log_a_part_is_read_and_no_kind_of_line_is_missed(tmp_path: Path, parsed: list[int]) -> None:
    write(tmp_path, STEPS, odd=12_345)
    seen, whole = glance_series(tmp_path), all_series(tmp_path)
    assert len(parsed) < STEPS / 15 and len(parsed) == len(set(parsed)) and parsed == sorted(parsed)
    assert seen.keys() == whole.keys()
    for name in ("validation/loss", "validation/psnr", "train/seldom"):
        np.testing.assert_array_equal(seen[name], whole[name])
    steps, values = seen["train/loss"]
    np.testing.assert_array_equal(values, 1 / steps)
    assert steps[0] == 1 and steps[-1] == STEPS and np.diff(steps).max() < STEPS / 50


def test_its_parts_do_not_grow_with_it(tmp_path: Path, parsed: list[int]) -> None:
    counts = []
    for steps in (STEPS, 2 * STEPS):
        parsed.clear()
        list(glance(write(tmp_path, steps)))
        counts.append(len(parsed))
    assert counts[1] < 1.3 * counts[0]


def test_where_all_lines_are_unlike_the_others_some_are_taken_from_everywhere(
    tmp_path: Path, parsed: list[int]
) -> None:
    write(tmp_path, STEPS)
    text = (tmp_path / METRICS).read_text().replace('"train"', '"validation"')
    (tmp_path / METRICS).write_text(text)
    steps, _ = glance_series(tmp_path)["validation/loss"]
    assert len(parsed) < STEPS / 15 and np.diff(steps).max() < STEPS / 50 and steps[-1] == STEPS


def test_the_table_reads_the_end_alone(tmp_path: Path, parsed: list[int]) -> None:
    run = create_run(tmp_path / "v001").path
    write(run, STEPS)
    with open(run / METRICS, "r+b") as file:
        file.write(b"?")  # nobody comes to see it
    info = describe(run)
    assert (info.step, info.epoch, info.problem) == (STEPS, STEPS // 500, "") and len(parsed) == 1
    with open(run / METRICS, "ab") as file:
        file.write(b'{"split": "train", "step": 99')  # torn
    assert describe(run).step == STEPS
    with open(run / METRICS, "ab") as file:
        file.write(b"\n")
    assert "line the last is damaged" in describe(run).problem


def test_a_line_longer_than_what_is_read_at_first_is_found(tmp_path: Path) -> None:
    line = {"split": "train", "step": 3, "epoch": 0, "values": {f"{number:09}": 1.0 for number in range(50_000)}}
    (tmp_path / METRICS).write_text(json.dumps(line) + "\n")
    assert last_line(tmp_path) == line
    (tmp_path / METRICS).write_text((json.dumps(line) + "\n") * 3)
    assert last_line(tmp_path) == line and len(list(glance(tmp_path))) == 3


def test_a_damaged_line_that_comes_into_view_is_named(tmp_path: Path) -> None:
    write(tmp_path, 10)
    for damage in ('{"split": "train"}', "[]", "[" * 10_000, '{"split": "a", "step": 1e3, "values": {}}', "\udcff"):
        with open(tmp_path / METRICS, "ab") as file:
            file.write(damage.encode(errors="surrogateescape") + b"\n")
        for read in (lambda: list(glance(tmp_path)), lambda: all_series(tmp_path)):
            with pytest.raises(RunError, match=r"metrics\.jsonl, line 11 is damaged: .*delete it to read the rest"):
                read()
        write(tmp_path, 10)


def test_a_run_is_drawn_from_one_look_and_two_are_compared_by_one_each(tmp_path: Path, parsed: list[int]) -> None:
    runs = [write(create_run(tmp_path / "runs").path, STEPS) for _ in range(2)]
    assert [curve.metric for curve in losses(runs[0])] == ["train/loss", "validation/loss", "validation/psnr"]
    assert len(parsed) < STEPS / 15
    parsed.clear()
    comparison = compare(runs)
    assert [info.values["train/loss"] for info in comparison.runs] == [1 / STEPS] * 2
    assert len(parsed) < 2 * STEPS / 15


def test_looking_at_runs_does_without_torch(tmp_path: Path) -> None:
    write(create_run(tmp_path / "runs" / "v001").path, 10)
    (tmp_path / "runs" / "v001" / "config.yaml").write_text("trainer: line\n")
    code = (
        "import sys; from treadle.cli.main import main; code = main(['runs', 'runs/v001'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train/loss" in done.stdout
