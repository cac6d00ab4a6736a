"""The pictures in a run's directory as a view: a slider goes back through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.hooks.examples import Examples
from treadle.images.display import write_png
from treadle.reports.kept_pictures import KeptPictures
from treadle.reports.trainer_views import views_of
from treadle.reports.views import LiveView, Window, chosen
from treadle.testing import Line


class Painter(Line):
    def examples(self) -> dict[str, Any]:
        weight = self.model.weight.detach().sigmoid()
        return {"weight": weight.expand(4, 4), "bias": torch.zeros(2, 2)}


def window(view: LiveView, **given: Any) -> Window:
    return Window(230, 250, (0, 0, 230, 250), None, chosen(view.options(), given))


def shown(view: LiveView, **given: Any) -> tuple[str, int]:
    """The caption, and the value of the middle pixel."""
    asked = window(view, **given)
    return view.cells(asked)[0].name, int(view.draw(asked)[130, 115, 0])


def test_a_slider_goes_back_through_the_pictures_of_a_run(line: Callable[..., Line], tmp_path: Path) -> None:
    trainer = line(Painter, run_dir=tmp_path / "run", hooks=[Examples("2 steps")], max_epochs=2)
    view = views_of(trainer)["kept"]
    assert [option.name for option in view.options()] == ["when", "zoom", "x", "y"]
    assert shown(view)[0] == "none was made yet"
    values = {}
    while trainer.iterate():
        values[trainer.progress.step] = int(trainer.model.weight.detach().sigmoid() * 255 + 0.5)
    which, when, *_ = view.options()
    assert (which.choices, when.low, when.high, when.default) == (("bias", "weight"), 0.0, 1.0, 1.0)
    assert shown(view, picture="weight") == ("step 6", values[6])
    assert shown(view, picture="weight", when=0.9) == shown(view, picture="weight", when=0.67) == ("step 4", values[4])
    assert shown(view, picture="weight", when=0.2)[0] == "none was made yet"
    assert shown(view, picture="bias", when=0.4) == ("step 2", 0)
    assert len(set(values.values())) > 3


def test_pictures_of_a_way_that_was_given_up_are_not_shown(tmp_path: Path) -> None:
    for step in (1, 3):
        write_png(tmp_path / f"step-{step:08d}-a.png", np.full((4, 4), 50 * step, np.uint8))
    reached = [3]
    view = KeptPictures(tmp_path, lambda: reached[0])
    assert shown(view) == ("step 3", 150)
    cells = view.shown(window(view))
    reached[0] = 4
    assert view.shown(window(view)) is cells  # a step without a picture reads no file
    reached[0] = 2
    assert shown(view) == ("step 1", 50)


def test_links_and_other_files_are_left_alone_and_damage_is_named(tmp_path: Path) -> None:
    write_png(tmp_path / "secret.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "step-00000001-a.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "examples" / "step-x-a.png").write_bytes(b"")
    view = KeptPictures(tmp_path / "examples", lambda: 5)
    assert shown(view)[0] == "none was made yet" and view.files() == {}
    (tmp_path / "examples" / "step-00000002-a.png").write_bytes(b"no picture")
    assert "step-00000002-a.png" in shown(view)[0]


@pytest.mark.parametrize("on_disk", [False, True])
def test_only_a_run_on_disk_that_makes_pictures_has_them(
    line: Callable[..., Line], tmp_path: Path, on_disk: bool
) -> None:
    given = {"run_dir": tmp_path / "run"} if on_disk else {}
    assert ("kept" in views_of(line(Painter, **given))) is on_disk
    assert "kept" not in views_of(line(**({"run_dir": tmp_path / "other"} if on_disk else {})))
