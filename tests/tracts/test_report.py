"""What a run leaves to be looked at: tracked lines with scores, judged lines with their errors as TRK, and rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tracts import SMALL, data
from torch import Tensor

from treadle.tracts.data import PhantomSubject, ground_of
from treadle.tracts.files import read_streamlines
from treadle.tracts.judging import Judged
from treadle.tracts.phantom import make_phantom
from treadle.tracts.report import histogram, report_tracking, rows_of, write_judged
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.tracking.baselines import Peaks
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.trainer import TractsTrainer

SPACE = Space(np.diag([2.0, 1.0, 1.0, 1.0]), (12, 12, 5))


def judged(lines: int = 3, points: int = 4, subjects: tuple[int, ...] = (0, 0, 1)) -> Judged:
    """Lines along x at y = 1, 2, ...; point p of line k is off by 0.01 (10 k + p)."""
    p = lines * points
    places = np.float32([[1 + at, 1 + line, 2] for line in range(lines) for at in range(points)])
    angle = np.float32([0.01 * (10 * line + at) for line in range(lines) for at in range(points)])
    first = np.arange(p) % points == 0
    return Judged(
        offsets=np.arange(lines + 1) * points,
        lines=np.arange(lines),
        subject=np.array(subjects),
        points=places,
        targets=np.tile(np.float32([2, 0, 0]), (p, 1)),
        angle=angle,
        loss=3 * angle,
        copying=np.where(first, np.nan, 0.5).astype(np.float32),
        principal=np.full(p, 0.2, np.float32),
        end=np.zeros(p, np.float32),
        last=np.zeros(p, bool),
    )


def test_judged_lines_are_read_back_from_trk_with_the_errors_of_each_point(tmp_path: Path) -> None:
    write_judged(tmp_path, judged(), [SPACE, SPACE], ["a", "b"])
    lines, space = read_streamlines(tmp_path / "a.trk")
    assert space.same(SPACE) and lines.offsets.tolist() == [0, 5, 10]
    assert np.allclose(lines[1], [[1 + at, 2, 2] for at in range(5)], atol=1e-5)
    expected = [0.00, 0.01, 0.02, 0.03, 0.03, 0.10, 0.11, 0.12, 0.13, 0.13]  # the last point has the last step's
    assert lines.per_point["angle"][:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert lines.per_point["loss"][:, 0].tolist() == pytest.approx([3 * value for value in expected], abs=1e-6)
    assert lines.per_line["angle"][:, 0].tolist() == pytest.approx([0.015, 0.115], abs=1e-6)
    other, _ = read_streamlines(tmp_path / "b.trk")
    assert other.per_line["angle"][:, 0].tolist() == pytest.approx([0.215], abs=1e-6)


def test_the_best_and_the_worst_of_all_come_in_their_order(tmp_path: Path) -> None:
    many = judged(120, 4, (0,) * 100 + (1,) * 20)
    write_judged(tmp_path, many, [SPACE, SPACE], ["a", "b"])
    wrong = {}
    for name in ("a-best", "a-worst", "b-best", "b-worst"):
        lines = read_streamlines(tmp_path / f"{name}.trk")[0]
        wrong[name] = lines.per_line["angle"][:, 0].tolist() if len(lines) else []
    assert [len(values) for values in wrong.values()] == [50, 30, 0, 20]
    assert wrong["a-best"] == pytest.approx([0.1 * k + 0.015 for k in range(50)], abs=1e-5)
    assert wrong["a-worst"] == pytest.approx([0.1 * k + 0.015 for k in range(99, 69, -1)], abs=1e-5)
    assert wrong["b-worst"] == pytest.approx([0.1 * k + 0.015 for k in range(119, 99, -1)], abs=1e-5)


def test_a_row_has_the_figures_and_pictures_of_its_lines_alone() -> None:
    found = judged()
    groups = {"a": found.subject == 0, "nobody": np.zeros(3, bool), "b": found.subject == 1}
    rows = list(rows_of(found, [SPACE, SPACE], groups))
    assert [row.name for row in rows] == ["a", "b"]
    assert rows[0].metrics["angle"] == pytest.approx(np.mean([0.01, 0.02, 0.03, 0.11, 0.12, 0.13]))
    assert rows[1].metrics["angle"] == pytest.approx(0.22) and rows[1].metrics["copying"] == 0.5
    for row in rows:
        assert list(row.pictures) == ["error", "histogram"]
        for picture in row.pictures.values():
            assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert not np.array_equal(rows[0].pictures["error"], rows[1].pictures["error"])


def test_a_histogram_has_a_curve_for_each_figure_that_is_known() -> None:
    found = judged()
    colors = {"angle": (240, 96, 64), "copying": (120, 120, 132), "principal": (72, 150, 235)}

    def drawn(judged: Judged) -> dict[str, int]:
        sheet = histogram(judged, np.ones(3, bool))
        assert sheet.shape == (260, 420, 3)
        return {name: int((sheet == color).all(axis=2).sum()) for name, color in colors.items()}

    both = drawn(found)
    assert min(both.values()) > 300
    without = Judged(**vars(found) | {"principal": np.full(12, np.nan, np.float32)})
    assert drawn(without)["principal"] == 0 and drawn(without)["copying"] > 300


def test_tracks_of_a_phantom_are_scored_and_drawn(tmp_path: Path) -> None:
    phantom = make_phantom(3, lines=10, spacing=1.0)
    given = phantom.subject("phantom-3")
    one = PhantomSubject(given.name, given.space, given.given_volumes, given.given_lines, phantom=phantom)
    found = report_tracking(
        tmp_path,
        Peaks(phantom.ordered_peaks),
        phantom.space,
        ground_of(one, "input", "streamlines"),
        TrackingSettings(step=1.0, total=200),
        real=phantom.streamlines,
        behind=one.volume("input")[..., 0],
        seed=1,
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert found["VB"] == scores["VB"] == 3  # the true directions find every bundle
    assert found["VS_ratio"] == scores["VS_ratio"] > 0.5 and found["mean_OL"] > 0.3
    lines, space = read_streamlines(tmp_path / "tracks.trk")
    assert len(lines) == found["lines"] == scores["total_streamlines"] > 100 and space.same(phantom.space)
    assert (tmp_path / "tracks.png").stat().st_size > 5000


def test_a_test_report_has_a_row_per_bundle_and_a_page_and_writes_the_lines(tmp_path: Path) -> None:
    class Told(TractsTrainer):
        """Says the previous direction, whatever it sees."""

        def judge(self, feed: Any) -> Judged:
            class Copy(torch.nn.Module):
                model, getter = self.model.model, self.model.getter

                def forward(self, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
                    return previous

            real, self.model = self.model, Copy()
            try:
                return super().judge(feed)
            finally:
                self.model = real

    trainer = Told(data=data(), max_epochs=1, **SMALL)
    directory = tmp_path / "runs" / "v001" / "test"
    directory.mkdir(parents=True)
    found = trainer.test_report(directory, trainer.test_feed)
    assert found["lines"] == 9 and found["angle"] == pytest.approx(found["copying"], rel=1e-4)
    # Arcs by steps of 2 mm that keep their length: 1 - cos(2 / r), r from 8 to 20 mm.
    assert 1 - np.cos(2 / 20) < found["copying"] < 1 - np.cos(2 / 8)
    table = json.loads((directory / "table.json").read_text())
    names = sorted(row["name"] for row in table["rows"])
    assert names == ["bundle 0", "bundle 1", "bundle 2"]
    few = Told(data=data(), max_epochs=1, limit_test_batches=1, **{**SMALL, "batch_size": 1})
    assert few.test_report(tmp_path / "few" / "v001" / "test", few.test_feed)["lines"] == 1
    assert "Test of runs/v001" in (directory / "index.html").read_text()
    lines, _ = read_streamlines(directory / "four.trk")
    real = data().testing[0].streamlines("fibres")
    assert len(lines) == 9 and isinstance(lines, Streamlines)
    for number in range(9):  # in the order that they are in in the data, from end to end
        assert np.allclose(lines[number][[0, -1]], real[number][[0, -1]], atol=1e-4)
