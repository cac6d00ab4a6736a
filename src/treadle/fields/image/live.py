"""Live views of a fit: the picture that a field is, the one it should be, and how they differ, from near and afar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.fields.decoder import decoded
from treadle.fields.image.picture_field import PictureField
from treadle.fields.image.tiles import TiledPicture, numbers_of
from treadle.images.display import to_display
from treadle.images.heat import heat, scale_bar, stamped
from treadle.images.metrics import psnr_of
from treadle.images.picture import CHANNELS, Array, Picture
from treadle.reports.views import LiveView, Option, Value, Window, values_at, zooming

Places = NDArray[np.float64]

CHUNK = 65536
"""Points that are asked for at a time."""
WINDOWS = 4
"""Windows of which errors are kept, for their figures: as many as a page has panes."""
BETWEEN = 4
"""Pixels of a window that lie within one of the picture, along its width, from which on the fit is smooth."""

_BOARD = 16  # pixels after which the checkerboard behind what is transparent begins anew


class FitView(LiveView):
    """A picture field beside its picture.

    Args:
        model: the field.
        picture: what it is fitted to.
    """

    title = "Fit, target and error"

    def __init__(self, model: PictureField, picture: Picture | TiledPicture) -> None:
        self.model, self.picture = model, picture
        self._errors: dict[Any, NDArray[np.float32]] = {}

    def options(self) -> Sequence[Option]:
        """What is shown, up to which level of the grid, where the scale of errors ends, and which part."""
        finest = self.model.grid.levels - 1
        levels = (Option("level", "Finest level", "range", finest, low=0, high=finest, step=1),) if finest > 0 else ()
        return (
            Option("show", "Picture", "choice", "fit", ("fit", "target", "error")),
            *levels,
            Option("scale", "Largest error shown", "range", 0.1, low=0.01, high=1.0, step=0.01),
            *zooming(256.0),
        )

    def size(self) -> tuple[int, int]:
        """That of the picture."""
        height, width = self.picture.size
        return width, height

    def draw(self, window: Window) -> Any:
        """Fit, target or error in the window's box; where it is smaller than the picture, at points of that."""
        x, y = window.places()
        show = window.options["show"]
        wanted, encoded = self._wanted(x, y)
        if show == "target":
            return self._display(wanted, window)
        # A pixel of the picture is compared at its centre, wherever within it the window's pixel lies.
        if between := show == "fit" and self._goes_between(window):
            output = self._output(x, y, window.options)
        else:
            output = self._output(*self._centres(x, y), window.options)
        if not between:
            self._keep(window, output, encoded)
        fit = self.model.values(output)
        if show == "fit":
            return self._display(fit, window)
        apart = np.abs(self._display(fit, window) - self._display(wanted, window)).mean(2)
        end = float(window.options["scale"])
        shown = (heat(apart / end) * 255 + 0.5).astype(np.uint8)
        if window.moving:
            return shown
        return stamped(shown, window.box, window.height, scale_bar("0", f"{end:g} mean |error|"))

    def figures(self, window: Window) -> Mapping[str, float]:
        """The PSNR of what was drawn: "psnr" where that is all of the picture (at points, where the window has fewer
        pixels), else "psnr of the part"; none where the fit is shown between pixels."""
        errors = self._errors.get(_key(window))
        if window.options["show"] == "target" or errors is None or np.isnan(errors).any():
            return {}
        name = "psnr" if float(window.options["zoom"]) == 1 else "psnr of the part"
        return {name: psnr_of(float(errors.mean(dtype=np.float64)))}

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """The picture's pixel there, and the exact values of fit and target."""
        columns, rows = Window(window.width, window.height, (x, y, x + 1, y + 1), options=window.options).places()
        wanted, encoded = self._wanted(columns, rows)
        output = self._output(*self._centres(columns, rows), window.options)
        height, width = self.picture.size
        told: dict[str, float | str] = {"column": int(columns[0] * width), "row": int(rows[0] * height)}
        for name, values in (("fit", self.model.values(output)), ("target", wanted)):
            told |= {f"{name}: {channel}": value for channel, value in values_at(values, 0, 0).items()}
        return told | {"squared error": float((output.cpu() - encoded).square().mean())}

    def _output(self, x: NDArray[np.float64], y: NDArray[np.float64], options: Mapping[str, Value]) -> Tensor:
        """What the field gives at these columns (w,) and rows (h,), shares of the picture: (h, w, channels)."""
        model = self.model
        places = np.stack(np.meshgrid(2 * x - 1, 2 * y - 1), -1).reshape(-1, 2).astype(np.float32)
        level = int(options.get("level", model.grid.levels - 1))
        lod = level if level < model.grid.levels - 1 else None
        points = torch.from_numpy(places).to(model.size.device)
        found = [decoded(model.grid, model.decoder, some, lod).float() for some in points.split(CHUNK)]
        return torch.cat(found).reshape(len(y), len(x), -1)

    def _goes_between(self, window: Window) -> bool:
        """Whether a pixel of the picture has so many of the window that the field between pixels is to be seen."""
        return window.width * float(window.options["zoom"]) > BETWEEN * self.picture.size[1]

    def _centres(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The centres of the pixels of the picture in which these columns and rows lie."""
        height, width = self.picture.size
        x, y = ((np.floor(at * size).clip(0, size - 1) + 0.5) / size for at, size in ((x, width), (y, height)))
        return x, y

    def _wanted(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Array, Tensor]:
        """The nearest pixels of the picture (h, w, channels): their values, and what the field is to give for them."""
        (height, width), picture = self.picture.size, self.picture
        columns, rows = (
            (x * width).astype(np.int64).clip(0, width - 1),
            (y * height).astype(np.int64).clip(0, height - 1),
        )
        if isinstance(picture, TiledPicture):
            down, across = np.meshgrid(rows, columns, indexing="ij")
            numbers = numbers_of(down, across, picture.size)
            values = picture.values(numbers.reshape(-1)).reshape(len(y), len(x), -1)
        else:
            values = np.ascontiguousarray(picture.values[np.ix_(rows, columns)])
        return values, self.model.encode(torch.from_numpy(values))

    def _display(self, values: Array, window: Window) -> NDArray[np.float32]:
        """Values for the eye; a checkerboard behind them lies as in the whole picture."""
        if CHANNELS[values.shape[2]] != "RGBA":
            return to_display(values, linear=self.model.linear)
        left, top = window.box[0] % _BOARD, window.box[1] % _BOARD
        wider = np.pad(values, ((top, 0), (left, 0), (0, 0)))
        return to_display(wider, linear=self.model.linear)[top:, left:]

    def _keep(self, window: Window, output: Tensor, encoded: Tensor) -> None:
        """Keep the squared errors of a part that is drawn, until all parts are there."""
        key = _key(window)
        errors = self._errors.pop(key, None)
        if errors is None:
            errors = np.full((window.height, window.width), np.nan, np.float32)
            while len(self._errors) >= WINDOWS:
                del self._errors[next(iter(self._errors))]
        left, top, right, bottom = window.box
        errors[top:bottom, left:right] = (output.cpu() - encoded).square().mean(2).numpy()
        self._errors[key] = errors


def _key(window: Window) -> Any:
    """What the errors of a window depend on."""
    chosen = {name: value for name, value in window.options.items() if name not in ("show", "scale")}
    return window.width, window.height, tuple(sorted(chosen.items()))
