"""Curves in a real browser: what is drawn lies where the values are, and nothing of them is lost."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import time

import numpy as np
import pytest
from PIL import Image

from treadle.testing import Line, line_data

STEPS = 60


def value(name: str, step: int) -> float:
    """What the trainer below logs at a step."""
    match name:
        case "flat":
            return 1.0
        case "saw":
            return float(step % 10) - 3.0
        case "falls":
            return 10.0 ** (-step / 20)
        case _:
            return {15: math.nan, 30: math.inf, 45: -math.inf}.get(step, 2.0)


class Told(Line):
    """`Line`, logging known values."""

    def step(self, batch):
        super().step(batch)
        step = self.progress.step + 1
        return {name: value(name, step) for name in ("flat", "saw", "falls", "odd", "long")}

    def validation_step(self, batch):
        super().validation_step(batch)
        return {"flat": 2.0}


@pytest.fixture
def told(drive):
    driven = drive(Told, log_every="1 steps", validate_every="5 steps", save_every="30 steps", monitor=None)
    driven.trainer.commands.advance(STEPS)
    driven.wait(lambda: driven.step == STEPS)
    return driven


@pytest.fixture
def page(told, open_page):
    opened = open_page(told.studio.url)
    drawn(opened, "flat")
    return opened


def chart(page, name: str):
    return page.locator(f".chart[aria-label='{name}']")


def drawn(page, name: str) -> tuple[float, float, float, float]:
    """The ranges of a chart's axes, once it has some: x from, x to, y from, y to."""
    chart(page, name).scroll_into_view_if_needed()
    page.wait_for_function("name => document.querySelector(`.chart[aria-label='${name}']`).dataset.range", arg=name)
    return tuple(map(float, chart(page, name).get_attribute("data-range").split()))


@pytest.fixture
def reaches(page, eventually):
    """Wait until the range of a chart's x is as it should be."""

    def check(name: str, condition) -> None:
        low, high = drawn(page, name)[:2]
        assert condition(low, high), f"the x of {name} go from {low} to {high}"

    return lambda name, condition: eventually(lambda: check(name, condition))


class Plot:
    """The pixels within a chart's axes, and where its values lie in them."""

    def __init__(self, page, name: str, log: bool = False):
        self.low, self.high, self.bottom, self.top = drawn(page, name)
        one, over = chart(page, name).locator("canvas"), chart(page, name).locator(".u-over")
        address = one.evaluate("canvas => canvas.toDataURL()")
        whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))
        outer, inner = one.bounding_box(), over.bounding_box()
        self.scale = whole.shape[1] / outer["width"]
        left, top = ((inner[side] - outer[side]) * self.scale for side in "xy")
        width, height = inner["width"] * self.scale, inner["height"] * self.scale
        self.pixels = whole[round(top) : round(top + height), round(left) : round(left + width)].astype(int)
        self.log = log

    def column(self, x: float) -> float:
        return (x - self.low) / (self.high - self.low) * self.pixels.shape[1]

    def row(self, y: float) -> float:
        along = math.log if self.log else float
        return (1 - (along(y) - along(self.bottom)) / (along(self.top) - along(self.bottom))) * self.pixels.shape[0]

    def like(self, colour) -> np.ndarray:
        """Where a colour is, nearly as strong as it is, (H, W)."""
        return (np.abs(self.pixels[..., :3] - colour).sum(-1) < 90) & (self.pixels[..., 3] > 150)


def colours(page) -> list[tuple[int, ...]]:
    """The colours of series, then that of what was given up."""
    texts = page.evaluate(
        """() => ["--series-1", "--series-2", "--series-3", "--lost"].map(name => {
            const probe = document.createElement("span");
            probe.style.color = `var(${name})`;
            document.body.append(probe);
            const found = getComputedStyle(probe).color;
            probe.remove();
            return found;
        })"""
    )
    return [tuple(int(part) for part in text[text.index("(") + 1 : -1].split(",")[:3]) for text in texts]


def only_training(page, name: str, others=("epoch", "validation")) -> None:
    """Leave the curve of training alone in a chart, beside which there are those of other splits."""
    for split in others:
        chart(page, name).locator(".legend").get_by_role("button", name=split, exact=True).click()


def near(mask: np.ndarray, row: float, column: float, reach: int = 2) -> bool:
    r, c = round(row), round(column)
    return bool(mask[max(r - reach, 0) : r + reach + 1, max(c - reach, 0) : c + reach + 1].any())


def test_a_curve_lies_where_its_values_are(page, eventually):
    first = colours(page)[0]

    @eventually
    def _():
        plot = Plot(page, "saw")
        mask = plot.like(first)
        for step in (3, 10, 19, 20, 37, 59):
            assert near(mask, plot.row(value("saw", step)), plot.column(step)), step
        assert not near(mask, plot.row(5.5), plot.column(10.0))


