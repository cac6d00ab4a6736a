"""What is to be shown stays bounded, whole and in order; what is given up is counted."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from treadle.sinks.services import visdom_windows
from treadle.sinks.services.visdom_windows import Board, Card, Line, Plot, place_for


def picture(size: int, value: int = 0) -> Any:
    return np.full((size, size, 1), value, dtype=np.uint8)


def lines_of(board: Board, key: str) -> dict[str, tuple[list[int], list[float | None]]]:
    taken = board.take(key)
    assert taken is not None
    data = [json.loads(text) for text in taken[0].data()]
    return {line["name"]: (line["x"], line["y"]) for line in data}


def send_all(board: Board) -> list[str]:
    keys = board.changed()
    for key in keys:
        taken = board.take(key)
        assert taken is not None
        board.sent(key, taken[1])
    return keys


@given(st.lists(st.integers(1, 300), max_size=12))
def test_a_line_is_bounded_even_and_ends_with_its_newest_point(counts: list[int]) -> None:
    line, step = Line(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visdom_windows, "POINTS", 8)
        for count in counts:
            for _ in range(count):
                step += 1
                line.add(step, step / 2)
        steps, values = line.points()
    assert len(steps) <= 9 and values == [at / 2 for at in steps]
    if counts:
        assert steps[0] == 1 and steps[-1] == step
        gaps = {second - first for first, second in itertools.pairwise(steps[:-1])}
        assert gaps <= {line.stride} and (step <= 8) == (line.stride == 1)


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 40))
def test_a_line_that_was_cut_goes_on_without_a_point_twice(before: int, kept: int, after: int) -> None:
    line = Line()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visdom_windows, "POINTS", 8)
        for step in range(1, before + 1):
            line.add(step, 0.0)
        line.cut(kept)
        assert all(step <= kept for step in line.points()[0])
        for step in range(kept + 1, kept + 1 + after):
            line.add(step, 1.0)
    steps, values = line.points()
    assert steps == sorted(set(steps)) and len(steps) <= 9
    assert all((step > kept) == (value == 1.0) for step, value in zip(steps, values, strict=True))
    assert not after or steps[-1] == kept + after


def test_what_is_not_finite_is_a_gap() -> None:
    board = Board()
    for step, value in enumerate((1.0, math.nan, math.inf, 2.0)):
        board.add_scalars(step, {"loss": value}, "train")
    assert lines_of(board, "plot losses") == {"loss": ([0, 1, 2, 3], [1.0, None, None, 2.0])}


@pytest.mark.parametrize(
    ("name", "split", "place"),
    [
        ("loss", "train", ("losses", "loss")),
        ("loss", "validation", ("losses", "loss (validation)")),
        ("l1", "epoch", ("losses", "l1 (epoch)")),
        ("l1.weight", "train", ("weights", "l1")),
        ("lr", "train", ("learning rates", "lr")),
        ("generator.lr.base", "train", ("learning rates", "generator.lr.base")),
        ("psnr", "train", ("psnr", "train")),
        ("psnr", "validation", ("psnr", "validation")),
        ("blr", "test", ("blr", "test")),
    ],
)
def test_where_a_metric_is_shown(name: str, split: str, place: tuple[str, str]) -> None:
    assert place_for(name, split, {"l1"}) == place


def test_terms_are_known_by_their_weights_also_where_these_are_not_logged() -> None:
    board = Board()
    board.add_scalars(2, {"l1": 0.5, "l1.weight": 100.0, "psnr": 20.0}, "train")
    board.add_scalars(4, {"l1": 0.6, "psnr": 19.0}, "validation")
    assert lines_of(board, "plot losses") == {"l1": ([2], [0.5]), "l1 (validation)": ([4], [0.6])}
    assert lines_of(board, "plot weights") == {"l1": ([2], [100.0])}
    assert lines_of(board, "plot psnr") == {"train": ([2], [20.0]), "validation": ([4], [19.0])}


def test_epoch_means_are_a_line_where_no_finer_one_is() -> None:
    board = Board()
    board.add_scalars(4, {"loss": 1.0, "psnr": 2.0}, "epoch")
    assert list(lines_of(board, "plot losses")) == ["loss (epoch)"]
    board.add_scalars(4, {"loss": 1.0, "psnr": 2.0}, "train")
    assert list(lines_of(board, "plot losses")) == ["loss"]
    assert list(lines_of(board, "plot psnr")) == ["epoch", "train"]


def test_points_left_out_are_said_below_the_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visdom_windows, "POINTS", 8)
    plot = Plot("psnr")
    plot.lines["train"] = Line()
    for step in range(20):
        plot.lines["train"].add(step, 0.0)
        label = plot.frame()["layout"]["xaxis"]["title"]["text"]
        assert label == ("step" if step < 8 else f"step (one point of {2 if step < 16 else 4} is shown)")


def test_only_the_state_that_was_sent_counts_as_sent() -> None:
    board = Board()
    board.add_scalars(1, {"loss": 1.0}, "train")
    taken = board.take("plot losses")
    assert taken is not None
    board.add_scalars(2, {"loss": 2.0}, "train")  # while it is under way
    board.sent("plot losses", taken[1])
    assert board.changed() == ["plot losses"]
    assert [json.loads(text)["x"] for text in taken[0].data()] == [[1]]  # and what is under way stays as it was
    assert send_all(board) == ["plot losses"] and board.changed() == [] and board.take("plot losses") is None
    board.mark_all()
    assert board.changed() == ["plot losses"]


def test_a_picture_is_shown_in_place_of_the_last_and_counted_where_that_was_not_sent() -> None:
    board = Board()
    for step in range(5):
        board.add_card("picture", Card(step, "fit", picture(4, step)))
    assert send_all(board) == ["picture fit"]
    board.add_card("picture", Card(5, "fit", picture(4, 5)))
    assert board.take_counts() == (1, {"pictures replaced before they were sent": 4})
    assert board.take_counts() == (1, {})
    taken = board.take("picture fit")
    assert taken is not None and taken[0].frame()["opts"] == {"title": "fit, step 5", "width": 256, "height": 256}
    (data,) = (json.loads(text) for text in taken[0].data())
    head, _, content = data["content"]["src"].partition(",")
    assert data["type"] == "image" and head == "data:image/png;base64"
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).tolist() == picture(4, 5)[:, :, 0].tolist()


@pytest.mark.parametrize(
    ("shape", "size"), [((16, 8), (256, 128)), ((300, 500), (300, 500)), ((1000, 4000), (256, 1024))]
)
def test_a_picture_has_a_size_that_can_be_seen(shape: tuple[int, int], size: tuple[int, int]) -> None:
    opts = Card(1, "fit", np.zeros((*shape, 3), dtype=np.uint8)).frame()["opts"]
    assert (opts["height"], opts["width"]) == size


def test_texts_cannot_be_code() -> None:
    (text,) = Card(1, "note", "a <script>b</script>\n  c").data()
    content = json.loads(text)["content"]
    assert "<script>" not in content and "a &lt;script&gt;b&lt;/script&gt;\n  c" in content


def test_pictures_and_texts_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visdom_windows, "CARD_BYTES", 1000)
    board = Board()
    for name in "abc":
        board.add_card("picture", Card(1, name, picture(20)))  # 400 bytes each
    assert board.changed() == ["picture b", "picture c"]
    board.add_card("picture", Card(1, "large", picture(32)))
    board.add_card("text", Card(1, "note", "x" * 100))
    assert board.changed() == ["picture c", "text note"]
    send_all(board)
    board.add_card("text", Card(2, "other", "x" * 100))  # the oldest goes, but it is shown there
    counts = {"pictures and texts given up for newer ones": 2, "pictures too many or too large": 1}
    assert board.take_counts() == (1, counts)


def test_lines_and_windows_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visdom_windows, "LINES", 4)
    monkeypatch.setattr(visdom_windows, "WINDOWS", 3)
    board = Board()
    for step in (1, 2):
        board.add_scalars(step, dict.fromkeys("abcd", 0.0), "train")
    board.add_scalars(2, dict.fromkeys("ab", 0.0), "validation")
    board.add_card("text", Card(1, "note", "x"))
    assert board.changed() == ["plot a", "plot b", "plot c"]
    assert list(lines_of(board, "plot a")) == ["train", "validation"]
    assert list(lines_of(board, "plot b")) == ["train"]
    assert board.take_counts()[1] == {"points of too many lines": 3, "texts too many or too large": 1}
