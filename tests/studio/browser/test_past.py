"""The page's timeline, breakpoints, edits and runs, in a real browser, with what they leave in the run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from treadle.runs.fork import fork_run
from treadle.runs.run import read_config
from treadle.testing import Line, line_data


def button(page: Any, name: str) -> Any:
    """The button of that name, as a reader of the screen would find it."""
    return page.get_by_role("button", name=name, exact=True)


def press(page: Any, name: str) -> None:
    """Press a button, also where the machine is too busy for the browser to find it still."""
    button(page, name).dispatch_event("click")


def advance(driven: Any, page: Any, steps: int) -> None:
    """Take so many steps from the page."""
    to = driven.step + steps
    page.get_by_label("How many steps").fill(str(steps))
    press(page, "Steps")
    driven.wait(lambda: driven.step == to and driven.trainer.paused)
    driven.wait_shown(page)


def test_a_kept_state_is_looked_at_once_its_memory_was_accepted_and_the_run_does_not_notice(drive, open_page):
    driven = drive(save_every="5 steps")
    page = open_page(driven.studio.url)
    advance(driven, page, 12)
    digest = driven.trainer.digest()
    state = page.locator(".state[data-step='5']")
    state.wait_for()
    assert "checkpoint" in state.get_attribute("aria-label")
    state.dispatch_event("click")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(re.compile("This takes .* of memory beside the run")).wait_for()
    dialog.get_by_role("button", name="Load it").click()
    strip = page.get_by_role("region", name="Looking back")
    strip.get_by_text("Looking at step 5, read only.").wait_for()
    page.locator(".state[data-step='5'][aria-pressed=true]").wait_for()
    assert driven.step == 12 and driven.trainer.digest() == digest
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("l")
    strip.wait_for(state="hidden")
    assert "rewind" not in driven.events


def test_breakpoints_pause_until_they_are_removed(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    page.get_by_role("tab", name="Breaks").click()
    page.get_by_label("Breakpoint: kind of condition").select_option("event")
    page.get_by_label("Breakpoint: event").select_option("checkpoint")
    press(page, "Add")
    driven.wait(lambda: "breakpoint set" in driven.events)
    remove = button(page, "Remove the breakpoint event checkpoint")
    remove.wait_for()
    press(page, "Play")
    driven.wait(lambda: driven.step > 2)
    driven.trainer.commands.save()
    driven.wait(lambda: driven.trainer.paused)
    page.locator(".breaks .hits", has_text="reached once").wait_for()
    driven.wait(lambda: page.title().startswith("❙❙"))
    remove.dispatch_event("click")
    driven.wait(lambda: "breakpoint removed" in driven.events)
    page.get_by_text("No breakpoints.").wait_for()


def test_a_breakpoint_that_only_marks_lets_the_run_go_on(drive, open_page):
    driven = drive(max_steps=40)
    page = open_page(driven.studio.url)
    page.get_by_role("tab", name="Breaks").click()
    page.get_by_label("Breakpoint: kind of condition").select_option("step")
    page.get_by_label("Breakpoint: number").fill("5")
    page.get_by_label("What the breakpoint does").select_option("mark")
    press(page, "Add")
    driven.wait(lambda: "breakpoint set" in driven.events)
    press(page, "Play")
    driven.wait(lambda: driven.step > 8)
    page.locator(".breaks .hits", has_text="reached once").wait_for()
    assert [entry["step"] for entry in driven.journal if entry["event"] == "breakpoint"] == [5]
    assert not driven.trainer.paused


def test_a_run_s_pictures_report_and_family_are_shown(drive, open_page, tmp_path: Path):
    parent = tmp_path / "runs" / "old" / "v001"
    trainer = Line(data=line_data(), batch_size=20, max_steps=6, save_every="3 steps", run_dir=parent.parent)
    trainer.train()
    (parent / "examples").mkdir(exist_ok=True)
    Image.new("RGB", (12, 8), (200, 30, 30)).save(parent / "examples" / "step-00000003.png")
    fork_run(parent, 3, read_config(parent), tmp_path / "runs" / "young")
    driven = drive()
    page = open_page(driven.studio.url)
    page.keyboard.press("r")
    page.locator(".runs tbody tr", has_text="old/v001").wait_for()
    press(page, "Family tree")
    button(page, "Family tree").and_(page.locator("[aria-pressed=true]")).wait_for()
    page.locator("tr", has_text="young/v001").locator("[aria-label='fork of old/v001']").wait_for()
    page.get_by_role("button", name="old/v001").first.dispatch_event("click")
    details = page.get_by_role("dialog")
    details.get_by_role("tab", name="Report").click()
    details.get_by_role("row", name="status finished").wait_for()
    details.get_by_role("tab", name=re.compile("^Pictures")).click()
    page.wait_for_function("() => document.querySelector('.album img')?.naturalWidth === 12")


def test_runs_are_filtered_sorted_compared_and_opened(drive, open_page, tmp_path: Path):
    for name, steps in (("short", 3), ("long", 6)):
        Line(data=line_data(), batch_size=20, max_steps=steps, run_dir=tmp_path / "runs" / name / "v001").train()
    driven = drive()
    page = open_page(driven.studio.url)
    page.keyboard.press("r")
    rows = page.locator(".runs tbody tr")
    page.locator(".runs tbody tr", has_text="short/v001").wait_for()
    assert rows.count() == 3 and page.locator("tr.own", has_text="tiny/v001").count() == 1
    page.get_by_label("Filter runs").fill("step >= 3")
    press(page, "Filter")
    page.get_by_text("2 runs.").wait_for()
    page.get_by_role("columnheader", name=re.compile("^Step")).get_by_role("button").dispatch_event("click")
    page.locator("th[aria-sort=descending]", has_text="Step").wait_for()
    assert "long/v001" in rows.first.inner_text()
    for name in ("short/v001", "long/v001"):
        page.get_by_label(f"Choose {name}").check()
    press(page, "What differs")
    page.get_by_role("region", name="What differs").get_by_role("row", name=re.compile("max_steps 3 6")).wait_for()
    page.get_by_label("Filter runs").fill("step >>")
    press(page, "Filter")
    page.get_by_role("alert").filter(has_text=re.compile(">>|filter")).wait_for()
    page.get_by_role("button", name="long/v001").dispatch_event("click")
    details = page.get_by_role("dialog")
    details.get_by_text("max_steps: 6").wait_for()
    details.get_by_role("tab", name="Journal").click()
    details.locator("li[data-event=finish]").wait_for()


def test_edits_are_proposed_applied_and_undone(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    advance(driven, page, 2)
    page.get_by_role("tab", name="Edits").click()
    rate = page.get_by_label(re.compile("learning rate of optimizer"))
    rate.fill("-1")
    page.get_by_role("group", name="Proposed changes").get_by_role("alert").filter(has_text="learning rate").wait_for()
    assert button(page, "Apply").is_disabled()
    rate.fill("0.5")
    page.get_by_role("group", name="Proposed changes").get_by_role("row", name=re.compile("1 .* 0.5")).wait_for()
    assert "edit" not in driven.events
    press(page, "Apply")
    driven.wait(lambda: driven.trainer.loop.edits.in_force() != [])
    edit = next(entry for entry in driven.journal if entry["event"] == "edit")
    assert (edit["before"], edit["after"], edit["step"]) == (1.0, 0.5, 2) and "Chrome" in edit["client"]
    assert "checkpoint" in driven.events  # from before the first
    page.locator(".history li").wait_for()
    rate.fill("-1")  # what was proposed before stands no more beside what is wrong
    page.get_by_role("group", name="Proposed changes").get_by_role("alert").filter(has_text="learning rate").wait_for()
    assert page.locator(".proposal tr").count() == 0
    press(page, "Discard")
    press(page, "Undo the last edit")
    driven.wait(lambda: driven.trainer.loop.edits.in_force() == [])
    driven.wait(lambda: page.evaluate("document.querySelector('.editable input').value") == "1")


def test_continuing_from_a_state_asks_keeps_the_future_and_greys_what_was_given_up(drive, open_page):
    driven = drive(save_every="4 steps")
    page = open_page(driven.studio.url)
    advance(driven, page, 10)
    page.get_by_role("tab", name="States").click()
    press(page, "Continue from step 4")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(re.compile("The 6 steps in between are given up")).wait_for()
    assert dialog.get_by_role("checkbox", name=re.compile("Keep the given-up future")).is_checked()
    dialog.get_by_role("button", name="Cancel").click()
    assert driven.step == 10
    press(page, "Continue from step 4")
    page.get_by_role("dialog").get_by_role("button", name="Continue from 4").click()
    driven.wait(lambda: driven.step == 4)
    page.locator(".stretch[title='Given up: steps 4 to 10']").wait_for(state="attached")
    driven.wait(lambda: len(list(driven.trainer.run.path.parent.glob("v*"))) == 2, "the future is kept as a fork")


def test_a_bookmark_is_journalled_and_marked(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url)
    advance(driven, page, 3)
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("b")
    page.get_by_role("dialog").get_by_label("Note").fill("the <i>windows</i> are sharp")
    page.get_by_role("dialog").get_by_role("button", name="Bookmark").click()
    driven.wait(lambda: "note" in driven.events)
    page.locator(".timeline .mark[aria-label*='the <i>windows</i> are sharp']").wait_for(state="attached")


def test_who_is_elsewhere_is_called_when_the_run_pauses(drive, open_page):
    driven = drive()
    page = open_page(driven.studio.url, permissions=["notifications"])
    page.evaluate(
        """() => {
          window.told = [];
          const asked = () => Promise.resolve("granted");
          window.Notification = class { constructor(title, { body }) { told.push(`${title}: ${body}`); } };
          Object.assign(Notification, { permission: "granted", requestPermission: asked });
        }"""
    )
    page.get_by_role("tab", name="Breaks").click()
    page.get_by_role("checkbox", name=re.compile("^Notify me")).check()
    advance(driven, page, 2)
    assert page.evaluate("told") == []  # it is looked at
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    advance(driven, page, 2)
    driven.wait(lambda: page.evaluate("told.length") > 0)
    assert page.evaluate("told[0]") == "tiny/v001: paused: reached step 4"


def test_branches_are_shown_with_what_they_do_and_can_be_told(drive, open_page):
    driven = drive()
    from treadle.studio.protocol import Branches

    page = open_page(driven.studio.url)
    running = {"run": "tiny/v002", "step": 5, "settings": {"learning_rate": 0.002}, "stage": "running", "alive": True}
    running |= {"error": "", "lines": [], "at": 1200, "max_steps": 3000, "rate": 40.0, "metrics": {"train/loss": 0.25}}
    failed = {**running, "run": "tiny/v003", "stage": "gone", "alive": False, "error": "no <b>memory</b>", "lines": []}
    driven.studio.live.publisher.publish_latest(Branches(runs=[running, failed]))
    rows = page.get_by_role("region", name="Branches").get_by_role("listitem")
    rows.nth(1).wait_for()
    text = rows.first.inner_text()
    assert "running" in text and "from step 5, learning_rate = 0.002" in text
    assert re.search(r"step 1.200 / 3.000 · 40 steps/s · train/loss 0.25", text)
    assert "no <b>memory</b>" in rows.nth(1).inner_text() and rows.nth(1).get_by_role("button").count() == 0
    press(page, "Show tiny/v002 beside this run")
    page.locator("option", has_text="tiny/v002").first.wait_for(state="attached")
    press(page, "Pause tiny/v002")  # which is not there
    page.get_by_role("alert").filter(has_text="'tiny/v002' is no branch that is trained beside this run").wait_for()
