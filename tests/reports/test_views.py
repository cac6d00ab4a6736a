from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from treadle.cameras.camera import Camera
from treadle.cameras.rays import rays
from treadle.errors import UsageError
from treadle.reports.views import (
    MOST_CAMERAS,
    CameraView,
    FunctionView,
    LiveView,
    Option,
    Window,
    as_view,
    camera_of,
    chosen,
    described,
    numbers_of,
    tile,
    zooming,
)

POSE = np.array([[0.0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 3], [0, 0, 0, 1]])


class Slices(LiveView):
    title = "Slices"

    def options(self) -> Sequence[Option]:
        return (
            Option("axis", "Axis", "choice", "z", choices=("x", "y", "z")),
            Option("at", "Position, mm", "range", 0.0, low=-1, high=1, step=0.1),
            Option("lines", "Isolines", "switch", True),
        )

    def size(self) -> tuple[int, int]:
        return 40, 30

    def inspect(self, window: Window, x: int, y: int) -> dict[str, float | str]:
        return {"x": x}


def test_what_is_not_chosen_has_its_default() -> None:
    assert chosen(Slices().options(), {}) == {"axis": "z", "at": 0.0, "lines": True}
    assert chosen(Slices().options(), {"axis": "x", "at": -1}) == {"axis": "x", "at": -1, "lines": True}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"axsi": "x"}, "the view has no option 'axsi'; did you mean 'axis'?"),
        ({"axis": "w"}, "option 'axis' has no choice 'w'; known: x, y, z"),
        ({"axis": 1.0}, "option 'axis' has no choice 1.0; known: x, y, z"),
        ({"at": 1.5}, "option 'at' is 1.5: expected -1 to 1"),
        ({"at": math.nan}, "option 'at' is nan: expected -1 to 1"),
        ({"at": "0"}, "option 'at' is '0': expected -1 to 1"),
        ({"at": True}, "option 'at' is True: expected -1 to 1"),
        ({"lines": 1.0}, "option 'lines' is 1.0: expected true or false"),
    ],
)
def test_what_a_view_does_not_take_is_refused_in_a_line(given: Any, says: str) -> None:
    with pytest.raises(UsageError) as error:
        chosen(Slices().options(), given)
    assert str(error.value) == says


def test_a_plain_function_is_a_view() -> None:
    asked = []

    def red(window: Window) -> Any:
        asked.append(window)
        return np.zeros((2, 3, 3))

    view, window = as_view("red", red), Window(8, 8, (0, 0, 8, 8))
    assert isinstance(view, FunctionView) and view.whole
    assert view.draw(window).shape == (2, 3, 3) and asked == [window]
    found = as_view("mine", lambda window: np.arange(6.0).reshape(2, 3)).inspect(Window(30, 20, (0, 0, 30, 20)), 29, 10)
    assert found == {"column": 2, "row": 1, "value": 5.0}
    own = Slices()
    assert as_view("slices", own) is own


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.zeros(3), "views(): 'a' is ndarray"), (Slices, "views(): 'a' is the class Slices: make one of it")],
)
def test_what_is_no_view_is_refused_by_name(value: Any, says: str) -> None:
    with pytest.raises(UsageError, match="expected a LiveView, or a function of a Window") as error:
        as_view("a", value)
    assert str(error.value).startswith(says)


def test_a_page_is_told_of_a_view_in_plain_data() -> None:
    told = described("slices", Slices())
    assert json.loads(json.dumps(told))["size"] == [40, 30]
    assert told["title"] == "Slices" and told["kind"] == "flat" and told["cameras"] == [] and told["has"] == ["inspect"]
    assert told["laid_over"] == []
    assert told["options"][1] == {
        "name": "at", "label": "Position, mm", "kind": "range", "default": 0.0, "choices": (), "low": -1, "high": 1,
        "step": 0.1,
    }  # fmt: skip