def test_log_axes_show_what_is_above_zero_and_count_the_rest(page, eventually):
    first = colours(page)[0]
    chart(page, "falls").get_by_role("button", name="Logarithmic values of falls").click()

    @eventually
    def _():
        plot = Plot(page, "falls", log=True)
        mask = plot.like(first)
        for step in (1, 20, 30, 40, 59):  # a straight line
            assert near(mask, plot.row(value("falls", step)), plot.column(step)), step

    chart(page, "saw").get_by_role("button", name="Logarithmic values of saw").click()
    under = sum(value("saw", step) <= 0 for step in range(1, STEPS + 1))
    chart(page, "saw").get_by_text(f"{under} values at or below 0 are not on a logarithmic axis").wait_for()
    page.get_by_label("log x").check()
    page.wait_for_timeout(300)  # as it was before, and stays
    low, high, *_ = drawn(page, "falls")
    assert low == 1 and high == STEPS


def test_curves_of_one_chart_differ_in_dashes_and_colour(page, eventually):
    first, second, third, _ = colours(page)

    def drawn_along(plot: Plot, height: float, ink) -> float:
        """The share of the x from step 6 to 54 in which a level line is drawn."""
        row = round(plot.row(height))
        along = plot.like(ink)[row - 1 : row + 2].any(0)
        return along[round(plot.column(6)) : round(plot.column(54))].mean()

    @eventually  # training lies at 1, with epochs over it, validation at 2; none of them moves
    def _():
        plot = Plot(page, "flat")
        assert 0.2 < drawn_along(plot, 2.0, third) < 0.85
        assert 0.2 < drawn_along(plot, 1.0, second) < 0.85

    only_training(page, "flat")

    @eventually
    def _():
        assert drawn_along(Plot(page, "flat"), 1.0, first) == 1.0


def test_what_is_no_number_is_a_mark(page, eventually):
    odd = chart(page, "odd")
    drawn(page, "odd")
    only_training(page, "odd", ("epoch",))
    odd.get_by_text("train: 1 NaN (×), 1 Inf (▲), 1 -Inf (▼)").wait_for()  # noqa: RUF001

    @eventually
    def _():
        plot = Plot(page, "odd")
        mask = plot.like(colours(page)[0])
        height = mask.shape[0]
        assert near(mask, 5, plot.column(15), 4) and near(mask, 5, plot.column(30), 4)
        assert near(mask, height - 5, plot.column(45), 4)
        line = mask[round(plot.row(2.0)) - 1 : round(plot.row(2.0)) + 2].any(0)
        assert line[round(plot.column(10))] and line[round(plot.column(20))]


def test_the_cursor_is_one_for_all_charts_and_moves_by_keys(page, reaches, eventually):
    def said(step: int) -> None:
        saw, falls = (chart(page, name).locator(".legend output").first.inner_text() for name in ("saw", "falls"))
        assert saw == f"{value('saw', step):g}" and float(falls) == pytest.approx(value("falls", step), rel=1e-3)

    @eventually
    def _():
        box = chart(page, "saw").locator(".u-over").bounding_box()
        plot = Plot(page, "saw")
        page.mouse.move(box["x"] + plot.column(27) / plot.scale, box["y"] + 20)
        said(27)

    chart(page, "saw").locator(".frame").focus()
    page.keyboard.press("ArrowRight")
    eventually(lambda: said(28))
    page.keyboard.press("+")
    reaches("falls", lambda low, high: low > 1 and high < STEPS)
    page.keyboard.press("0")
    reaches("falls", lambda low, high: (low, high) == (1, STEPS))


def test_a_table_has_the_values_that_are_drawn(page):
    chart(page, "saw").get_by_role("button", name="Table of the values of saw").click()
    rows = chart(page, "saw").locator(".table tbody tr")
    rows.nth(STEPS - 1).wait_for()
    found = [row.split("\t")[:2] for row in rows.all_inner_texts()]
    assert found == [[str(step), f"{value('saw', step):g}"] for step in range(1, STEPS + 1)]


def test_csv_is_what_was_logged(told, page):
    with page.expect_download() as downloading:
        chart(page, "flat").get_by_role("button", name="All values as CSV of flat").click()
    rows = list(csv.DictReader(io.StringIO(downloading.value.path().read_text())))
    lines = [json.loads(line) for line in (told.trainer.run.path / "metrics.jsonl").read_text().splitlines()]
    for split in ("train", "validation", "epoch"):
        of_split = [line for line in lines if line["split"] == split and "flat" in line["values"]]
        logged = {line["step"]: line["values"]["flat"] for line in of_split}
        assert {int(row["step"]): float(row[f"{split}/flat"]) for row in rows if row[f"{split}/flat"]} == logged
    assert downloading.value.suggested_filename.endswith("flat.csv")


