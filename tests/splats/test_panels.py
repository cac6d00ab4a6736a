from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from treadle.cameras.capture import Capture
from treadle.cameras.procedural import procedural_capture
from treadle.images.display import write_png
from treadle.splats.panels import around, growth, shown_depth, small_camera


def test_near_is_bright_and_a_stray_splat_darkens_nothing() -> None:
    depth = torch.linspace(2, 3, 200).repeat(100, 1)
    shown = shown_depth(depth, torch.ones(100, 200)).astype(int).sum(2)
    assert (np.diff(shown[0]) <= 0).all() and shown[0, 0] > shown[0, -1] + 300
    stray = depth.clone()
    stray[0, 0] = 1e4
    assert abs(shown_depth(stray, torch.ones(100, 200)).astype(int).sum(2) - shown)[1:].max() < 40
    covered = torch.ones(100, 200)
    covered[:, 50:] = 0.4
    assert not shown_depth(depth, covered)[:, 50:].any() and not shown_depth(depth, covered * 0).any()


def test_pictures_that_move_are_small() -> None:
    camera = procedural_capture(800, 1, 0).train.cameras[0]
    assert small_camera(camera).size == (256, 256)
    assert small_camera(camera.resized(100, 50)).size == (100, 50)
    assert small_camera(camera.resized(1000, 10)).size == (256, 3)


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


def test_a_turntable_goes_around_what_the_cameras_look_at_if_they_do() -> None:
    capture = procedural_capture(16, 8, 0)
    centers = np.stack([camera.center for camera in around(capture, 12)])
    assert len(centers) == 12 and np.allclose(np.linalg.norm(centers, axis=1), 3, atol=0.2)
    assert around(capture, 0) == []

    class Outward:
        cameras = [replace(camera, world_to_camera=np.diag([-1.0, 1, -1, 1]) @ camera.world_to_camera)
                   for camera in capture.train.cameras]  # fmt: skip

    assert around(Capture(Outward(), Outward(), Outward()), 12) == []
