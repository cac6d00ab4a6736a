from __future__ import annotations

from dataclasses import replace

import numpy as np

from treadle.cameras.capture import Capture
from treadle.cameras.procedural import procedural_capture
from treadle.cameras.turntable import around, small_camera


def test_pictures_that_move_are_small() -> None:
    camera = procedural_capture(800, 1, 0).train.cameras[0]
    assert small_camera(camera).size == (256, 256)
    assert small_camera(camera.resized(100, 50)).size == (100, 50)
    assert small_camera(camera.resized(1000, 10)).size == (256, 3)


def test_a_turntable_goes_around_what_the_cameras_look_at_if_they_do() -> None:
    capture = procedural_capture(16, 8, 0)
    centers = np.stack([camera.center for camera in around(capture, 12)])
    assert len(centers) == 12 and np.allclose(np.linalg.norm(centers, axis=1), 3, atol=0.2)
    assert around(capture, 0) == []

    class Outward:
        cameras = [replace(camera, world_to_camera=np.diag([-1.0, 1, -1, 1]) @ camera.world_to_camera)
                   for camera in capture.train.cameras]  # fmt: skip

    assert around(Capture(Outward(), Outward(), Outward()), 12) == []
