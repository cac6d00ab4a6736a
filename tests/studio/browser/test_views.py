"""Live views in a real browser: what is drawn is what the view gave, from the camera that the page has."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.cameras.camera import Camera
from treadle.reports.views import LiveView, Option, Sample, Shapes, Window, numbers_of
from treadle.testing import Line

VALUES = np.arange(12 * 16, dtype=np.float64).reshape(12, 16) / 7
SHADES = np.stack([VALUES / VALUES.max() * 255, np.full((12, 16), 40.0), 255 - VALUES * 3], -1).astype(np.uint8)
AHEAD = np.array([0.0, 0.0, 4.0])


class Plane(LiveView):
    """Sixteen by twelve pixels of known numbers."""

    title = "Plane"
    lossless = True

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def options(self) -> Sequence[Option]:
        return (
            Option("sample", "Sample", "choice", "first", ("first", "second", "third")),
            Option("level", "Level, m", "range", 2.0, low=0.0, high=4.0, step=1.0),
            Option("cut", "Cut", "range", 0.5, low=0.0, high=1.0),
            Option("grid", "Grid", "switch", False),
        )

    def size(self) -> tuple[int, int]:
        return 16, 12

    def draw(self, window: Window) -> Any:
        self.windows.append(window)
        left, top, right, bottom = window.box
        shades = 255 - SHADES if window.options["grid"] else SHADES
        rows = np.arange(top, bottom) * 12 // window.height
        return shades[rows][:, np.arange(left, right) * 16 // window.width]

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        return {"value": float(VALUES[y * 12 // window.height, x * 16 // window.width])}

    def figures(self, window: Window) -> Mapping[str, float]:
        return {"psnr": 31.25}

    def samples(self) -> Sequence[Sample]:
        return [Sample("first", {"psnr": 30.0}), Sample("second", {"psnr": 21.5}), Sample("third", {"psnr": 44.0})]


def camera(name: str, x: float) -> Camera:
    pose = np.eye(4)
    pose[0, 3] = x
    return Camera(64, 48, 60.0, 60.0, 32.0, 24.0, pose, name)


class Room(LiveView):
    """Empty but for what is laid over it; it notes the cameras that it is seen from."""

    title = "Room"
    kind = "space"

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def cameras(self) -> Sequence[Camera]:
        return [camera("left", 0.5), camera("right", -0.5)]

    def draw(self, window: Window) -> Any:
        self.windows.append(window)
        return np.zeros((window.size[1], window.size[0], 3), np.uint8)

    def shapes(self, window: Window) -> Shapes:
        return Shapes(
            points=AHEAD[None].astype(np.float32),
            colors=np.array([[255, 0, 0]], np.uint8),
            lines=np.array([[-1, 1, 4], [1, 1, 4], [0, -1, 4], [0, -2, 4]], np.float32),
            offsets=np.array([0, 2, 4], np.int64),
            boxes=np.array([[[-3, -3, 3], [3, 3, 9]]], np.float32),
        )


class Shown(Line):
    """`Line` with a flat view and one in space."""

    transient = ("plane", "room")

    def setup(self) -> None:
        super().setup()
        self.plane, self.room = Plane(), Room()

    def views(self) -> dict[str, LiveView]:
        return {"plane": self.plane, "room": self.room}


@pytest.fixture
def shown(drive):
    return drive(Shown)


@pytest.fixture
def page(shown, open_page):
    opened = open_page(shown.studio.url)
    opened.locator(".pane[data-still=true]").wait_for()
    return opened


def pixels(page, selector: str = ".screen canvas") -> np.ndarray:
    """The pixels of a canvas, (H, W, 4)."""
    address = page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))


def room(page) -> None:
    """Look at the room, and wait for its picture: the figures of the plane, which had one, are then gone."""
    page.get_by_label("View of pane 1").select_option("room")
    pane = page.locator(".pane[data-still=true]", has_text="Camera in numbers")
    pane.locator(".figures", has_text=re.compile("step")).filter(has_not_text="psnr").wait_for()


def numbers(page) -> list[float]:
    """The page's camera."""
    details = page.locator("details.camera-numbers").first
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    text = details.locator("textarea")
    page.wait_for_function("text => text.value", arg=text.element_handle())  # it is filled a moment after it is opened
    return json.loads(text.input_value())


def settled(shown, page, view: LiveView) -> Window:
    """The newest window of a view, once the page asks for no other."""
    shown.wait(lambda: view.windows and not view.windows[-1].moving, "a still picture")
    return view.windows[-1]


