from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from treadle.images.display import write_png
from treadle.reports.growth import growth


def test_growth_shows_the_pictures_in_the_order_of_steps(tmp_path: Path) -> None:
    assert growth(tmp_path / "a.gif", tmp_path) is None
    for step in (900, 1000, 20):
        write_png(tmp_path / f"step-{step:08d}-view.png", np.full((8, 8, 3), step % 256, np.uint8))
    write_png(tmp_path / "step-00000500-view.png", np.zeros((4, 4, 3), np.uint8))  # of another size
    write_png(tmp_path / "step-00000600-other.png", np.zeros((8, 8, 3), np.uint8))
    assert growth(tmp_path / "a.gif", tmp_path) == tmp_path / "a.gif"
    with Image.open(tmp_path / "a.gif") as picture:
        levels = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            levels.append(picture.convert("RGB").getpixel((4, 4))[0])
    assert levels == [20, 900 % 256, 1000 % 256]
