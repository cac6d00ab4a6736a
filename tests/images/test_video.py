"""GIF and MP4 files, read back: every frame, how long it lasts, its colours; whole or not at all."""

from __future__ import annotations

import os
import resource
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from treadle.errors import RunError, UsageError
from treadle.images.video import write_gif, write_mp4

av = pytest.importorskip("av", reason="PyAV is not installed")

Writer = Callable[..., int]
WRITERS: list[tuple[Writer, str]] = [(write_gif, "moving.gif"), (write_mp4, "moving.mp4")]


def waves(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture in colour that moves to the right."""
    rows, columns = np.indices((height, width))
    shifted = columns - 3 * number
    return np.stack([128 + 100 * np.sin(shifted / 9 + k) * np.cos(rows / (7 + k)) for k in range(3)], 2).astype(
        np.uint8
    )


def frames_of_gif(path: Path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as image:
        frames, durations = [], []
        for index in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return frames, durations


def frames_of_mp4(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_a_gif_has_the_frames_and_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    assert write_gif(path, (waves(number) for number in range(24)), 24) == 24
    frames, durations = frames_of_gif(path)
    assert len(frames) == 24
    assert sum(durations) == 1000 and set(durations) == {40, 50}
    for number, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - waves(number)).mean() < 6  # 256 colours
        assert np.abs(frame.astype(int) - waves(number + 2)).mean() > 12
    with Image.open(path) as image:
        assert image.info["loop"] == 0  # for ever


def test_a_gif_of_few_colours_or_of_grays_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (200, 3), dtype=np.uint8)
    colours = [palette[rng.integers(0, 200, (20, 30))] for _ in range(4)]
    grays = [rng.integers(0, 256, (20, 30), dtype=np.uint8) for _ in range(4)]
    for given in (colours, grays):
        write_gif(tmp_path / "exact.gif", given)
        for frame, expected in zip(frames_of_gif(tmp_path / "exact.gif")[0], given, strict=True):
            np.testing.assert_array_equal(frame, np.broadcast_to(np.atleast_3d(expected), (20, 30, 3)))


def test_an_mp4_has_the_frames_at_their_rate_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "moving.mp4"
    assert write_mp4(path, (waves(number) for number in range(30)), 12.5) == 30
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.average_rate == 12.5 and float(stream.duration * stream.time_base) == pytest.approx(2.4)
        assert (stream.width, stream.height, stream.codec_context.name) == (64, 48, "h264")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.colorspace == stream.codec_context.color_trc == 1  # BT.709, said and done
    frames = frames_of_mp4(path)
    assert len(frames) == 30
    for number, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - waves(number)).mean() < 4
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # so that it plays while it comes


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)])
def test_colours_of_an_mp4_are_those_given(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    write_mp4(tmp_path / "flat.mp4", [np.full((16, 16, 3), colour, np.uint8)] * 3)
    np.testing.assert_allclose(frames_of_mp4(tmp_path / "flat.mp4")[1][8, 8], colour, atol=4)


def test_odd_sides_of_an_mp4_are_continued(tmp_path: Path) -> None:
    write_mp4(tmp_path / "odd.mp4", [waves(0, 47, 63)] * 2, quality=5)
    frame = frames_of_mp4(tmp_path / "odd.mp4")[0]
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame[:47, :63].astype(int) - waves(0, 47, 63)).mean() < 3
    assert np.abs(frame[47, :63].astype(int) - waves(0, 47, 63)[46]).mean() < 6


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_frames_are_whatever_can_be_shown_and_taken_one_at_a_time(tmp_path: Path, write: Writer, name: str) -> None:
    kinds = [np.full((16, 16), 0.5), np.full((16, 16, 4), 255, np.uint8), np.ones((16, 16, 1), np.float32)]
    assert write(tmp_path / name, kinds) == 3
    made: list[weakref.ref[np.ndarray]] = []

    def frames() -> Iterator[np.ndarray]:
        for number in range(20):
            frame = waves(number, 16, 16)
            assert sum(reference() is not None for reference in made) <= 2
            made.append(weakref.ref(frame))
            yield frame

    assert write(tmp_path / name, frames()) == len(made) == 20


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_refusals_leave_what_was_there(tmp_path: Path, write: Writer, name: str) -> None:
    path = tmp_path / name
    write(path, [waves(0)])
    before = path.read_bytes()

    def failing() -> Iterator[np.ndarray]:
        yield waves(0)
        raise FileNotFoundError(2, "no such frame", "17.png")

    for frames, kind, message in (
        ([], UsageError, "one frame at least"),
        ([waves(0), waves(0, 48, 66)], UsageError, r"frame 1 of a video .*: 64 x 48 and 66 x 48 pixels"),
        ([np.zeros((4, 4, 7))], UsageError, "cannot be shown"),
        (failing(), FileNotFoundError, "no such frame"),
    ):
        with pytest.raises(kind, match=message):
            write(path, frames)
    for rate in (0, -1, float("nan"), 1e6):
        with pytest.raises(UsageError, match="fps is"):
            write(path, [waves(0)], rate)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_a_disk_that_refuses_is_named(tmp_path: Path, write: Writer, name: str) -> None:
    with pytest.raises(RunError, match=r"cannot write .*away.*: No such file"):
        write(tmp_path / "away" / name, [waves(0)])
    rng = np.random.default_rng(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError, match="File too large; make room") as caught:
            write(tmp_path / name, (rng.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(60)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_the_quality_of_an_mp4(tmp_path: Path) -> None:
    for quality in (5, 40):
        write_mp4(tmp_path / f"{quality}.mp4", [waves(number) for number in range(5)], quality=quality)
    assert (tmp_path / "5.mp4").stat().st_size > 1.5 * (tmp_path / "40.mp4").stat().st_size
    with pytest.raises(UsageError, match="quality is 52"):
        write_mp4(tmp_path / "x.mp4", [waves(0)], quality=52)


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'treadle\[video\]'"):
        write_mp4(tmp_path / "x.mp4", [waves(0)])
    assert write_gif(tmp_path / "x.gif", [waves(0)]) == 1