def test_a_frame_is_shown_pixel_for_pixel(page):
    found = pixels(page)
    height, width = found.shape[:2]
    scale = min(width / 16, height / 12)
    left, top = (width - 16 * scale) / 2, (height - 12 * scale) / 2
    for row, column in [(0, 0), (0, 15), (11, 0), (5, 9), (11, 15)]:
        at = int(top + (row + 0.5) * scale), int(left + (column + 0.5) * scale)
        assert found[at][:3].tolist() == SHADES[row, column].tolist()
    assert "psnr 31.25" in page.locator(".figures").inner_text()


def test_each_control_sets_its_option(shown, page):
    plane = shown.trainer.plane
    page.get_by_label("Sample", exact=True).select_option("third")
    shown.wait(lambda: plane.windows[-1].options["sample"] == "third")
    page.locator("[data-exact=cut]").fill("0.123456789")
    page.locator("[data-exact=cut]").press("Enter")
    shown.wait(lambda: plane.windows[-1].options["cut"] == 0.123456789)
    page.locator("input[type=range][data-option=level]").press("ArrowRight")
    shown.wait(lambda: plane.windows[-1].options["level"] == 3.0)
    page.locator("[data-option=grid]").check()
    shown.wait(lambda: plane.windows[-1].options["grid"] is True)
    page.wait_for_function(
        """([red, green]) => {
            const canvas = document.querySelector(".screen canvas");
            const [r, g] = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
            return Math.abs(r - red) < 20 && g === green;
        }""",
        arg=[255 - int(SHADES[6, 8, 0]), 215],
    )


def test_the_inspector_says_the_array_s_number(page):
    page.get_by_role("button", name="Inspect pixels").click()
    screen = page.locator(".screen")
    box = screen.bounding_box()
    scale = min(box["width"] / 16, box["height"] / 12)
    x = box["x"] + (box["width"] - 16 * scale) / 2 + 9.5 * scale
    y = box["y"] + (box["height"] - 12 * scale) / 2 + 4.5 * scale
    page.mouse.move(x, y)
    said = page.locator(".inspected")
    said.get_by_text(f"column 9, row 4: value {VALUES[4, 9]}").wait_for()
    screen.press("ArrowRight")
    said.get_by_text(f"column 10, row 4: value {VALUES[4, 10]}").wait_for()
    screen.press("ArrowDown")
    said.get_by_text(f"column 10, row 5: value {VALUES[5, 10]}").wait_for()


def test_flat_views_zoom_where_the_pointer_is(page, eventually):
    screen = page.locator(".screen")
    box = screen.bounding_box()
    scale = min(box["width"] / 16, box["height"] / 12)
    x = (box["width"] - 16 * scale) / 2 + 4.5 * scale
    y = (box["height"] - 12 * scale) / 2 + 3.5 * scale
    page.mouse.move(box["x"] + x, box["y"] + y)
    for _ in range(4):
        page.mouse.wheel(0, -120)

    @eventually
    def _():
        around = pixels(page)[int(y) - 40 : int(y) + 40, int(x) - 40 : int(x) + 40, :3]
        assert (around == SHADES[3, 4]).all()  # one pixel of the picture is by now larger than that

    screen.focus()
    page.keyboard.press("0")

    @eventually
    def _():
        assert pixels(page)[int(y), int(x) - 40, :3].tolist() != SHADES[3, 4].tolist()


