"""The studio's page in a real browser: each control does what it says, by mouse and by keyboard, also after a cut."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from treadle.testing import Line, line_data

WEB = Path(__file__).parents[3] / "web"


def button(page: Any, name: str) -> Any:
    """The button of that name, as a reader of the screen would find it."""
    return page.get_by_role("button", name=name, exact=True)


def press(page: Any, name: str) -> None:
    """Press a button, also where the machine is too busy for the browser to find it still."""
    button(page, name).dispatch_event("click")


def answered(page: Any) -> None:
    """Wait until nothing that was asked is unanswered."""
    page.locator(".asked:empty").wait_for(state="attached")


# Transport -------------------------------------------------------------------------------------------------------


def test_steps_are_taken_as_pressed_and_journalled_with_who_pressed(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    press(page, "Step")
    driven.wait(lambda: driven.step == 1 and driven.trainer.paused)
    page.get_by_label("How many steps").fill("7")
    press(page, "Steps")
    driven.wait(lambda: driven.step == 8 and driven.trainer.paused)
    press(page, "Epoch")
    driven.wait(lambda: driven.step == 9 and driven.trainer.paused, "the end of the third epoch of three steps")
    page.locator(".readout.step b", has_text=re.compile("^9$")).wait_for()
    asked = [entry for entry in driven.journal if entry["event"] == "run until"]
    assert [entry["until"] for entry in asked] == ["step 1", "step 8", "epoch 3"]
    assert all("Chrome" in entry["client"] for entry in asked)


def test_the_space_bar_plays_and_pauses_and_the_page_shows_what_is_in_force(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    stage = page.locator(".head .stage")
    assert stage.inner_text().endswith("paused")
    page.keyboard.press("Space")
    driven.wait(lambda: driven.step > 3)
    page.locator(".head .stage[data-tone=running]").wait_for()
    page.keyboard.press("Space")
    driven.wait(lambda: driven.trainer.paused)
    page.locator(".head .stage[data-tone=paused]").wait_for()
    assert driven.events.count("continue") == 1
    # After a press with the mouse it still plays and pauses, and does not press that button once more.
    driven.wait_shown(page)
    before = driven.step
    button(page, "Step").click()
    driven.wait(lambda: driven.step == before + 1 and driven.trainer.paused)
    driven.wait_shown(page)
    page.keyboard.press("Space")
    driven.wait(lambda: driven.step > before + 2)


def test_run_until_puts_the_rule_together_with_its_patience(drive, open_page):
    driven = drive(log_every="1 step")
    page = open_page(driven.studio.url)
    press(page, "Step")
    page.get_by_label("Run until: kind of condition").select_option("rule")
    page.get_by_label("Run until: metric").select_option("train/loss")
    page.get_by_label("Run until: comparison").select_option("<")
    press(page, "Run until")  # without a value nothing is asked
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Run until: value"
    page.get_by_label("Run until: value").fill("0.5")
    page.get_by_label("Run until: times in a row").fill("3")
    press(page, "Run until")
    driven.wait(lambda: "train/loss < 0.5 for 3" in [entry.get("until") for entry in driven.journal])
    driven.wait(lambda: driven.trainer.paused and driven.step > 3)
    assert "train/loss < 0.5" in driven.trainer.loop.lifecycle.reason


def test_save_validate_and_stop_are_done_and_journalled(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    press(page, "Step")
    driven.wait(lambda: driven.step == 1)
    press(page, "Save")
    press(page, "Validate")
    answered(page)
    driven.wait(lambda: {"checkpoint", "validate"} <= set(driven.events))
    press(page, "Stop")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    assert driven.thread.is_alive()
    press(page, "Stop")
    page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
    driven.join()
    assert driven.step == 1
    page.get_by_role("tab", name="Journal").click()
    page.locator(".journal li[data-event=stop]").wait_for()


def test_a_run_that_was_driven_ends_as_one_that_was_not(drive, open_page, tmp_path):
    driven = drive(max_steps=30, log_every="5 steps")
    page = open_page(driven.studio.url)
    for name in ("Step", "Step", "Epoch"):
        press(page, name)
    driven.wait(lambda: driven.step == 3 and driven.trainer.paused)
    driven.wait_shown(page)
    page.keyboard.press("Space")
    driven.join()
    data, settings = line_data(), {"batch_size": 20, "seed": 0, "max_steps": 30, "log_every": "5 steps"}
    alone = type(driven.trainer)(data=data, validation_data=data, run_dir=tmp_path / "alone", **settings)
    alone.train()
    assert driven.step == 30 and driven.trainer.digest() == alone.digest()


# Cuts, reloads, others -------------------------------------------------------------------------------------------


class Cable:
    """Carries connections to a port, until it is cut."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.to = 0
        self.whole = self.carries = True
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.to))
            self._ends += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.whole:
                    return  # what was under way is lost
                if self.carries:
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            hang_up(source, sink)

    def cut(self) -> None:
        """Lose every connection, and let none through."""
        self.whole = False
        hang_up(*self._ends)

    def mend(self) -> None:
        """Let connections through again."""
        self.whole = self.carries = True

    def mute(self) -> None:
        """Swallow what is said, and end no connection: as a network does that has lost a route."""
        self.carries = False


def hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable() -> Iterator[Cable]:
    made = Cable()
    yield made
    made.cut()
    made.listener.close()


def test_what_is_asked_while_cut_off_is_done_exactly_once_afterwards(drive, open_page, cable):
    address = f"http://127.0.0.1:{cable.port}"
    driven = drive(studio={"origins": [address]})
    cable.to = int(re.search(r":(\d+)/", driven.studio.url)[1])
    page = open_page(f"{address}/#{driven.studio.url.partition('#')[2]}", clock=True)
    press(page, "Step")
    driven.wait(lambda: driven.step == 1)
    answered(page)
    cable.cut()
    strip = page.locator(".strip.cut")
    strip.wait_for()
    for _ in range(3):
        press(page, "Step")
    strip.filter(has_text="3 requests wait").wait_for()
    page.clock.fast_forward(10_000)
    page.wait_for_timeout(300)
    assert driven.step == 1
    cable.mend()
    strip.wait_for(state="hidden")
    answered(page)
    driven.wait(lambda: driven.step == 4)
    assert driven.events.count("run until") == 4
    # An answer that is lost on its way is asked for again, and the step not taken once more.
    page.evaluate("document.querySelector('.act.step').click()")
    cable.cut()
    driven.wait(lambda: strip.is_visible())
    cable.mend()
    strip.wait_for(state="hidden")
    answered(page)
    driven.wait(lambda: driven.step == 5)
    page.wait_for_timeout(300)
    assert driven.step == 5


def test_a_link_that_died_without_a_sound_is_noticed_and_made_anew(drive, open_page, cable):
    address = f"http://127.0.0.1:{cable.port}"
    driven = drive(studio={"origins": [address]})
    cable.to = int(re.search(r":(\d+)/", driven.studio.url)[1])
    page = open_page(f"{address}/#{driven.studio.url.partition('#')[2]}", clock=True)
    page.clock.fast_forward(30_000)
    answered(page)
    strip = page.locator(".strip.cut")
    assert strip.is_hidden()  # the run is paused and says nothing, but answers when it is asked
    cable.mute()
    press(page, "Step")
    page.clock.fast_forward(30_000)
    page.clock.fast_forward(10_000)
    strip.filter(has_text="2 requests wait").wait_for()
    cable.mend()
    press(page, "Try now")
    strip.wait_for(state="hidden")
    driven.wait(lambda: driven.step == 1)


