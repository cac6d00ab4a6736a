"""Pictures that move: GIF and MP4 files, written frame by frame, each file whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.errors import RunError, UsageError
from treadle.files import write_whole
from treadle.images.display import to_display, to_uint8
from treadle.images.reading import Pixels

if TYPE_CHECKING:
    from PIL import Image

FASTEST_GIF = 50
"""Frames per second: browsers show GIFs that ask for more at 10."""

_BT709, _LIMITED = 1, 1
"""FFmpeg's numbers for the colours of HD, and for levels from 16 to 235."""


def write_gif(path: str | Path, frames: Iterable[Any], fps: float = 20) -> int:
    """Write frames as a GIF that plays for ever; returns how many there were.

    Each frame has its own palette of 256 colours: what has no more is shown exactly. A GIF counts in hundredths of a
    second, so frames differ in how long they last by one, and all together last as long as they should.

    Args:
        path: the file.
        frames: pictures of one size, as `to_display` takes them; taken one at a time.
        fps: frames per second, up to 50.

    Raises:
        UsageError: no frames, frames of different sizes, a rate out of range.
        RunError: the disk refuses the file. In both cases `path` is as it was.
    """
    if not 0 < fps <= FASTEST_GIF:
        raise UsageError(f"fps is {fps}: a GIF has more than 0 and up to {FASTEST_GIF} frames per second")
    count = 0

    def images() -> Iterator[Image.Image]:
        nonlocal count
        for picture in _same_size(frames):
            yield _with_palette(picture, count, fps)
            count += 1

    rest, content = images(), io.BytesIO()
    next(rest).save(content, "GIF", save_all=True, append_images=rest, loop=0)
    with _writing(Path(path)):
        write_whole(Path(path), content.getvalue())
    return count


def _with_palette(picture: Pixels, number: int, fps: float) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(picture).quantize(256)
    hundredths = round(100 * (number + 1) / fps) - round(100 * number / fps)
    image.info["duration"] = 10 * hundredths
    return image


def write_mp4(path: str | Path, frames: Iterable[Any], fps: float = 30, *, quality: int = 18) -> int:
    """Write frames as an MP4 file (H.264, 4:2:0) that every player and browser shows; returns how many there were.

    H.264 wants even sides: the last row or column of an odd one is repeated.

    Args:
        path: the file.
        frames: pictures of one size, as `to_display` takes them; taken one at a time.
        fps: frames per second.
        quality: x264's constant rate factor, 0 (exact but for colour's resolution) to 51; 18 looks like the original.

    Raises:
        UsageError: no frames, frames of different sizes, settings out of range, PyAV is not installed.
        RunError: the disk refuses the file. In all cases `path` is as it was.
    """
    if not 0 < fps <= 1000:
        raise UsageError(f"fps is {fps}: expected more than 0 and up to 1000 frames per second")
    if not 0 <= quality <= 51:
        raise UsageError(f"quality is {quality}: expected 0 (best) to 51")
    try:
        import av
    except ImportError:
        raise UsageError("writing MP4 needs PyAV: install it with: pip install 'treadle[video]'") from None
    path, pictures, count = Path(path), _same_size(frames), 0
    first = next(pictures)
    with _writing(path):
        folder = TemporaryDirectory(prefix=f".{path.name[:60]}.", dir=path.parent)
    with folder:
        target = Path(folder.name, path.name)
        with _writing(path):
            file = av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"})
        try:
            stream = _h264(file, first.shape[0], first.shape[1], fps, quality)
            for picture in chain([first], pictures):
                frame = _yuv(picture)
                frame.pts, count = count, count + 1
                with _writing(path):
                    file.mux(stream.encode(frame))
            with _writing(path):
                file.mux(stream.encode(None))
                file.close()
        finally:
            with suppress(OSError):  # a disk that refused a frame refuses the end too
                file.close()
        with _writing(path):
            os.replace(target, path)
    return count


def _h264(file: Any, height: int, width: int, fps: float, quality: int) -> Any:
    """A stream of pictures of this size. It says that its colours are those of HD: players guess where nothing is."""
    stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    stream.options = {"crf": str(quality)}
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream


def _yuv(picture: Pixels) -> Any:
    """A picture as a frame of even sides in the colours of HD."""
    import av

    even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(even, "rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)


def _same_size(frames: Iterable[Any]) -> Iterator[Pixels]:
    """The frames, one or more, as RGB in 8 bits, all of the first one's size."""
    pictures = (to_uint8(to_display(np.asarray(frame))) for frame in frames)
    first = next(pictures, None)
    if first is None:
        raise UsageError("a video needs one frame at least")
    for number, picture in enumerate(chain([first], pictures)):
        if picture.shape != first.shape:
            sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (first.shape, picture.shape))
            raise UsageError(f"frame {number} of a video differs in size from the first one: {sizes} pixels")
        yield picture


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the disk refuses becomes a RunError; what the frames raise stays what it is."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; make room or mend its permissions") from None
