"""Another run beside this one, in a real browser: chosen in the split pane's list, seen, moved with it, let go of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="the studio's packages are not installed: pip install 'treadle[studio]'")

from treadle.cameras.camera import Camera
from treadle.recipes.registry import load_recipe
from treadle.reports.views import LiveView, Window
from treadle.studio.protocol import Watch
from treadle.testing import Line, line_data

FAR = np.eye(4)
FAR[2, 3] = 3.0


class Room(LiveView):
    """A grey that is the line's slope, seen from anywhere; notes from where."""

    kind = "space"
    lossless = True

    def __init__(self, trainer: Line) -> None:
        self.trainer = trainer
        SEEN.setdefault(trainer.config.seed, [])

    def cameras(self) -> list[Camera]:
        return [Camera(64, 64, 77.0, 77.0, 32.0, 32.0, FAR, name="front")]

    def draw(self, window: Window) -> Any:
        SEEN[self.trainer.config.seed].append(window.camera)
        return np.full((window.size[1], window.size[0]), grey(self.trainer), np.uint8)


SEEN: dict[int, list[Any]] = {}
"""The cameras that the view of the run with a seed was drawn from."""


def grey(trainer: Line) -> int:
    return int(trainer.model.weight.item() * 50) % 256


class Roomy(Line):
    def views(self) -> Mapping[str, Any]:
        return {"room": Room(self)}


def colour(page: Any, pane: int) -> int:
    """Of the middle of what a pane shows."""
    return page.evaluate(
        """pane => {
          const canvas = document.querySelectorAll(".pane .screen canvas:first-child")[pane];
          const { width, height } = canvas;
          return canvas.getContext("2d").getImageData(width / 2, height / 2, 1, 1).data[0];
        }""",
        pane,
    )


def train(run: Path, **settings: Any) -> int:
    """Train a run to its end; returns the grey that it shows then."""
    settings = {"batch_size": 20, "max_steps": 6, "save_every": "3 steps", "keep_checkpoints": 9} | settings
    with Roomy(data=line_data(), validation_data=line_data(), run_dir=run, **settings) as trainer:
        trainer.train()
        return grey(trainer)


def test_another_run_is_chosen_in_the_split_pane_seen_by_one_camera_and_let_go_of(drive, open_page, tmp_path):
    runs = tmp_path / "runs"
    then = train(runs / "other" / "v001", seed=7)
    driven = drive(Roomy, seed=3)
    page = open_page(driven.studio.url)
    page.get_by_role("button", name="Split").click()
    page.locator(".pane[data-still=true]").nth(1).wait_for()
    subject = page.get_by_label("What pane 2 looks at")
    subject.select_option("another run …")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(re.compile(r"It takes about [\d.]+ kB of memory beside this run; .* are free")).wait_for()
    assert subject.input_value() == "live"  # what is shown is not yet another
    states = dialog.get_by_label("State of other/v001").locator("option").all_inner_texts()
    assert [text.partition(",")[0] for text in states] == ["step 6: checkpoint", "step 3: checkpoint"]
    dialog.get_by_role("button", name="Show it").click()
    strip = page.get_by_role("region", name="Beside this run")
    strip.get_by_text("other/v001 at step 6, read only").wait_for()
    page.locator(".pane").nth(1).get_by_text("other/v001, kept state 6, step 6").wait_for()
    driven.wait(lambda: colour(page, 1) == then, "the other run's grey")
    assert colour(page, 0) == grey(driven.trainer) != then
    assert page.get_by_label("What pane 1 looks at").input_value() == "live"
    # One camera for both; and the run goes on beside it.
    page.locator(".screen").first.focus()
    counts = {seed: len(SEEN[seed]) for seed in (3, 7)}
    page.keyboard.press("ArrowLeft")
    driven.wait(lambda: all(len(SEEN[seed]) > counts[seed] for seed in (3, 7)), "both panes")
    driven.wait(lambda: np.allclose(SEEN[3][-1].world_to_camera, SEEN[7][-1].world_to_camera, atol=1e-9))
    assert not np.allclose(SEEN[7][-1].world_to_camera, FAR)
    driven.trainer.commands.advance(4)
    driven.wait(lambda: driven.step == 4)
    # Another of its states, then none.
    strip.get_by_role("button", name="Another state of other/v001").click()
    dialog.get_by_label("State of other/v001").select_option("3")
    dialog.get_by_role("button", name="Show it").and_(page.locator(":enabled")).click()
    page.locator(".pane").nth(1).get_by_text("other/v001, kept state 3, step 3").wait_for()
    strip.get_by_role("button", name="Let go of other/v001").click()
    strip.wait_for(state="hidden")
    page.locator(".pane").nth(1).get_by_text("live, step 4").wait_for()
    with pytest.raises(Exception, match="is not open beside this run"):
        watch_other(driven)


def watch_other(driven: Any) -> None:
    """Ask for what was let go of."""
    from treadle.studio.client import StudioClient

    with StudioClient(driven.studio.url) as client:
        client.request(Watch(id=0, view="room", run="other/v001"))


def test_a_run_of_another_recipe_has_its_own_views(drive, open_page, tmp_path):
    settings = {"max_steps": 2, "save_every": "2 steps", "examples_every": None, "validate_every": None}
    recipe = load_recipe("image").with_settings({**settings, "monitor": None, "batch_size": 64})
    with recipe.build(run_dir=tmp_path / "runs" / "photo" / "v001") as trainer:
        trainer.train()
    driven = drive(Roomy, seed=3)
    page = open_page(driven.studio.url)
    page.keyboard.press("r")
    page.get_by_role("button", name="photo/v001").dispatch_event("click")
    page.get_by_role("dialog").get_by_role("button", name="Show beside this run").click()
    dialog = page.get_by_role("dialog", name="Show photo/v001 beside this run")
    dialog.get_by_role("button", name="Show it").and_(page.locator(":enabled")).click()
    page.locator(".pane").get_by_text("photo/v001, kept state 2, step 2").wait_for()
    assert "Fit, target and error" in page.get_by_label("View of pane 1").locator("option").all_inner_texts()
    page.get_by_label("What pane 1 looks at").select_option("live")
    page.locator(".pane").get_by_text("live, step 0").wait_for()


def test_what_cannot_be_shown_is_said_where_it_is_chosen(drive, open_page, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    train(runs / "bare" / "v001", max_steps=1)
    for name in ("checkpoints", "best_model"):
        (runs / "bare" / "v001" / name).rename(tmp_path / name)
    train(runs / "large" / "v001")
    driven = drive(Roomy)
    monkeypatch.setattr("treadle.studio.past.looking.free_memory", lambda device: 1000)
    page = open_page(driven.studio.url)
    page.get_by_label("What pane 1 looks at").select_option("another run …")
    dialog = page.get_by_role("dialog")
    show = dialog.get_by_role("button", name="Show it")
    dialog.get_by_label("Run, the newest first").select_option("bare/v001")
    dialog.get_by_text("bare/v001 has kept no state").wait_for()
    assert show.is_disabled()
    dialog.get_by_label("Run, the newest first").select_option("large/v001")
    dialog.get_by_text("There is not enough memory for it.").wait_for()
    assert show.is_disabled()
