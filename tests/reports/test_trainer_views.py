"""Live views of a trainer that nobody wrote any for, and those that are one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.reports.trainer_views import ExamplesView, as_picture, standing_of, views_of
from treadle.reports.views import LiveView, Window
from treadle.testing import Line

rng = np.random.default_rng(0)
GRAY = rng.random((6, 8)).astype(np.float32)
RGB = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def window(width: int = 300, height: int = 200, box: tuple[int, int, int, int] | None = None, **options: Any) -> Window:
    return Window(width, height, box or (0, 0, width, height), None, options)


class Painter(Line):
    """Shows a picture of each kind that a picture can be of."""

    calls = 0

    def examples(self) -> dict[str, Any]:
        Painter.calls += 1
        weight = float(self.model.weight.detach().sigmoid())
        return {
            "gray": GRAY,
            "rgb": RGB,
            "tensor": torch.full((6, 8, 1), weight, dtype=torch.bfloat16),
            "mask": torch.from_numpy(GRAY > 0.5),
            "transparent": np.concatenate([RGB, RGB[..., :1]], axis=2),
            "double": GRAY.astype(np.float64)[..., None],
        }


def shown(view: LiveView, chosen: str) -> np.ndarray:
    """A picture of 8 x 6 in a window that has it twice as large, with a border of 3."""
    return view.draw(window(16 + 6, 12 + 6, show=chosen))[3:-3, 3:-3]


def test_examples_are_a_view_without_a_line_of_code(line: Callable[..., Line]) -> None:
    Painter.calls = 0
    views = views_of(line(Painter))
    assert list(views) == ["examples"]
    view = views["examples"]
    assert len(view.options()) == 3 and Painter.calls == 0  # nothing is made because somebody asks what can be chosen
    view.prepare(window())
    option, *zoom = view.options()
    assert [each.name for each in zoom] == ["zoom", "x", "y"]
    assert option.choices == ("all", "gray", "rgb", "tensor", "mask", "transparent", "double")
    assert option.default == "all"
    twice = np.repeat(np.repeat(RGB, 2, 0), 2, 1)
    np.testing.assert_array_equal(shown(view, "rgb"), twice)
    gray = np.repeat(np.repeat((GRAY * 255 + 0.5).astype(np.uint8), 2, 0), 2, 1)
    for name in ("gray", "double"):
        np.testing.assert_array_equal(shown(view, name), np.stack([gray] * 3, 2))
    np.testing.assert_array_equal(shown(view, "mask")[::2, ::2, 0], 255 * (GRAY > 0.5))
    assert len(np.unique(shown(view, "tensor"))) == 1
    assert shown(view, "transparent").std() > 0
    assert (view.draw(window(show="all")) != view.draw(window(show="rgb"))).any()


def test_examples_are_made_once_for_each_state(line: Callable[..., Line]) -> None:
    trainer = line(Painter, max_epochs=4, snapshot_every="1 step", keep_snapshots=5)
    view = views_of(trainer)["examples"]
    Painter.calls = 0
    with trainer.evaluating():
        for box in ((0, 0, 150, 200), (150, 0, 300, 200)):
            view.draw(window(box=box))
        view.options(), view.draw(window(show="tensor")), view.inspect(window(show="tensor"), 150, 100)
        assert Painter.calls == 1
    before = view.draw(window(show="tensor"))
    trainer.iterate()
    after = view.draw(window(show="tensor"))
    assert Painter.calls == 2 and (before != after).any()
    trainer.iterate()
    trainer.iterate()
    third = view.draw(window(show="tensor"))
    trainer.rewind(1)
    np.testing.assert_array_equal(view.draw(window(show="tensor")), after)
    trainer.commands.lr_multiplier(100.0)
    trainer.iterate()
    trainer.iterate()  # the same step as `third`, on another way there
    assert trainer.progress.step == 3
    assert (view.draw(window(show="tensor")) != third).any()


def test_tiles_are_parts_of_the_whole(line: Callable[..., Line]) -> None:
    view = views_of(line(Painter))["examples"]
    for options in ({"show": "all"}, {"show": "rgb"}, {"show": "all", "zoom": 3.7, "x": 0.3, "y": 0.8}):
        whole = view.draw(window(**options))
        tiles = np.empty_like(whole)
        for left, top in ((0, 0), (170, 0), (0, 90), (170, 90)):
            right, bottom = min(300, left + 170), min(200, top + 110)
            tiles[top:bottom, left:right] = view.draw(window(box=(left, top, right, bottom), **options))
        np.testing.assert_array_equal(tiles, whole)
        assert whole.shape == (200, 300, 3) and whole.dtype == np.uint8


def test_the_numbers_under_a_pixel_are_those_of_the_picture(line: Callable[..., Line]) -> None:
    view = views_of(line(Painter))["examples"]
    asked = window(16 + 6, 12 + 6, show="rgb")
    found = dict(view.inspect(asked, 3 + 2 * 5 + 1, 3 + 2 * 4))
    red, green, blue = RGB[4, 5].tolist()
    assert found == {"picture": "", "column": 5, "row": 4, "red": red, "green": green, "blue": blue}
    assert view.inspect(window(16 + 6, 12 + 6, show="gray"), 4, 4)["value"] == pytest.approx(float(GRAY[0, 0]), abs=0)
    assert view.inspect(asked, 1, 1) == {}  # on the border
    close = window(16 + 6, 12 + 6, show="rgb", zoom=4.0, x=0.5, y=0.5)
    found = view.inspect(close, 11, 9)
    assert (found["column"], found["row"]) == (4, 3)
    assert view.draw(close)[9, 11].tolist() == [found["red"], found["green"], found["blue"]] == RGB[3, 4].tolist()
    everything = window(900, 300, show="all")
    names = {view.inspect(everything, x, y).get("picture") for x in range(0, 900, 20) for y in range(0, 300, 20)}
    assert names - {None} == {"gray", "rgb", "tensor", "mask", "transparent", "double"}


# A user's own trainer: what follows are the fifteen lines that a view takes -----------------------------------------


class Fit(Line):
    def views(self) -> dict[str, Any]:
        return {"fit": self.curve}

    def curve(self, window: Window) -> np.ndarray:
        self.asked = window.width, window.height
        x = torch.linspace(-1, 1, window.width)[:, None]
        y = self.model(x)[:, 0].clamp(-4, 4)
        picture = np.ones((window.height, window.width), np.float32)
        rows = ((4 - y) / 8 * (window.height - 1)).round().long().numpy()
        picture[rows, np.arange(window.width)] = 0
        return picture


def test_a_function_in_views_is_a_view(line: Callable[..., Line]) -> None:
    trainer = line(Fit)
    trainer.train()
    views = views_of(trainer)
    assert list(views) == ["fit"]
    with trainer.evaluating():
        drawn = views["fit"].draw(window(120, 90))
        told = views["fit"].inspect(window(120, 90), 0, 0)
    assert trainer.asked == (120, 90) and told == {"column": 0, "row": 0, "value": 1.0}
    dark = np.argwhere(drawn == 0)
    assert dark[dark[:, 1].argmin(), 0] > dark[dark[:, 1].argmax(), 0]  # 3 x + 1 rises


def test_a_view_of_ones_own_stands_beside_the_examples(line: Callable[..., Line]) -> None:
    class Both(Painter):
        def views(self) -> dict[str, Any]:
            return {"mine": Mine()}

    class Mine(LiveView):
        def draw(self, window: Window) -> np.ndarray:
            return np.zeros((window.height, window.width), np.uint8)

    assert list(views_of(line(Both))) == ["mine", "examples"]


@pytest.mark.parametrize(
    ("views", "why"),
    [
        ([], "Wrong.views() returned a list: return a dict of name to view"),
        ({"a": 3}, "'a' is int; expected a LiveView, or a function of a Window"),
        ({"": print}, "a name is text that is not empty"),
    ],
)
def test_what_is_no_view_is_refused(line: Callable[..., Line], views: Any, why: str) -> None:
    class Wrong(Line):
        def views(self) -> Any:
            return views

    with pytest.raises(UsageError, match=why.replace("(", "\\(").replace(")", "\\)")):
        views_of(line(Wrong))


def test_a_trainer_without_pictures_has_no_view(line: Callable[..., Line]) -> None:
    assert views_of(line()) == {}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ([GRAY], "examples() returned a list"),
        ({}, "examples() returned no picture"),
        ({"bad": np.zeros((2, 2, 5), np.uint8)}, "picture 'bad' has shape (2, 2, 5)"),
        ({"bad": np.zeros((2, 2), np.int64)}, "picture 'bad' has dtype int64"),
        ({"bad": None}, "picture 'bad' has shape ()"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(made: Any, why: str) -> None:
    view = ExamplesView(lambda: made, lambda: 0)
    with pytest.raises(UsageError) as caught:
        view.draw(window())
    assert why in str(caught.value)


def test_values_that_are_no_numbers_are_black() -> None:
    picture = as_picture(torch.tensor([[float("nan"), float("inf"), 0.5]]), "x")
    drawn = ExamplesView(lambda: {"x": picture}, lambda: 0).draw(window(9, 7))
    assert sorted(np.unique(drawn[3])) == [0, 24, 25, 29, 128, 255]


def test_looking_changes_no_bit_of_the_run(line: Callable[..., Line]) -> None:
    class Drawn(Painter):
        def examples(self) -> dict[str, Any]:
            torch.rand(3), self.model.train()
            return super().examples()

    looked, alone = line(Drawn), line(Painter)
    view = views_of(looked)["examples"]
    drawn = [looked.commands.call(lambda: view.draw(window()))]
    while looked.iterate():
        drawn.append(looked.commands.call(lambda: view.draw(window())))
    assert all(picture.result().shape == (200, 300, 3) for picture in drawn)
    alone.train()
    assert looked.digest() == alone.digest()


def test_the_state_is_another_after_whatever_may_change_weights(line: Callable[..., Line]) -> None:
    trainer = line(max_epochs=3)
    seen = {standing_of(trainer)}
    trainer.iterate()
    seen.add(standing_of(trainer))
    trainer.commands.call(lambda: trainer.model.weight.data.zero_(), edits="zero")
    trainer.commands.pause()
    trainer.iterate()
    seen.add(standing_of(trainer))
    assert len(seen) == 3
