from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from treadle.cameras.camera import Camera
from treadle.engine.lifecycle import Stage
from treadle.errors import UsageError
from treadle.fields.image_trainer import ImageTrainer
from treadle.images.picture import Picture
from treadle.reports.trainer_views import views_of
from treadle.reports.views import CameraView, LiveView, Option, Sample, Shapes, Window
from treadle.studio.drawing.frames import RETRY, Frames
from treadle.studio.drawing.painting import TILE
from treadle.studio.protocol import (
    Compare,
    Event,
    Frame,
    Inspect,
    Notice,
    Overlay,
    Request,
    Share,
    Unwatch,
    Views,
    Watch,
)
from treadle.studio.topics import Live
from treadle.studio.wire import unpack
from treadle.testing import Line, capture, line_data


class Browser:
    """A client that acknowledges each frame at once, while it is seen."""

    role = "control"
    in_control = connected = True

    def __init__(self, id: str = "a" * 32) -> None:
        self.id, self.label, self.credits = id, "Firefox", 2
        self.frames: list[tuple[Frame, bytes]] = []

    def show(self, frame: Frame, data: bytes) -> None:
        self.frames.append((frame, data))

    def picture(self) -> Any:
        return np.asarray(Image.open(io.BytesIO(self.frames[-1][1])))


class Told:
    """What every client was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def publish(self, event: Event) -> None:
        self.events.append(event)

    publish_latest = publish

    def soon(self, action: Callable[[], None]) -> None:
        action()


class Gray(LiveView):
    """As gray as its option says, at a cost of seconds for each pixel; what it draws by chance is its own affair."""

    title = "A gray"

    def __init__(self, cost: float = 0.0) -> None:
        self.cost, self.drawn, self.spent = cost, [], 0.0

    def options(self) -> Sequence[Option]:
        return (Option("gray", "Gray", "range", 0.5),)

    def draw(self, window: Window) -> Any:
        began = time.perf_counter()
        self.drawn.append(window)
        random.random(), np.random.rand(), torch.rand(3)
        width, height = window.size
        time.sleep(self.cost * width * height)
        self.spent += time.perf_counter() - began
        return np.full((height, width), float(window.options["gray"]))

    def inspect(self, window: Window, x: int, y: int) -> dict[str, float | str]:
        return {"column": x, "of": window.width}

    def shapes(self, window: Window) -> Shapes:
        return Shapes(points=np.ones((2, 3), np.float32), colors=np.full((2, 3), 7, np.uint8), offsets=np.array([0, 2]))

    def samples(self) -> Iterator[Sample]:
        for number, psnr in enumerate((30.0, float("nan"), 20.0)):
            yield Sample(f"{number}", {"psnr": psnr})


class Seen(Line):
    """A line with views, whose steps take some time and draw from all the global generators."""

    rest = 0.0
    seen: dict[str, Any] = {}

    def views(self) -> dict[str, Any]:
        return self.seen

    def step(self, batch: Any) -> dict[str, Any]:
        time.sleep(self.rest)
        drawn = random.random() + float(np.random.rand()) + float(torch.rand(()))
        x, y = batch
        return super().step((x, y + 0.01 * drawn))


def make(rest: float = 0.0, steps: int = 10**6, **seen: Any) -> Seen:
    kind = type("Seen", (Seen,), {"rest": rest, "seen": seen})
    return kind(data=line_data(), batch_size=20, max_steps=steps, seed=0)


def studio(trainer: Any, told: Told | None = None, **more: Any) -> Frames:
    live = Live("a run", None, trainer, trainer.loop, trainer.commands, told or Told())
    return Frames(live, partial(views_of, trainer), **more)


def ask(frames: Frames, request: Request, browser: Browser) -> Any:
    return frames.handlers()[type(request)](request, browser)


def train_until(trainer: Any, frames: Frames, done: Callable[[], bool], seconds: float = 100.0) -> None:
    """Train, with the studio's clock ticking, until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came to that"
        trainer.iterate()
        frames.poll()


