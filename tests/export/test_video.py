"""Videos of a view that is known: what is in the frames, in which files, and depth on one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.export.look import View
from treadle.export.video import write_video


def cameras(count: int = 5, width: int = 24) -> list[Camera]:
    found = []
    for number in range(count):
        pose = np.eye(4)
        pose[2, 3] = number
        found.append(Camera(width, 16, 20.0, 20.0, width / 2, 8.0, pose))
    return found


def look(camera: Camera) -> View:
    """A wall at depth 2 + the camera's number in the upper half, redder in each frame; nothing in the lower."""
    depth = 2 + float(camera.world_to_camera[2, 3])
    alpha = torch.zeros(camera.height, camera.width)
    alpha[: camera.height // 2] = 1
    image = torch.zeros(camera.height, camera.width, 3)
    image[: camera.height // 2, :, 0] = (depth - 1) / 6
    return View(image, depth * alpha, alpha)


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as file:
        found = []
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            found.append(np.asarray(file.convert("RGB")))
        assert file.info["loop"] == 0
        return found


def test_colours_and_depth_stand_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    assert write_video(path, look, cameras(), fps=10) == [path]
    found = frames(path)
    assert len(found) == 5 and found[0].shape == (16, 48, 3)
    for number, frame in enumerate(found):
        assert frame[2, 5].tolist() == [int((1 + number) / 6 * 255 + 0.5), 0, 0] and not frame[12].any()
    brightness = [int(frame[2, 30].astype(int).sum()) for frame in found]
    assert brightness == sorted(brightness, reverse=True), "near is bright, and the scale is one"
    assert brightness[0] > 700 and brightness[4] < 200 and not found[0][12].any()


def test_they_may_go_into_two_files_or_one(tmp_path: Path) -> None:
    together = tmp_path / "x.gif"
    write_video(together, look, cameras())
    paths = write_video(tmp_path / "y.gif", look, cameras(), depth="apart")
    assert paths == [tmp_path / "y.gif", tmp_path / "y-depth.gif"]
    for both, color, below in zip(frames(together), frames(paths[0]), frames(paths[1]), strict=True):
        assert np.abs(np.hstack([color, below]).astype(int) - both).max() <= 4
    assert write_video(tmp_path / "z.gif", look, cameras(), depth="none") == [tmp_path / "z.gif"]
    assert (frames(tmp_path / "z.gif")[3] == frames(paths[0])[3]).all() and len(list(tmp_path.iterdir())) == 4


def test_mp4_by_its_ending(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    write_video(tmp_path / "x.MP4", look, cameras(7), fps=25)
    with av.open(str(tmp_path / "x.MP4")) as file:
        found = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == 25
    assert len(found) == 7 and found[0].shape == (16, 48, 3)


def test_nothing_to_see_is_black(tmp_path: Path) -> None:
    def nothing(camera: Camera) -> View:
        shape = (camera.height, camera.width)
        return View(torch.zeros(*shape, 3), torch.zeros(shape), torch.zeros(shape))

    write_video(tmp_path / "x.gif", nothing, cameras(2))
    assert not any(frame.any() for frame in frames(tmp_path / "x.gif"))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    for call, said in [
        (lambda: write_video(tmp_path / "x.avi", look, cameras()), r"ends in \.mp4 or \.gif"),
        (lambda: write_video(tmp_path / "x.gif", look, cameras(), depth="behind"), "--depth behind: expected beside"),
        (lambda: write_video(tmp_path / "x.gif", look, []), "one frame at least"),
        (lambda: write_video(tmp_path / "x.gif", look, cameras(), fps=100), "up to 50 frames per second"),
        (lambda: write_video(tmp_path / "x.gif", look, cameras(2) + cameras(1, 30)), "differs in size"),
    ]:
        with pytest.raises(UsageError, match=said):
            call()
    assert not list(tmp_path.iterdir())
