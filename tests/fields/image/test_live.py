from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from treadle.fields.image.live import FitView
from treadle.fields.image.tiles import TiledPicture
from treadle.fields.image_trainer import ImageConfig, ImageTrainer
from treadle.images.picture import Picture
from treadle.reports.views import Window, chosen


def picture(channels: int = 3, *, linear: bool = False) -> Picture:
    values = np.random.default_rng(1).random((36, 48, channels)).astype(np.float32)
    return Picture(values * (4 if linear else 1), linear, "noise")


def view_of(target: Any = None, **settings: Any) -> FitView:
    torch.manual_seed(0)
    target = picture() if target is None else target
    config = ImageConfig(levels=3, log2_size=10, hidden=16, **settings)
    model = config.field(target.size, target.channels)
    model.describe(target)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return FitView(model, target)


def window(view: FitView, width: int = 48, height: int = 36, *, moving: bool = False, **given: Any) -> Window:
    return Window(width, height, (0, 0, width, height), None, chosen(view.options(), given), moving)


def drawn(view: FitView, whole: Window, *boxes: tuple[int, int, int, int]) -> Any:
    found = np.zeros((whole.height, whole.width, 3), np.float32)
    with torch.no_grad():
        for left, top, right, bottom in boxes or [whole.box]:
            part = np.asarray(view.draw(replace(whole, box=(left, top, right, bottom))), np.float32)
            found[top:bottom, left:right] = part
    return found


TILES = ((0, 0, 48, 5), (0, 5, 17, 6), (17, 5, 48, 6), (0, 6, 48, 36))


@pytest.mark.parametrize("show", ["fit", "target", "error"])
@pytest.mark.parametrize("given", [{}, {"zoom": 3.0, "x": 0.2, "y": 0.9}, {"level": 1}])
@pytest.mark.parametrize("channels", [1, 4])
def test_tiles_are_the_picture(show: str, given: dict[str, Any], channels: int) -> None:
    view = view_of(picture(channels))
    whole = window(view, show=show, **given)
    assert np.array_equal(drawn(view, whole, *TILES), drawn(view, whole))


def test_tiles_of_sines_are_the_picture() -> None:
    view = view_of(grid="siren")
    whole = window(view)
    assert np.abs(drawn(view, whole, *TILES) - drawn(view, whole)).max() < 1e-4


def test_at_its_own_size_the_fit_is_the_fields_picture_and_the_target_the_target() -> None:
    view = view_of()
    trained, wanted = view.model.picture(), view.picture
    assert np.abs(drawn(view, window(view)) - trained.values).max() < 1e-5
    assert np.array_equal(drawn(view, window(view, show="target")), wanted.values)


def test_the_error_is_black_where_there_is_none_and_its_scale_is_chosen() -> None:
    target = picture()
    view = view_of(target)
    with torch.no_grad():
        fit = view.model.picture().values
    exact = FitView(view.model, Picture(fit, False, "itself"))
    moving = window(exact, show="error", moving=True)
    assert drawn(exact, moving).max() == 0
    bright = [drawn(view, window(view, show="error", moving=True, scale=scale)).mean() for scale in (0.1, 1.0)]
    assert bright[0] > bright[1] > 0
    large = window(view, 400, 300, show="error")
    assert (drawn(view, large) != drawn(view, replace(large, moving=True)))[-18:, :150].any()  # its scale beside it


def test_the_psnr_is_that_of_the_whole_picture() -> None:
    view = view_of()
    whole = window(view)
    assert view.figures(whole) == {}
    drawn(view, whole, *TILES[:3])
    assert view.figures(whole) == {}
    drawn(view, whole, *TILES)
    model, target = view.model, view.picture
    with torch.no_grad():
        error = (model.render(36, 48).reshape(-1, 3) - model.targets(target)).square().mean()
    assert view.figures(whole)["psnr"] == pytest.approx(-10 * float(error.log10()), abs=1e-3)
    larger = window(view, 96, 72)
    drawn(view, larger)
    assert view.figures(larger)["psnr"] == pytest.approx(view.figures(whole)["psnr"], abs=1e-3)
    near = window(view, zoom=2.0)
    drawn(view, near)
    assert list(view.figures(near)) == ["psnr of the part"]
    smooth = window(view, zoom=8.0)
    assert len(np.unique(drawn(view, smooth).reshape(-1, 3), axis=0)) > 100 and view.figures(smooth) == {}
    assert view.figures(window(view, show="target")) == {}


def test_levels_are_those_of_the_grid_up_to_the_chosen_one() -> None:
    view = view_of()
    pictures = [drawn(view, window(view, level=level)) for level in (0, 1, 2)]
    assert np.array_equal(pictures[2], drawn(view, window(view)))
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[1], pictures[2])
    assert "level" not in {option.name for option in view_of(grid="siren").options()}


@pytest.mark.parametrize("linear", [False, True])
def test_the_inspector_has_the_exact_values(linear: bool) -> None:
    target = picture(linear=linear)
    view = view_of(target)
    with torch.no_grad():
        told = view.inspect(window(view), 7, 30)
        fit = view.model.picture().values[30, 7]
    assert (told["column"], told["row"]) == (7, 30)
    assert [told[f"target: {name}"] for name in ("red", "green", "blue")] == target.values[30, 7].tolist()
    assert [told[f"fit: {name}"] for name in ("red", "green", "blue")] == pytest.approx(fit.tolist(), abs=1e-4)
    with torch.no_grad():
        near = view.inspect(window(view, zoom=4.0, x=1.0, y=1.0), 47, 35)
    assert (near["column"], near["row"]) == (47, 35)


def test_a_tiled_picture_looks_like_one_in_memory() -> None:
    values = (np.random.default_rng(2).random((130, 70, 3)) * 255).astype(np.uint8)
    tiled = view_of(TiledPicture(values, "large"))
    whole = window(tiled, 70, 130, show="target")
    with torch.no_grad():
        assert np.array_equal(np.round(np.asarray(tiled.draw(whole)) * 255), values)


def test_the_trainer_offers_it() -> None:
    trainer = ImageTrainer(data=picture(), levels=2, log2_size=8, hidden=16, max_steps=1)
    view = trainer.views()["fit"]
    assert view.size() == (48, 36)
    with trainer.evaluating():
        assert view.draw(window(view)).shape == (36, 48, 3)