def test_png_is_what_is_seen(page, eventually):
    @eventually
    def plot():
        plot = Plot(page, "saw")
        assert plot.like(colours(page)[0]).sum() > 300
        return plot

    with page.expect_download() as downloading:
        chart(page, "saw").get_by_role("button", name="Picture of saw").click()
    picture = np.asarray(Image.open(downloading.value.path()).convert("RGB")).astype(int)
    assert picture.shape[0] > plot.pixels.shape[0] and (np.abs(picture - colours(page)[0]).sum(-1) < 60).sum() > 300


def test_events_are_marks_with_their_text(told, page, eventually):
    told.trainer.commands.save().result(60)
    tip = chart(page, "saw").locator(".tip")

    @eventually
    def _():
        plot = Plot(page, "saw")
        box = chart(page, "saw").locator(".u-over").bounding_box()
        page.mouse.move(box["x"] + plot.column(STEPS) / plot.scale - 1, box["y"] + 20)
        assert tip.is_visible() and "checkpoint" in tip.inner_text()

    page.locator("#curves-x").select_option("time")

    @eventually
    def _():
        assert drawn(page, "saw")[1] != STEPS  # seconds, not steps
        box = chart(page, "saw").locator(".u-over").bounding_box()
        for share in np.linspace(1, 0, 60):
            page.mouse.move(box["x"] + share * (box["width"] - 2), box["y"] + 20)
            if tip.is_visible():
                break
        assert tip.is_visible() and tip.inner_text()


def test_what_was_given_up_stays_in_grey(told, page, eventually):
    told.trainer.commands.advance(30)
    told.wait(lambda: told.step == STEPS + 30)
    told.trainer.commands.rewind(STEPS).result(60)
    told.wait(lambda: told.step == STEPS)

    @eventually
    def _():
        plot = Plot(page, "saw")
        assert plot.high == STEPS + 30
        grey, first = plot.like(colours(page)[3]), plot.like(colours(page)[0])
        after = slice(round(plot.column(STEPS)) + 4, None)
        assert grey[:, after].sum() > 100 and not first[:, after].any()


def test_smoothing_leaves_the_values_behind(page, eventually):
    only_training(page, "saw", ("epoch",))
    page.locator("#curves-smoothing").fill("0.6")

    @eventually
    def _():
        plot = Plot(page, "saw")
        mask = plot.like(colours(page)[0])
        line = [np.nonzero(mask[:, round(plot.column(step))])[0] for step in range(20, 56)]
        assert all(len(rows) for rows in line)
        tall = max(rows.mean() for rows in line) - min(rows.mean() for rows in line)
        assert tall < 0.5 * abs(plot.row(6.0) - plot.row(-3.0))  # the average moves less
        faint = (plot.pixels[..., 3] > 40) & ~mask
        assert near(faint, plot.row(6.0), plot.column(49)) and near(faint, plot.row(-3.0), plot.column(40))


def add(driven, metrics: dict[str, list]) -> None:
    """Write values to the run's log, for the steps after what it has."""
    names, now = list(metrics), time.time()
    with (driven.trainer.run.path / "metrics.jsonl").open("a") as log:
        for step, values in enumerate(zip(*metrics.values(), strict=True), driven.step + 1):
            told = ",".join(f'"{name}":{one}' for name, one in zip(names, values, strict=True))
            log.write(f'{{"split":"train","step":{step},"epoch":1,"time":{now},"values":{{{told}}}}}\n')


def test_a_spike_of_one_value_in_a_million_is_seen_and_zoom_asks_for_what_is_there(told, page, reaches, eventually):
    spike = 700_003
    add(told, {"long": np.where(np.arange(STEPS + 1, 1_000_001) == spike, "50", "2.5").tolist()})
    for unit in ("epoch", "step"):  # asks anew
        page.locator("#curves-x").select_option(unit)
    reaches("long", lambda low, high: high == 1_000_000)

    @eventually
    def _():
        plot = Plot(page, "long")
        mask = plot.like(colours(page)[0])
        assert near(mask, plot.row(50), plot.column(spike)) and near(mask, plot.row(26), plot.column(spike))
        assert mask[round(plot.row(40))].sum() <= 2 * plot.scale + 1

    # Zoom to a hundred steps around it: every value is a point of its own.
    for width in (100_000, 3000):
        plot = Plot(page, "long")
        box = chart(page, "long").locator(".u-over").bounding_box()
        middle = box["x"] + plot.column(spike) / plot.scale
        page.mouse.move(middle - 12, box["y"] + 30)
        page.mouse.down()
        page.mouse.move(middle + 12, box["y"] + 32, steps=3)
        page.mouse.up()
        reaches("long", lambda low, high, width=width: high - low < width)
    low, high = drawn(page, "long")[:2]
    assert low < spike < high
    reaches("saw", lambda *both: both == (low, high))
    chart(page, "long").get_by_role("button", name="Table of the values of long").click()
    chart(page, "long").locator(".table").get_by_text("50", exact=False).first.wait_for()