def sit_until(trainer: Any, frames: Frames, done: Callable[[], bool], seconds: float = 100.0) -> None:
    """Sit out a pause until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came to that"
        trainer.iterate()
        frames.poll()
        time.sleep(0.001)


def pause(trainer: Any) -> None:
    trainer.commands.pause()
    trainer.iterate()
    assert trainer.loop.lifecycle.stage is Stage.PAUSED


def test_a_view_is_shown_while_the_run_trains() -> None:
    trainer = make(gray=Gray())
    frames, browser = studio(trainer), Browser()
    assert ask(frames, Watch(id=1, view="gray", width=40, height=30, options={"gray": 0.25}), browser) is None
    train_until(trainer, frames, lambda: len(browser.frames) > 4)
    header, _ = browser.frames[-1]
    assert (header.view, header.pane, header.width, header.height, header.format) == ("gray", 0, 40, 30, "jpeg")
    assert 0 < header.since <= header.step <= trainer.progress.step and header.still
    assert abs(int(browser.picture().mean()) - 64) < 2 and browser.picture().shape == (30, 40)
    numbers = [header.frame for header, _ in browser.frames]
    assert numbers == sorted(set(numbers))
    frames.close()


def test_a_page_is_told_of_the_views() -> None:
    (told,) = studio(make(gray=Gray())).welcome()["views"]
    assert (told["name"], told["title"], told["has"]) == ("gray", "A gray", ["shapes", "samples", "inspect"])


def test_what_has_become_known_of_a_view_is_told_once() -> None:
    class Painter(Line):
        def examples(self) -> dict[str, Any]:
            return {name: np.full((6, 8), share, np.float32) for name, share in (("dark", 0.1), ("bright", 0.9))}

    told, browser = Told(), Browser()
    trainer = Painter(data=line_data(), batch_size=20, max_steps=10**6, seed=0)
    frames = studio(trainer, told)
    names = [option["name"] for option in frames.welcome()["views"][0]["options"]]
    ask(frames, Watch(id=1, view="examples", width=40, height=30), browser)
    train_until(trainer, frames, lambda: len(browser.frames) > 3)
    (event,) = told.events
    assert isinstance(event, Views) and "show" not in names
    assert event.views == frames.welcome()["views"]
    option = event.views[0]["options"][0]
    assert (option["name"], option["choices"]) == ("show", ("all", "dark", "bright"))
    ask(frames, Watch(id=2, view="examples", width=14, height=12, options={"show": "bright"}), browser)
    count = len(browser.frames)
    train_until(trainer, frames, lambda: len(browser.frames) > count + 2)
    assert int(browser.picture()[6, 7].mean()) == pytest.approx(230, abs=3)
    frames.close()


def test_the_pixels_of_a_whole_picture_are_those_that_the_client_sees() -> None:
    trainer, browser = make(wide=lambda window: np.arange(24.0).reshape(4, 6) / 24), Browser()
    frames = studio(trainer)
    ask(frames, Watch(id=1, view="wide", width=400, height=300), browser)
    train_until(trainer, frames, lambda: len(browser.frames) > 0)
    assert browser.picture().shape == (4, 6)
    pause(trainer)
    answer = ask(frames, Inspect(id=2, x=5, y=3), browser)
    sit_until(trainer, frames, answer.done)
    assert answer.result() == {"column": 5, "row": 3, "value": 23 / 24}
    with pytest.raises(UsageError, match="the picture has 6 x 4 pixels: there is none at 6, 0"):
        ask(frames, Inspect(id=3, x=6, y=0), browser)
    frames.close()


def test_views_that_cannot_be_made_are_told_and_end_nothing() -> None:
    class Wrong(Line):
        def views(self) -> dict[str, Any]:
            return {"a": 3}

    told = Told()
    trainer = Wrong(data=line_data(), batch_size=20, max_steps=3, seed=0)
    assert studio(trainer, told).welcome() == {"views": []}
    (notice,) = told.events
    assert isinstance(notice, Notice) and notice.text.startswith("there are no views: views(): 'a' is int")
    trainer.train()


def digest(trainer: Any) -> str:
    return capture(trainer).digest


@pytest.mark.parametrize("rate", [0, 1, 10, None])
def test_looking_changes_no_bit_of_the_run(rate: int | None) -> None:
    alone = make(steps=120)
    alone.train()
    trainer = make(rest=0.001, steps=120, gray=Gray(1e-6))
    frames, browser = studio(trainer), Browser()
    browser.credits = 0 if rate == 0 else 2
    ask(frames, Share(id=1, share=0.5, frames=rate or 0), browser)
    ask(frames, Watch(id=2, view="gray", width=40, height=40), browser)
    began = time.monotonic()
    while trainer.iterate():
        frames.poll()
    if rate == 1:  # the first two before the first step, where nothing is taken from the run
        assert len(browser.frames) <= 3 + (time.monotonic() - began)
    if rate != 0:
        _wait(lambda: bool(browser.frames))
    assert digest(trainer) == digest(alone)
    assert bool(browser.frames) == (rate != 0)
    frames.close()


def photograph(side: int = 24) -> Picture:
    values = np.random.default_rng(0).random((side, side, 3)).astype(np.float32)
    return Picture(values, False, "noise")


def test_looking_at_a_fit_changes_no_bit_of_it() -> None:
    def make_fit() -> ImageTrainer:
        return ImageTrainer(data=photograph(), max_steps=150, levels=2, log2_size=8, hidden=16, examples_every=None)

    alone, seen = make_fit(), make_fit()
    alone.train()
    frames, browser = studio(seen), Browser()
    for pane, name in enumerate(seen.views()):
        ask(frames, Watch(id=pane, view=name, pane=pane), browser)
    ask(frames, Share(id=9, share=0.9), browser)
    while seen.iterate():
        frames.poll()
        time.sleep(0.002)
    _wait(lambda: bool(browser.frames))
    assert digest(seen) == digest(alone)
    frames.close()


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_the_share_of_time_is_kept(share: float) -> None:
    trainer = make(rest=0.002, gray=Gray(1e-5))
    frames, browser = studio(trainer), Browser()
    ask(frames, Share(id=1, share=share), browser)
    ask(frames, Watch(id=2, view="gray", width=64, height=64), browser)
    train_until(trainer, frames, lambda: len(browser.frames) > 0)
    began, view = time.perf_counter(), trainer.seen["gray"]
    view.spent = 0.0

    def kept() -> bool:
        took = time.perf_counter() - began
        found = view.spent / took, frames.budget.measured()
        return took > 2.5 and found == pytest.approx((share, share), abs=0.05)

    train_until(trainer, frames, kept)  # after more than that where the machine did something else for a while
    sizes = [window.size for window in view.drawn]
    assert max(width * height for width, height in sizes) * view.cost < 4 * TILE
    frames.close()


def test_the_bar_on_frames_is_kept_while_training() -> None:
    trainer = make(rest=0.001, gray=Gray())
    frames, browser = studio(trainer), Browser()
    ask(frames, Share(id=1, share=0.9, frames=10), browser)
    began = time.monotonic()
    while time.monotonic() < began + 1.0 or len(browser.frames) < 4:
        ask(frames, Watch(id=2, view="gray", width=8, height=8, moving=True), browser)  # nor is it passed by asking
        trainer.iterate()
        frames.poll()
    assert len(browser.frames) <= 1 + 10 * (time.monotonic() - began)
    frames.close()


def test_in_a_pause_a_picture_is_drawn_once_and_at_once() -> None:
    trainer = make(gray=Gray(2e-6))
    frames, browser = studio(trainer), Browser()
    pause(trainer)
    ask(frames, Share(id=1, share=0.0, frames=0.001), browser)  # of which neither is looked at in a pause
    ask(frames, Watch(id=2, view="gray", width=256, height=256), browser)
    sit_until(trainer, frames, lambda: bool(browser.frames) and browser.frames[-1][0].still)
    assert browser.frames[-1][0].width == 256
    drawn = len(trainer.seen["gray"].drawn)
    end = time.monotonic() + 0.2
    sit_until(trainer, frames, lambda: time.monotonic() > end)
    assert len(trainer.seen["gray"].drawn) == drawn
    frames.close()


def test_without_a_share_nothing_is_drawn_while_training() -> None:
    trainer = make(gray=Gray())
    frames, browser = studio(trainer), Browser()
    trainer.iterate()
    ask(frames, Share(id=1, share=0.0), browser)
    ask(frames, Watch(id=2, view="gray"), browser)
    end = time.monotonic() + 0.1
    train_until(trainer, frames, lambda: time.monotonic() > end)
    assert trainer.seen["gray"].drawn == []
    pause(trainer)
    sit_until(trainer, frames, lambda: len(browser.frames) > 0)
    frames.close()


def test_a_hidden_tab_costs_nothing() -> None:
    trainer = make(gray=Gray())
    frames, browser = studio(trainer), Browser()
    browser.credits = 0
    ask(frames, Watch(id=1, view="gray"), browser)
    end = time.monotonic() + 0.1
    train_until(trainer, frames, lambda: time.monotonic() > end)
    assert trainer.seen["gray"].drawn == []
    browser.credits = 1
    frames.on_drawn(browser)
    train_until(trainer, frames, lambda: len(browser.frames) > 0)
    frames.close()


def test_what_moves_is_coarse_and_what_is_still_is_fine() -> None:
    trainer = make(gray=Gray(2e-5))
    frames, browser = studio(trainer), Browser()
    pause(trainer)
    watch = Watch(id=1, view="gray", width=200, height=100, moving=True)
    ask(frames, watch, browser)
    sit_until(trainer, frames, lambda: len(browser.frames) > 0)
    ask(frames, watch, browser)
    sit_until(trainer, frames, lambda: len(browser.frames) > 1)
    header = browser.frames[-1][0]
    assert header.width < 200 and header.width == pytest.approx(2 * header.height, abs=2) and not header.still
    assert header.width * header.height * trainer.seen["gray"].cost < 0.2
    ask(frames, msgspec.structs.replace(watch, moving=False), browser)
    sit_until(trainer, frames, lambda: browser.frames[-1][0].still)
    assert browser.frames[-1][0].width == 200
    frames.close()


def test_the_latest_wins() -> None:
    trainer = make(gray=Gray(2e-5))
    frames, browser = studio(trainer), Browser()
    pause(trainer)
    view = trainer.seen["gray"]
    ask(frames, Watch(id=1, view="gray", width=200, height=200, options={"gray": 0.0}), browser)
    sit_until(trainer, frames, lambda: len(browser.frames) == 1)  # coarse; the fine one takes .8 s
    drawn = len(view.drawn)
    sit_until(trainer, frames, lambda: len(view.drawn) > drawn + 2)
    ask(frames, Watch(id=2, view="gray", width=100, height=100, options={"gray": 1.0}), browser)
    sit_until(trainer, frames, lambda: browser.frames[-1][0].still)
    assert [header.width for header, _ in browser.frames if header.still] == [100]
    late = [window for window in view.drawn[drawn:] if window.options["gray"] == 0.0]
    assert sum(window.size[0] * window.size[1] for window in late) < 0.5 * 200 * 200
    frames.close()


def test_a_command_waits_for_one_tile_at_most() -> None:
    trainer = make(rest=0.3, gray=Gray(1e-5))
    frames, browser = studio(trainer), Browser()
    ask(frames, Share(id=1, share=0.9), browser)
    ask(frames, Watch(id=2, view="gray", width=1000, height=1000), browser)  # ten seconds of drawing
    train_until(trainer, frames, lambda: frames.budget.allowed() > 1 and len(trainer.seen["gray"].drawn) > 10)
    view = trainer.seen["gray"]
    sent: list[int] = []
    paused: list[int] = []

    def send() -> None:
        _wait(lambda: len(view.drawn) > drawn)
        done = trainer.commands.pause()
        sent.append(len(view.drawn))
        done.add_done_callback(lambda _: paused.append(len(view.drawn)))

    drawn = len(view.drawn)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    sit_until(trainer, frames, lambda: bool(paused))
    assert paused[0] - sent[0] <= 1
    frames.close()


def _wait(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.001)


def test_panes_and_clients_take_turns() -> None:
    trainer = make(gray=Gray(1e-6), other=Gray(1e-5))
    frames, first, second = studio(trainer), Browser("1" * 32), Browser("2" * 32)
    ask(frames, Share(id=1, share=0.9), first)
    ask(frames, Watch(id=2, view="other", width=64, height=64), first)
    ask(frames, Watch(id=3, view="gray", width=16, height=16, pane=1), first)
    ask(frames, Watch(id=4, view="gray", width=16, height=16), second)
    train_until(trainer, frames, lambda: {header.pane for header, _ in first.frames} == {0, 1} and bool(second.frames))
    ask(frames, Unwatch(id=5, pane=1), first)
    frames.on_leave(second)
    before = len(first.frames)
    train_until(trainer, frames, lambda: sum(not header.pane for header, _ in first.frames[before:]) > 1)
    counts = len(second.frames), sum(header.pane for header, _ in first.frames)
    before = len(first.frames)
    train_until(trainer, frames, lambda: len(first.frames) > before + 3)
    assert (len(second.frames), sum(header.pane for header, _ in first.frames)) == counts
    frames.close()


class Broken(Gray):
    broken = True

    def draw(self, window: Window) -> Any:
        self.drawn.append(window)
        if self.broken:
            raise ValueError("no such level")
        return np.zeros((window.size[1], window.size[0]))


def test_a_view_that_raises_is_told_once_and_tried_again(tmp_path: Path) -> None:
    alone = make(steps=100)
    alone.train()
    trainer, told = make(rest=0.003, steps=100, bad=Broken(), gray=Gray()), Told()
    frames, browser = studio(trainer, told), Browser()
    ask(frames, Watch(id=1, view="bad", width=8, height=8), browser)
    ask(frames, Watch(id=2, view="gray", width=8, height=8, pane=1), browser)
    began = time.monotonic()
    while trainer.iterate():
        frames.poll()
    _wait(lambda: bool(told.events and browser.frames))
    (notice,) = told.events
    assert isinstance(notice, Notice) and notice.level == "warning"
    line = Broken.draw.__code__.co_firstlineno + 3
    assert notice.text == (f"the view 'bad' cannot be drawn: ValueError: no such level (test_frames.py, line {line})")
    assert len(trainer.seen["bad"].drawn) <= 2 + (time.monotonic() - began) / RETRY  # in this order: it is tried on
    assert digest(trainer) == digest(alone)
    assert all(header.view == "gray" for header, _ in browser.frames)
    trainer.seen["bad"].broken = False
    frames.poll()
    _wait(lambda: any(header.view == "bad" for header, _ in browser.frames))
    frames.close()


def test_the_numbers_under_a_pixel() -> None:
    trainer = make(gray=Gray())
    frames, browser = studio(trainer), Browser()
    pause(trainer)
    with pytest.raises(UsageError, match="nothing is shown in this pane"):
        ask(frames, Inspect(id=1, x=0, y=0), browser)
    ask(frames, Watch(id=2, view="gray", width=20, height=10), browser)
    sit_until(trainer, frames, lambda: bool(browser.frames) and browser.frames[-1][0].still)
    future = ask(frames, Inspect(id=3, x=19, y=9), browser)
    sit_until(trainer, frames, future.done)
    assert future.result() == {"column": 19, "of": 20}
    with pytest.raises(UsageError, match="20 x 10 pixels: there is none at 20, 0"):
        ask(frames, Inspect(id=4, x=20, y=0), browser)
    frames.close()


def test_shapes_travel_as_arrays() -> None:
    trainer = make(gray=Gray())
    frames = studio(trainer)
    future = ask(frames, Overlay(id=7, view="gray", options={"gray": 1.0}), Browser())
    trainer.iterate()
    header, data = unpack(future.result())
    assert header.id == 7
    assert [(part["name"], part["kind"], part["dtype"], part["shape"]) for part in header.parts] == [
        ("points", "points", "float32", [2, 3]),
        ("colors", "points", "uint8", [2, 3]),
        ("offsets", "lines", "uint32", [2]),
    ]
    assert bytes(data) == np.ones(6, "<f4").tobytes() + b"\7" * 6 + np.array([0, 2], "<u4").tobytes()


def test_samples_come_worst_first_and_are_measured_between_steps() -> None:
    trainer = make(gray=Gray())
    frames, browser = studio(trainer), Browser()
    future: Future[Any] = ask(frames, Compare(id=1, view="gray", most=2), browser)
    before = trainer.progress.step
    train_until(trainer, frames, future.done)
    assert [found["name"] for found in future.result()] == ["1", "2"]
    assert future.result()[1] == {"name": "2", "figures": {"psnr": 20.0}}
    assert trainer.progress.step >= before + 3
    trainer.seen["gray"].worst = "highest"
    future = ask(frames, Compare(id=2, view="gray"), browser)
    train_until(trainer, frames, future.done)
    assert [found["name"] for found in future.result()] == ["1", "0", "2"]
    frames.close()


def test_what_is_compared_has_its_turn_beside_pictures_that_come_without_end() -> None:
    trainer, browser = make(gray=Gray()), Browser()
    frames = studio(trainer)
    ask(frames, Watch(id=1, view="gray", width=4, height=4), browser)
    train_until(trainer, frames, lambda: len(browser.frames) > 2)
    seen = len(browser.frames)
    future: Future[Any] = ask(frames, Compare(id=2, view="gray"), browser)
    train_until(trainer, frames, future.done)
    assert len(future.result()) == 3
    assert len(browser.frames) - seen < 10  # as many as there are samples, and what was under way
    seen = len(browser.frames)
    train_until(trainer, frames, lambda: len(browser.frames) > seen)
    frames.close()


def test_samples_that_cannot_be_measured_are_refused() -> None:
    class Bad(Gray):
        def samples(self) -> Iterator[Sample]:
            raise ValueError("no such file")

    trainer = make(gray=Bad())
    frames = studio(trainer)
    future: Future[Any] = ask(frames, Compare(id=1, view="gray"), Browser())
    train_until(trainer, frames, future.done)
    with pytest.raises(UsageError, match=r"ValueError: no such file \(test_frames.py, line"):
        future.result()
    frames.close()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Watch(id=1, view="grey"), "there is no view 'grey'; did you mean 'gray'?"),
        (Watch(id=1, view="gray", options={"gray": 3.0}), "option 'gray' is 3.0: expected 0 to 1"),
        (Watch(id=1, view="gray", state=5), "this studio shows the run as it is now"),
        (Watch(id=1, view="gray", run="b"), "this studio shows the run as it is now"),
        (Watch(id=1, view="space"), "the view 'space' has no camera of its own: give one"),
        (Watch(id=1, view="space", camera=[0.0] * 18), "focal lengths 0, 0"),
        (Overlay(id=1, view="grey"), "there is no view 'grey'"),
        (Compare(id=1, view="grey"), "there is no view 'grey'"),
    ],
)
def test_what_cannot_be_shown_is_refused(request_: Request, says: str) -> None:
    frames = studio(make(gray=Gray(), space=CameraView(lambda camera: np.zeros((4, 4)), [])))
    with pytest.raises(UsageError) as error:
        ask(frames, request_, Browser())
    assert says in str(error.value)


def test_who_may_only_view_does_not_say_what_drawing_may_take() -> None:
    frames, browser = studio(make(gray=Gray())), Browser()
    browser.role = "view"
    with pytest.raises(UsageError, match="may only view"):
        ask(frames, Share(id=1, share=0.9), browser)


def test_a_view_in_space_is_seen_from_the_browsers_camera() -> None:
    pose = np.eye(4)
    pose[2, 3] = 3.0
    seen: list[Camera] = []

    def see(camera: Camera) -> Any:
        seen.append(camera)
        return np.zeros((camera.height, camera.width))

    trainer = make(space=CameraView(see, [Camera(80, 40, 60, 60, 40, 20, pose, "first")]))
    frames, browser = studio(trainer), Browser()
    pause(trainer)
    ask(frames, Watch(id=1, view="space", width=30, height=20), browser)
    sit_until(trainer, frames, lambda: bool(browser.frames) and browser.frames[-1][0].still)
    assert seen[-1].fx == pytest.approx(60 / 40 * 20) and seen[-1].cx == 15
    numbers = [2.0, 2.0, *pose.flatten().tolist()]
    browser.frames.clear()
    ask(frames, Watch(id=2, view="space", width=30, height=20, camera=numbers), browser)
    sit_until(trainer, frames, lambda: bool(browser.frames) and browser.frames[-1][0].still)
    assert seen[-1].fx == 40
    frames.close()


def test_a_flat_view_keeps_its_shape() -> None:
    class Wide(Gray):
        def size(self) -> tuple[int, int]:
            return 100, 20

    trainer = make(wide=Wide())
    frames, browser = studio(trainer), Browser()
    pause(trainer)
    for asked, got in (((50, 50), (50, 10)), ((500, 500), (100, 20))):
        browser.frames.clear()
        ask(frames, Watch(id=1, view="wide", width=asked[0], height=asked[1]), browser)
        sit_until(trainer, frames, lambda: bool(browser.frames) and browser.frames[-1][0].still)
        assert (browser.frames[-1][0].width, browser.frames[-1][0].height) == got
    frames.close()


def test_views_are_drawn_when_the_run_has_ended() -> None:
    trainer = make(steps=2, gray=Gray())
    frames, browser = studio(trainer), Browser()
    trainer.train()
    ask(frames, Watch(id=1, view="gray", width=8, height=8), browser)
    _wait(lambda: bool(browser.frames) and browser.frames[-1][0].still)
    assert browser.frames[-1][0].step == 2
    frames.close()


def test_other_states_are_looked_at_through_their_own_door() -> None:
    class Kept:
        step, trains, hurries = 40, False, False
        view = Gray()

        def views(self) -> dict[str, LiveView]:
            return {"gray": self.view}

        def call(self, function: Callable[[], Any]) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function())
            return future

    kept, asked = Kept(), []

    def sources(run: str | None, state: int | None) -> Kept:
        asked.append((run, state))
        return kept

    trainer = make(gray=Gray())
    frames, browser = studio(trainer, sources=sources), Browser()
    ask(frames, Watch(id=1, view="gray", state=40, width=8, height=8), browser)
    _wait(lambda: bool(browser.frames) and browser.frames[-1][0].still)
    header = browser.frames[-1][0]
    assert asked == [(None, 40)] and header.state == header.step == 40 and trainer.seen["gray"].drawn == []
    frames.close()
