"""The page of a sweep: one static file with its trials as a table and as parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from urllib.parse import quote

from treadle.files import write_whole
from treadle.reports.document import document
from treadle.sweeps.coordinates import Axis, axes, shown_trials
from treadle.sweeps.plan import BEST
from treadle.sweeps.trials import State, Sweep, Trial, runs_of, words

PAGE = "index.html"
WIDTH, HEIGHT, TOP, SIDE = 960, 320, 34, 80
"""Of the picture, in its own units; with many axes it is wider."""
SPACING, LETTERS = 150, 18
"""The least from one axis to the next, and the letters of a name that fit there."""


def write_page(sweep: Sweep) -> None:
    """Write the page into the sweep's directory. Raises OSError where the disk refuses."""
    write_whole(sweep.path / PAGE, page(sweep))


def page(sweep: Sweep) -> str:
    """The page as HTML. Names and values are escaped; a line and a row of the table that are one trial light up
    together, and a heading sorts."""
    plan = sweep.planned.plan
    states = ", ".join(f"{sweep.count(state)} {state}" for state in _STATES if sweep.count(state))
    said = f"{sweep.planned.recipe.get('trainer', '')} · {len(sweep.trials)} of {plan.trials} trials: {states}"
    how = f"{plan.sampler}{', pruned by the median' if plan.prune else ''}"
    how += f" · {plan.metric}, {'larger' if plan.direction == 'max' else 'smaller'} is better"
    how += f" · each the mean of {plan.repeat} seeds" if plan.repeat > 1 else ""
    picture = _picture(sweep) if len(shown_trials(sweep)) > 1 else ""
    body = f"{_best(sweep)}{picture}{_importance(sweep)}<div class=wide>{_table(sweep)}</div>"
    return document(f"Sweep {sweep.path.name}", f"{said} · {how}", body, style=_STYLE, script=_SCRIPT)


_STATES: Sequence[State] = ("finished", "pruned", "running", "unfinished", "failed")


def _picture(sweep: Sweep) -> str:
    found, trials = axes(sweep), shown_trials(sweep)
    width = max(WIDTH, 2 * SIDE + SPACING * (len(found) - 1))
    xs = [SIDE + (width - 2 * SIDE) * index / (len(found) - 1) for index in range(len(found))]
    lines = []
    for rank in reversed(range(len(trials))):
        places = [axis.places[rank] for axis in found]
        share = rank / max(1, len(trials) - 1)
        said = escape(_said(trials[rank], sweep))
        lines.append(
            f'<path class="trial{" best" if rank == 0 else ""}" data-trial={trials[rank].number} '
            f'style="--share: {share:.3f}" d="{_path(xs, places)}"><title>{said}</title></path>'
        )
    marks = "".join(_axis(axis, x) for axis, x in zip(found, xs, strict=True))
    return (
        f'<figure><svg viewBox="0 0 {width} {HEIGHT}" style="min-width: {width / 24:.0f}rem" role=img '
        f'aria-label="parallel coordinates: a line across the settings for each trial">{"".join(lines)}{marks}</svg>'
        "</figure>\n"
    )


def _path(xs: Sequence[float], places: Sequence[float]) -> str:
    """A line that leaves each axis at a right angle, so that trials of equal values can be followed."""
    points = [(x, _height(place)) for x, place in zip(xs, places, strict=True)]
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (next_x, next_y) in pairwise(points):
        middle = (x + next_x) / 2
        text += f"C{middle:.1f} {y:.1f} {middle:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}"
    return text


def _height(place: float) -> float:
    return TOP + (1 - place) * (HEIGHT - TOP - 16)


def _axis(axis: Axis, x: float) -> str:
    ticks = "".join(
        f'<text class=tick x="{x + 6:.1f}" y="{_height(place) + 4:.1f}">{escape(label[:18])}</text>'
        for place, label in axis.ticks
    )
    name = axis.name if len(axis.name) <= LETTERS else f"{axis.name[: LETTERS - 1]}…"
    return (
        f'<line class=axis x1="{x:.1f}" x2="{x:.1f}" y1="{_height(1):.1f}" y2="{_height(0):.1f}"/>{ticks}'
        f'<text class=name x="{x:.1f}" y="16">{escape(name)}<title>{escape(axis.name)}</title></text>'
    )


def _best(sweep: Sweep) -> str:
    """The best trial in words, and the recipe with its settings."""
    if sweep.best is None:
        return ""
    return f'<p class=note>Best: {escape(_said(sweep.best, sweep))} (<a href="{BEST}">{BEST}</a>)</p>\n'


def _said(trial: Trial, sweep: Sweep) -> str:
    drawn = ", ".join(f"{name} {words(value)}" for name, value in trial.drawn.items())
    return f"trial {trial.number}: {sweep.planned.plan.metric} {words(trial.value)} with {drawn}"