def test_drawing_takes_less_than_a_frame(drive, open_page):
    class Eight(Line):
        def step(self, batch):
            super().step(batch)
            return {f"metric{i}": math.sin(self.progress.step * (i + 1)) for i in range(8)}

    driven = drive(Eight, log_every="1 steps")
    driven.trainer.commands.advance(1)
    driven.wait(lambda: driven.step == 1)
    noise = np.random.default_rng(0).standard_normal((8, 3999)).round(6)
    add(driven, {f"metric{i}": noise[i].tolist() for i in range(8)})
    page = open_page(driven.studio.url, device_scale_factor=4, viewport={"width": 1800, "height": 4000})
    drawn(page, "metric7")
    page.evaluate("document.querySelector('.charts').style.gridTemplateColumns = '1fr'")  # wide enough for all points
    page.wait_for_function(
        """() => [...document.querySelectorAll(".chart")].every(
            chart => chart.ariaLabel === "lr" || chart.dataset.points === "4000"
        )""",
        timeout=60_000,  # drawn in software, with sixteen times the pixels
    )
    page.evaluate(
        """() => {
            window.times = [];
            const given = performance.measure.bind(performance);
            performance.measure = (name, options) => {
                const entry = given(name, options);
                if (name === "curves") window.times.push(entry.duration);
                return entry;
            };
        }"""
    )

    chart(page, "metric0").locator(".frame").focus()
    for key in ["Shift+ArrowRight", "Shift+ArrowLeft"] * 8:
        before = page.evaluate("window.times.length")
        page.keyboard.press(key)
        page.wait_for_function("before => window.times.length >= before + 8", arg=before)
    times = page.evaluate("window.times")
    sums = np.array(times[: len(times) // 8 * 8]).reshape(-1, 8).sum(1)
    middle, high = np.percentile(sums, [50, 95])
    print(f"redraw of 8 curves of 4,000 points: p50 {middle:.1f} ms, p95 {high:.1f} ms, {len(sums)} redraws")
    assert len(sums) >= 10
    assert middle < 160, "ten times the bar of 16 ms, for a machine that is busy"


class Higher(Told):
    """The same, one more."""

    def step(self, batch):
        return {name: one + 1 for name, one in super().step(batch).items()}


def test_runs_are_laid_over_one_another_and_subtracted(told, page, eventually):
    settings = {"batch_size": 20, "seed": 0, "max_steps": 40, "log_every": "1 steps", "monitor": None}
    Higher(data=line_data(), run_dir=told.trainer.run.path.parent / "v002", **settings).train()
    page.locator("details.choice summary").click()
    page.get_by_label("tiny/v002").check()
    page.locator("details.choice summary").click()
    chart(page, "saw").get_by_text("train of tiny/v002").wait_for()

    @eventually
    def _():
        plot, inks = Plot(page, "saw"), colours(page)
        own, other = plot.like(inks[0]), plot.like(inks[1])
        assert near(own, plot.row(6), plot.column(29)) and near(other, plot.row(7), plot.column(29))
        assert not other[:, round(plot.column(42)) :].any()

    page.locator("#curves-minus").select_option("tiny/v002")
    chart(page, "saw").get_by_text("train of this run minus tiny/v002").first.wait_for()
    chart(page, "saw").get_by_role("button", name="Table of the values of saw").click()

    @eventually
    def _():
        rows = [row.split("\t") for row in chart(page, "saw").locator(".table tbody tr").all_inner_texts()]
        assert [row[:2] for row in rows[:40]] == [[str(step), "-1"] for step in range(1, 41)]


def test_histograms_and_the_time_are_shown(told, page):
    page.locator("summary", has_text="Histograms").click()
    page.locator(".measured").get_by_role("button", name="Show").click()
    shown = page.locator(".histograms figure")
    shown.nth(1).wait_for()
    assert {text.split()[0] for text in shown.locator("figcaption").all_inner_texts()} == {"model.weight", "model.bias"}
    page.locator("summary", has_text="Time").click()
    told.trainer.commands.resume()
    page.locator(".timing tbody tr", has_text="the trainer's step").get_by_text("ms").wait_for()
    page.locator(".timing .note", has_text="over the last").wait_for()
    told.trainer.commands.pause()
    shares = page.locator(".timing tbody").first.locator("td:nth-child(2)").all_inner_texts()
    assert sum(float(share.removesuffix(" %")) for share in shares) == pytest.approx(100, abs=0.5)