def test_the_run_is_seen_from_the_page_s_camera(shown, page, eventually):
    room(page)
    view = shown.trainer.room
    screen = page.locator(".screen")
    box = screen.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened = settled(shown, page, view).camera
    assert np.allclose(numbers_of(opened), numbers_of(camera("left", 0.5)), atol=1e-9)

    def moved(act) -> Camera:
        before, count = numbers(page), len(view.windows)
        act()

        @eventually  # also where there was a still picture amid the motion, since the browser was too busy to go on
        def now() -> Camera:
            assert len(view.windows) > count and not view.windows[-1].moving, "no still picture after a motion"
            now = view.windows[-1].camera
            assert np.abs(np.subtract(numbers(page), numbers_of(now))).max() < 1e-6
            assert np.abs(np.subtract(numbers(page), before)).max() > 1e-3
            return now

        rotation = now.world_to_camera[:3, :3]
        assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-12
        return now

    def drag(dx: int, dy: int, button: str = "left") -> None:
        page.mouse.move(*middle)
        page.mouse.down(button=button)
        page.mouse.move(middle[0] + dx, middle[1] + dy, steps=4)
        page.mouse.up(button=button)

    turned = moved(lambda: drag(80, 30))
    assert any(window.moving for window in view.windows)
    # It turns around what is in the middle, so that stays as far ahead.
    ahead = opened.camera_to_world @ [0, 0, 1, 1]
    assert not np.allclose(turned.center, opened.center, atol=1e-3) and ahead is not None
    panned = moved(lambda: drag(50, 0, "right"))
    assert np.allclose(panned.world_to_camera[:3, :3], turned.world_to_camera[:3, :3], atol=1e-12)
    assert panned.world_to_camera[0, 3] > turned.world_to_camera[0, 3]
    nearer = moved(lambda: page.mouse.wheel(0, -240))
    assert nearer.world_to_camera[2, 3] < panned.world_to_camera[2, 3]
    screen.focus()
    for key in ("ArrowLeft", "Shift+ArrowUp", "w", "q", ",", "-"):
        moved(lambda key=key: page.keyboard.press(key))
    page.get_by_label("Training camera").select_option("right")
    shown.wait(lambda: np.allclose(numbers_of(view.windows[-1].camera), numbers_of(camera("right", -0.5)), atol=1e-9))
    place = page.get_by_label("Camera's y")
    place.fill("1.25")
    place.press("Enter")
    shown.wait(lambda: np.allclose(view.windows[-1].camera.center, [0.5, 1.25, 0], atol=1e-5))


def test_two_fingers_come_nearer_and_flying_turns_on_the_spot(shown, page):
    room(page)
    view = shown.trainer.room
    before = settled(shown, page, view).camera
    page.evaluate(
        """() => {
            const screen = document.querySelector(".screen");
            const box = screen.getBoundingClientRect();
            screen.setPointerCapture = () => {};
            const at = (kind, id, x) => screen.dispatchEvent(new PointerEvent(kind, {
                pointerId: id, pointerType: "touch", bubbles: true, button: 0, buttons: 1,
                clientX: box.x + box.width / 2 + x, clientY: box.y + box.height / 2,
            }));
            at("pointerdown", 1, -20); at("pointerdown", 2, 20);
            at("pointermove", 1, -60); at("pointermove", 2, 60);
            at("pointerup", 1, -60); at("pointerup", 2, 60);
        }"""
    )
    shown.wait(lambda: not np.allclose(view.windows[-1].camera.center, before.center, atol=1e-3), "a pinch")
    nearer = settled(shown, page, view).camera
    assert nearer.center[2] > before.center[2]  # it looks along z
    page.get_by_role("button", name="Fly").click()
    box = page.locator(".screen").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 120, steps=4)
    page.mouse.up()
    shown.wait(lambda: not np.allclose(view.windows[-1].camera.world_to_camera[:3, :3], nearer.world_to_camera[:3, :3]))
    assert np.allclose(settled(shown, page, view).camera.center, nearer.center, atol=1e-9)


