"""The page of a sweep and its picture on the terminal; the page in a real browser, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treadle.sweeps.coordinates import axes, draw
from treadle.sweeps.page import page, write_page
from treadle.sweeps.plan import Plan, Planned
from treadle.sweeps.trials import Sweep, Trial

SEARCH = {"learning_rate": "log:1e-4..1e-1", "levels": "8|12|16", "<b>": "0..1"}


def a_sweep(path: Path, direction: str = "min", repeat: int = 1, count: int = 12) -> Sweep:
    plan = Plan("s", SEARCH, 20, "tpe", "median", "loss", direction, repeat, 0, None, "")
    rates = [1e-4 * 10 ** (3 * index / (count - 1)) for index in range(count)]
    drawn = [
        {"learning_rate": rate, "levels": ("8", "12", "16")[index % 3], "<b>": index / count}
        for index, rate in enumerate(rates)
    ]
    trials = [
        Trial(index + 1, each, 1, "finished", (1.0 + index, 1.2 + index)[:repeat], 100, 2.5, path=path)
        for index, each in enumerate(drawn)
    ]
    rest = [
        Trial(count + 1, drawn[0], 1, "pruned", (5.0,), 10, 0.2, path=path),
        Trial(count + 2, drawn[1], 1, "failed", (), 3, 0.1, "ValueError: <script>alert(1)</script>", path=path),
    ]
    ranked = trials if direction == "min" else trials[::-1]
    importance = {"learning_rate": 0.7, "levels": 0.2, "<b>": 0.1}
    return Sweep(path, Planned(path, plan, {"trainer": "image"}), [*ranked, *rest], importance)


def test_axes_have_their_own_scales_and_the_best_is_on_top(tmp_path: Path) -> None:
    rate, levels, linear, metric = axes(a_sweep(tmp_path))
    assert [round(place, 3) for place in rate.places[:3]] == [0.0, 0.091, 0.182] and rate.places[-1] == 1.0
    assert rate.ticks == [(0.0, "0.0001"), (1.0, "0.1")]
    assert levels.ticks == [(0.0, "8"), (0.5, "12"), (1.0, "16")] and list(levels.places[:4]) == [0, 0.5, 1, 0]
    assert linear.places[6] == pytest.approx(0.5)
    assert metric.places[0] == 1.0 and metric.places[-1] == 0.0 and metric.ticks[-1] == (1.0, "1")
    assert axes(a_sweep(tmp_path, "max"))[-1].places[0] == 1.0


def test_the_picture_fits_the_terminal_and_the_best_stands_out(tmp_path: Path) -> None:
    for width in (60, 80, 120):
        lines = draw(a_sweep(tmp_path), width).splitlines()
        assert max(map(len, lines)) <= width and len(lines) == 15
        assert lines[0].split() == ["learning_rate", "levels", "<b>", "loss"]
        assert all(line[1] in "│┤" for line in lines[1:])
    colored = draw(a_sweep(tmp_path), 80, color=True)
    assert "\x1b[38;5;10m" in colored and "\x1b[38;5;8m" in colored
    assert draw(Sweep(tmp_path, a_sweep(tmp_path).planned, []), 80) == ""


def test_the_page_says_it_all_and_needs_nothing_else(tmp_path: Path) -> None:
    text = page(a_sweep(tmp_path, repeat=2))
    assert text.count("<path class=") == 12 and text.count('class="trial best"') == 1
    assert "14 of 20 trials: 12 finished, 1 pruned, 1 failed" in text and "smaller is better" in text
    assert "<script>alert" not in text and "&lt;script&gt;" in text and "<b>" not in text
    for elsewhere in ("http", "src=", "@import", "url("):
        assert elsewhere not in text
    assert "spread" in text and "0.1414" in text


def test_with_many_settings_the_picture_is_wider_and_long_names_are_cut(tmp_path: Path) -> None:
    found = a_sweep(tmp_path)
    search = {f"decoder.some_group.rate_{index}": "0..1" for index in range(9)}
    trials = [replace(trial, drawn=dict.fromkeys(search, 0.5)) for trial in found.trials]
    planned = replace(found.planned, plan=replace(found.planned.plan, search=search))
    text = page(replace(found, planned=planned, trials=trials, importance={}))
    assert 'viewBox="0 0 1510 320"' in text
    assert ">decoder.some_grou…<title>decoder.some_group.rate_8</title>" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_the_page_in_a_browser(browser: Any, tmp_path: Path) -> None:
    write_page(a_sweep(tmp_path))
    colors: list[str] = []
    errors: list[Any] = []
    for scheme in ("light", "dark"):
        view = browser.new_page(color_scheme=scheme, viewport={"width": 1000, "height": 900})
        view.on("pageerror", lambda error: errors.append(error))
        view.on("request", lambda request: errors.append(request.url) if "index.html" not in request.url else None)
        view.goto((tmp_path / "index.html").as_uri())
        colors.append(view.evaluate("getComputedStyle(document.querySelector('.best')).stroke"))
        numbers = "[...document.querySelectorAll('.trials tbody tr')].map(row => row.dataset.trial)"
        assert view.evaluate(numbers)[:3] == ["1", "2", "3"]
        view.click("text=learning_rate >> nth=-1")
        view.click("text=learning_rate >> nth=-1")
        assert view.evaluate(numbers)[0] == "12"
        view.hover(".trials tr[data-trial='7']")
        assert view.evaluate("document.querySelector('path.lit').dataset.trial") == "7"
        assert view.evaluate("document.documentElement.scrollWidth") <= 1000 and not errors
        if shots := os.environ.get("SWEEP_PICTURES"):  # to be looked at
            view.screenshot(path=f"{shots}/{scheme}.png", full_page=True)
        view.close()
    assert colors[0] != colors[1]


def test_the_page_in_a_narrow_window(browser: Any, tmp_path: Path) -> None:
    write_page(a_sweep(tmp_path))
    view = browser.new_page(viewport={"width": 390, "height": 900})
    view.goto((tmp_path / "index.html").as_uri())
    heights = view.evaluate("[...document.querySelectorAll('.trials tbody tr')].map(row => row.offsetHeight)")
    assert sorted(heights)[11] < 60  # none is tall for a column of single letters, but those of an error
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