def test_of_very_many_cameras_a_page_is_told_some() -> None:
    cameras = [Camera(40, 20, 30, 30, 20, 10, POSE, f"{number}") for number in range(2000)]
    told = described("scene", CameraView(lambda camera: np.zeros((20, 40)), cameras))["cameras"]
    assert len(told) == MOST_CAMERAS and told[0]["name"] == "0" and told[-1]["name"] == "1999"
    assert told[0]["aspect"] == 2


def test_a_camera_survives_the_way_to_the_page_and_back() -> None:
    camera = Camera(40, 30, 36, 33, 20, 15, POSE)
    numbers = numbers_of(camera)
    assert len(numbers) == 18 and numbers[:2] == [36 / 30, 33 / 30]
    back = camera_of(numbers, 80, 60)
    assert back.intrinsics == (72, 66, 40, 30) and np.array_equal(back.world_to_camera, POSE)


@pytest.mark.parametrize("change", [lambda n: n[:17], lambda n: [0.0, *n[1:]], lambda n: [*n[:2], 2.0, *n[3:]]])
def test_what_is_no_camera_is_refused(change: Any) -> None:
    with pytest.raises(UsageError, match="camera"):
        camera_of(change(numbers_of(Camera(40, 30, 36, 33, 20, 15, POSE))), 40, 30)


def test_rays_of_a_part_are_those_of_the_whole() -> None:
    camera = Camera(40, 30, 36, 33, 20, 15, POSE)
    window = Window(40, 30, (7, 11, 29, 16), camera)
    assert window.size == (22, 5) and window.seen_from.size == (22, 5)
    for part, whole in zip(rays(window.seen_from), rays(camera), strict=True):
        assert np.array_equal(part, whole[11:16, 7:29])
    with pytest.raises(UsageError, match="has no camera"):
        _ = Window(40, 30, (0, 0, 1, 1)).seen_from


def test_a_function_of_a_camera_is_a_view_in_space() -> None:
    camera = Camera(40, 30, 36, 33, 20, 15, POSE)
    view = CameraView(lambda camera: rays(camera)[1], [camera])
    assert view.kind == "space" and view.cameras() == [camera]
    assert np.array_equal(view.draw(Window(40, 30, (0, 2, 40, 4), camera)), rays(camera)[1][2:4])


def test_tiles_cover_a_picture_once() -> None:
    for pixels in (0, 1, 3, 7, 8, 20, 1000):
        seen, done, largest = np.zeros((5, 7), int), 0, 0
        while done < seen.size:
            left, top, right, bottom = tile(7, 5, done, pixels)
            seen[top:bottom, left:right] += 1
            done += (right - left) * (bottom - top)
            largest = max(largest, (right - left) * (bottom - top))
        assert (seen == 1).all() and largest <= max(1, pixels)
    assert tile(7, 5, 0, 20) == (0, 0, 7, 2)  # whole rows
    assert tile(7, 5, 8, 1000) == (1, 1, 7, 2)  # where the one before ended inside of a row


def test_places_are_those_of_the_pixels_that_are_shown() -> None:
    columns, rows = Window(4, 2, (1, 0, 4, 1)).places()
    assert columns.tolist() == [0.375, 0.625, 0.875] and rows.tolist() == [0.25]
    defaults = {option.name: option.default for option in zooming()}
    assert Window(4, 2, (1, 0, 4, 1), options=defaults).places()[0].tolist() == columns.tolist()
    close, _ = Window(4, 2, (0, 0, 4, 2), options={"zoom": 2.0, "x": 0.75, "y": 0.5}).places()
    assert close.tolist() == [0.5625, 0.6875, 0.8125, 0.9375]
    corner, _ = Window(4, 2, (0, 0, 4, 2), options={"zoom": 2.0, "x": 1.0, "y": 0.5}).places()
    assert corner.tolist() == close.tolist()  # nothing beyond the edge is shown