def test_a_reload_keeps_control_and_journal_and_hides_the_token(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    press(page, "Step")
    driven.wait(lambda: driven.step == 1)
    page.get_by_text("you control").wait_for()
    assert "token" not in page.url
    driven.wait(lambda: driven.trainer.paused)
    driven.wait_shown(page)
    page.keyboard.press("Space")
    driven.wait(lambda: not driven.trainer.paused)
    page.reload()
    page.get_by_text("you control").wait_for()
    page.get_by_role("tab", name="Journal").click()
    page.locator(".journal li[data-event='run until']").wait_for()
    page.keyboard.press("Escape")
    button(page, "Pause").wait_for()
    assert driven.events.count("run until") == 1 and not driven.trainer.paused
    press(page, "Pause")  # what is asked now is not taken for what was asked before
    driven.wait(lambda: driven.trainer.paused)


def test_one_holds_control_and_others_see_who_and_may_take_over(drive, open_page):
    driven = drive()
    first = open_page(driven.studio.url)
    second = open_page(driven.studio.url)
    looker = open_page(driven.studio.view_url)
    press(first, "Step")
    driven.wait(lambda: driven.step == 1)
    first.get_by_text("you control").wait_for()
    second.get_by_text(re.compile("^Chrome on Linux controls")).wait_for()
    looker.get_by_text(re.compile("view only · Chrome on Linux controls")).wait_for()
    assert button(second, "Step").is_disabled() and button(looker, "Step").is_disabled()
    assert looker.get_by_role("button", name="Take over").count() == 0
    looker.keyboard.press("s")
    looker.get_by_role("alert").filter(has_text="only").wait_for()
    press(second, "Take over")
    second.get_by_text("you control").wait_for()
    first.get_by_text(re.compile("has taken control from")).wait_for()
    press(second, "Step")
    driven.wait(lambda: driven.step == 2)
    first.get_by_text(re.compile("^Chrome on Linux.* controls$")).wait_for()
    assert button(first, "Step").is_disabled()


def test_without_a_token_the_page_says_so(drive, open_page, chromium):
    driven = drive()
    context = chromium.new_context()
    page = context.new_page()
    page.goto(driven.studio.url.partition("#")[0])
    page.get_by_text("The studio has refused this page.").wait_for()
    context.close()


# Everybody's page ------------------------------------------------------------------------------------------------


class Hostile(Line):
    """Its metric is markup."""

    def step(self, batch):
        return super().step(batch) | {"<img src=x onerror=document.title='had'>": 1.0}


def test_names_and_texts_of_a_run_are_text_and_never_markup(drive, open_page, tmp_path):
    driven = drive(Hostile, log_every="1 step", run_dir=tmp_path / "<b>runs" / "<script>alert(1)<" / "v001")
    page = open_page(driven.studio.url)
    press(page, "Step")
    driven.wait(lambda: driven.step == 1)
    page.get_by_label("Run until: kind of condition").select_option("rule")
    page.locator("option", has_text="onerror").first.wait_for(state="attached")
    assert page.locator("h1").inner_text() == "<script>alert(1)</v001"
    assert page.locator("img[src='x'], h1 b, body > script").count() == 0 and "had" not in page.title()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_is_shown_with_its_traceback(drive, open_page):
    class Breaks(Line):
        def step(self, batch):
            if self.progress.step == 2:
                raise ValueError("a <b>strange</b> batch")
            return super().step(batch)

    driven = drive(Breaks)
    page = open_page(driven.studio.url)
    press(page, "Play")
    failure = page.get_by_role("region", name="Failure")
    failure.wait_for()
    assert "a <b>strange</b> batch" in failure.locator(".error").inner_text()
    assert "in step" in failure.locator("pre").inner_text() and "step 2" in failure.inner_text()
    assert page.title().startswith("✕")


FOCUSABLE = """() => [...document.querySelectorAll('button, input, select, textarea, a[href], summary, [tabindex]')]
  .filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0)
  .map((one, index) => (one.dataset.reach = index))"""


def test_every_control_is_reached_by_keyboard_and_the_help_lists_the_keys(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    press(page, "Step")
    driven.wait(lambda: driven.step == 1)
    page.get_by_text("you control").wait_for()
    button(page, "Play").wait_for()
    wanted = set(map(str, page.evaluate(FOCUSABLE)))
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(2 * len(wanted)):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.reach ?? ''"))
    missed = [page.locator(f"[data-reach='{one}']").evaluate("(one) => one.outerHTML") for one in wanted - reached]
    assert missed == []
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    help = page.get_by_role("dialog")
    for key in ("Space", "s", "e", "w", "v", "b", "c", "r", "t", "?"):
        assert help.locator("kbd", has_text=re.compile(f"^{re.escape(key)}$")).count() == 1, key
    page.keyboard.press("Escape")
    help.wait_for(state="detached")
    page.keyboard.press("s")
    driven.wait(lambda: driven.step == 2)
    page.keyboard.press("w")
    driven.wait(lambda: "checkpoint" in driven.events)
    page.keyboard.press("v")
    driven.wait(lambda: "validate" in driven.events)


def accessible(page: Any, within: str = "body", rules: str = "") -> list[str]:
    """What axe-core finds serious or critical in a part of a page, by all of its rules or one."""
    source = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        pytest.skip("axe-core is not installed here: make page")
    page.evaluate("document.querySelectorAll('.saying').forEach((one) => one.remove())")
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(source.read_text())
    only = {"runOnly": [rules]} if rules else {}
    found = page.evaluate(
        "([part, options]) => axe.run(part, options)", [within, {"resultTypes": ["violations"], **only}]
    )
    return [
        f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_nothing_serious_stands_in_the_way_of_anybody(drive, open_page):
    driven = drive(log_every="1 step")
    page = open_page(driven.studio.url, color_scheme="light")
    press(page, "Step")
    driven.wait(lambda: driven.step == 1)
    press(page, "Save")
    answered(page)
    assert accessible(page) == []
    for tab in ("Breaks", "States", "Journal"):
        page.get_by_role("tab", name=tab).click()
        assert accessible(page, ".side") == [], tab
    page.keyboard.press("r")
    page.locator(".runs tbody tr").first.wait_for()
    assert accessible(page, ".runs-page") == []
    page.keyboard.press("?")
    assert accessible(page, "dialog") == []
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.keyboard.press("t")  # light, which it is,
    page.keyboard.press("t")  # then dark
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert accessible(page, rules="color-contrast") == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert accessible(page) == []


def test_a_phone_has_transport_view_and_curves_without_scrolling_sideways(drive, open_page):
    driven = drive()
    other = open_page(driven.studio.url)
    press(other, "Save")
    answered(other)
    page = open_page(driven.studio.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.get_by_text(re.compile("controls$")).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Take over").tap()
    page.get_by_text("you control").wait_for()
    page.get_by_role("button", name="Step", exact=True).tap()
    driven.wait(lambda: driven.step == 1)
    assert not page.get_by_role("button", name="Save").is_visible()
    page.get_by_role("button", name="More").tap()
    page.get_by_role("button", name="Save").tap()
    driven.wait(lambda: driven.events.count("checkpoint") == 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    order = [page.locator(name).bounding_box()["y"] for name in (".panel.views", ".panel.curves", ".panel.side")]
    assert order == sorted(order)


def test_colours_are_chosen_and_kept(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url, color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.keyboard.press("t")
    assert page.evaluate(ground) != dark
    page.reload()
    page.locator(".head .stage[data-tone]").wait_for()
    assert page.evaluate(ground) != dark


def test_the_page_is_small_and_its_licences_are_with_it():
    static = Path(__file__).parents[3] / "src" / "treadle" / "studio" / "static"
    if not (static / "manifest.json").exists():
        pytest.skip("the studio's page is not built here: make page")
    manifest = json.loads((static / "manifest.json").read_text())
    names = {entry["name"] for entry in manifest["files"]}
    assert {path.name for path in static.iterdir()} == names | {"manifest.json"}
    licences = (static / "licences.txt").read_text()
    assert "uplot 1." in licences and "Permission is hereby granted" in licences