def _importance(sweep: Sweep) -> str:
    if not sweep.importance:
        return ""
    rows = "\n".join(
        f"<tr><th scope=row>{escape(name)}</th><td class=figure>{value:.2f}</td>"
        f'<td><span class=bar style="--share: {value:.2f}"></span></td></tr>'
        for name, value in sweep.importance.items()
    )
    said = "importance: how much of what tells good trials from others each setting is (PED-ANOVA)"
    return f'<table class="summary importance">\n<caption>{said}</caption>\n<tbody>\n{rows}\n</tbody></table>\n'


def _table(sweep: Sweep) -> str:
    plan = sweep.planned.plan
    repeated = plan.repeat > 1
    heads = ["trial", plan.metric, *(["spread"] if repeated else []), *plan.search, "state", "steps", "seconds"]
    head = "".join(
        f"<th scope=col{' class=state' if name == 'state' else ''} "
        f"aria-sort={_first(plan.direction) if name == plan.metric else 'none'}>"
        f"<button type=button>{escape(name)}</button></th>"
        for name in heads
    )
    rows = []
    for trial in sweep.trials:
        runs = runs_of(trial)
        address = quote(f"{trial.path.name}/{runs[0].name}") + "/" if runs else ""
        number = f'<a href="{address}">{trial.number}</a>' if address else str(trial.number)
        cells = [f'<th scope=row data-value="{trial.number}">{number}</th>', _cell(trial.value)]
        cells += [_cell(trial.spread)] if repeated else []
        cells += [_cell(trial.drawn.get(name)) for name in plan.search]
        state = escape(f"{trial.state}: {trial.error}" if trial.error else trial.state)
        cells += [f"<td class=state>{state}</td>", _cell(trial.steps), _cell(f"{trial.seconds:.1f}")]
        best = " class=best" if trial is sweep.best else ""
        rows.append(f"<tr{best} data-trial={trial.number}>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f"<table class=trials>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _first(direction: str) -> str:
    return "descending" if direction == "max" else "ascending"


def _cell(value: float | str | None) -> str:
    if value is None:
        return "<td class=figure>-</td>"
    return f'<td class=figure data-value="{escape(str(value))}">{escape(words(value))}</td>'


_STYLE = """
svg { width: 100%; height: auto; display: block; }
.trial { fill: none; stroke: color-mix(in oklab, var(--line), var(--mark) calc(90% - 85% * var(--share)));
  stroke-width: 1.6; }
.trial.best { stroke: var(--best); stroke-width: 3; }
.trial.lit, .trial:hover { stroke: var(--ink); stroke-width: 3.5; }
:root { --best: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --best: #ffa657; } }
.axis { stroke: var(--soft); }
.name { fill: var(--ink); font-size: 13px; text-anchor: middle; font-weight: 600; }
.tick { fill: var(--ink); font-size: 11px; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.bar { display: inline-block; width: calc(var(--share) * min(12rem, 25vw)); height: .7rem; background: var(--mark);
  border-radius: 2px; }
.trials td, .trials th { padding: .3rem .7rem; }
.trials thead th { text-align: right; padding: 0; }
.trials tbody th { font-weight: normal; text-align: right; }
.trials tbody tr.best { background: var(--bar); box-shadow: inset 3px 0 var(--best); }
.trials tr.lit { background: var(--bar); }
.state { min-width: 6rem; max-width: 28rem; overflow-wrap: anywhere; }
.trials thead th.state { text-align: left; }
.importance tbody th { white-space: normal; overflow-wrap: anywhere; }
@media (min-width: 45rem) { .importance caption { white-space: nowrap; } }
@media (max-width: 45rem) { .name { font-size: 16px; } .tick { font-size: 15px; } }
"""

_SCRIPT = """
const rows = [...document.querySelectorAll(".trials tbody tr")], lines = [...document.querySelectorAll(".trial")];
for (const each of [...rows, ...lines]) for (const [event, on] of [["mouseenter", true], ["mouseleave", false]])
  each.addEventListener(event, () => {
    for (const one of [...rows, ...lines])
      if (one.dataset.trial === each.dataset.trial) one.classList.toggle("lit", on);
  });
const table = document.querySelector(".trials"), heads = [...table.tHead.rows[0].cells];
for (const head of heads) head.firstChild.addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending", column = head.cellIndex;
  for (const other of heads) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = [...table.tBodies[0].rows].map((row, place) => {
    const text = row.cells[column].dataset.value ?? row.cells[column].textContent, number = Number(text);
    return [text === "-", text !== "" && !Number.isNaN(number) ? number : text, place, row];
  });
  const order = (a, b) => typeof a === typeof b ? (a > b) - (a < b) : typeof a === "number" ? -1 : 1;
  keyed.sort((a, b) => a[0] - b[0] || (up ? 1 : -1) * order(a[1], b[1]) || a[2] - b[2]);
  table.tBodies[0].append(...keyed.map(entry => entry[3]));
});
"""