def test_what_is_laid_over_lies_where_the_camera_sees_it(shown, page, eventually):
    room(page)
    for kind in ("points", "lines", "boxes", "cameras"):
        page.locator(f"[data-overlay={kind}]").check()
    page.get_by_text("1 points, 2 lines, 1 boxes, 2 cameras").wait_for()

    @eventually
    def at():
        found = pixels(page, ".screen canvas.overlay").astype(int)
        height, width = found.shape[:2]
        seen = camera("left", 0.5).world_to_camera @ [*AHEAD, 1]
        x, y = width / 2 + 60 / 48 * height * seen[0] / seen[2], height / 2 + 60 / 48 * height * seen[1] / seen[2]
        red = (found[..., 0] > 200) & (found[..., 1] < 60) & (found[..., 2] < 60) & (found[..., 3] > 200)
        rows, columns = np.nonzero(red)
        assert len(rows) and abs(columns.mean() + 0.5 - x) < 1 and abs(rows.mean() + 0.5 - y) < 1
        line = found[int(height / 2 + 60 / 48 * height * 1 / 4), width // 2 - 3 : width // 2 + 3]
        assert (line[..., 3] > 100).any() or (found[int(height / 2 + 60 / 48 * height / 4) - 1, width // 2, 3] > 100)
        return rows[0], columns[0]

    page.locator("[data-overlay=points]").uncheck()

    @eventually
    def _():
        assert not (pixels(page, ".screen canvas.overlay")[(*at, 0)] > 200)


def test_without_webgl_a_line_says_so(shown, open_page):
    opened = open_page(shown.studio.url)
    opened.evaluate(
        """() => {
            const given = HTMLCanvasElement.prototype.getContext;
            HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
                return kind.startsWith("webgl") ? null : given.call(this, kind, ...rest);
            };
        }"""
    )
    room(opened)
    opened.locator("[data-overlay=points]").click()
    opened.get_by_text("This browser has no WebGL").wait_for()
    assert opened.locator("[data-overlay=points]").is_disabled()


def test_a_hidden_tab_gives_no_credit(shown, page):
    plane = shown.trainer.plane
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    before = len(plane.windows)
    shown.trainer.commands.resume()
    shown.wait(lambda: shown.step > 50)
    page.wait_for_timeout(1000)
    frames = len(plane.windows)
    assert frames - before <= 6  # two frames on their way, and what was begun
    page.evaluate(hide, False)
    shown.wait(lambda: len(plane.windows) > frames + 4, "frames after it was seen again")
    shown.trainer.commands.pause()


def test_two_panes_with_one_camera(shown, page):
    room(page)
    view = shown.trainer.room
    page.get_by_role("button", name="Split").click()
    page.locator(".pane[data-still=true]").nth(1).wait_for()
    count = len(view.windows)
    first = page.locator(".screen").first
    first.focus()
    page.keyboard.press("ArrowLeft")
    shown.wait(lambda: len([w for w in view.windows[count:] if not w.moving]) >= 2, "both panes")
    here, there = (window.camera for window in [w for w in view.windows if not w.moving][-2:])
    assert np.allclose(here.world_to_camera, there.world_to_camera, atol=1e-12)
    page.get_by_label("linked").uncheck()
    first.focus()
    count = len(view.windows)
    page.keyboard.press("ArrowLeft")
    shown.wait(lambda: any(not w.moving for w in view.windows[count:]))
    page.wait_for_timeout(300)  # the other pane asks for nothing
    cameras = [numbers_of(w.camera) for w in view.windows[count:] if not w.moving]
    assert len({tuple(np.round(one, 9)) for one in cameras}) == 1
    page.get_by_role("button", name="Split").click()
    assert page.locator(".pane").count() == 1


def test_samples_the_worst_first(shown, page):
    page.get_by_role("button", name="Worst samples").click()
    rows = page.locator(".samples tbody tr")
    rows.nth(2).wait_for()
    assert [row.split()[0] for row in rows.all_inner_texts()] == ["second", "first", "third"]
    rows.nth(2).get_by_role("button").click()
    shown.wait(lambda: shown.trainer.plane.windows[-1].options["sample"] == "third")
    assert page.locator("[data-option=sample]").input_value() == "third"


def test_frames_have_the_screen_s_pixels(shown, open_page):
    opened = open_page(shown.studio.url, device_scale_factor=2, viewport={"width": 900, "height": 700})
    opened.locator(".pane[data-still=true]").wait_for()
    room(opened)
    box = opened.locator(".screen").bounding_box()
    window = settled(shown, opened, shown.trainer.room)
    assert abs(window.width - 2 * box["width"]) <= 4 and abs(window.height - 2 * box["height"]) <= 4
    opened.get_by_label("Resolution").select_option("0.25")
    shown.wait(lambda: abs(shown.trainer.room.windows[-1].width - box["width"] / 2) <= 2)


def test_the_share_of_time_is_asked_for(shown, page):
    share = page.locator("#views-share")
    share.focus()
    page.keyboard.press("End")
    page.get_by_text(re.compile(r"95 %")).first.wait_for()
    page.locator("#views-frames").select_option("10")
    from treadle.studio.drawing.frames import Frames

    frames = shown.studio.topic(Frames)
    shown.wait(lambda: frames.budget.share == 0.95 and frames.most_frames == 10)


def test_every_control_has_a_name(page):
    room(page)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll(".views button, .views select, .views input, .views textarea")]
            .filter(e => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()))
            .map(e => e.outerHTML)"""
    )
    assert unnamed == []


def test_torch_pictures_are_views_too(drive, open_page):
    class Pictured(Line):
        def examples(self):
            return {"ramp": torch.linspace(0, 1, 32).repeat(32, 1)}

    driven = drive(Pictured)
    opened = open_page(driven.studio.url)
    opened.locator(".pane[data-still=true]").wait_for()
    found = pixels(opened)
    middle = found[found.shape[0] // 2, :, 0].astype(int)
    dark, light = np.nonzero(middle < 4)[0], np.nonzero(middle > 251)[0]
    assert len(dark) and len(light) and dark[0] < light[0]  # beside them is the sheet that pictures lie on
    assert (np.diff(middle[dark[0] : light[-1]]) >= -4).all()  # as JPEG has it
