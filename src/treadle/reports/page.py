"""The page of a test report: one static file that needs nothing but the pictures beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from types import MappingProxyType
from urllib.parse import quote

from treadle.reports.document import document
from treadle.reports.rows import Entry, Summary

SMALLEST, LARGEST = 160, 256
"""The longest side at which a picture is shown, in pixels: smaller ones are enlarged by a whole factor."""


def page(
    title: str,
    description: str,
    entries: list[Entry],
    summaries: Mapping[str, Summary],
    overall: Mapping[str, float],
    order: str | None,
    *,
    strips: Iterable[Entry] = (),
    words: Mapping[str, str] = MappingProxyType({}),
    note: str = "",
) -> str:
    """The page as HTML. Names and captions are escaped; pictures load when they come into view.

    Clicking a metric's heading sorts by it, best first, and once more: worst first. The address says so (`#sort=l1`,
    `#sort=l1,worst`), so that a view can be sent to somebody.

    Args:
        title, description: text.
        entries: the pictures, in the order in which they stand at first.
        summaries: the metrics and their summaries.
        overall: figures of all pictures together.
        order: the metric that the entries are sorted by, if any.
        strips: wide pictures that stand above all, with their captions.
        words: what a figure says, by its name, or by its name without "_" and what follows.
        note: how to read the figures.
    """
    columns = list(dict.fromkeys(column for entry in entries for column in entry.files))
    count = "1 picture" if len(entries) == 1 else f"{len(entries)} pictures"
    body = _BODY.format(
        strips="".join(_strip(strip) for strip in strips),
        summary=_overall(overall, words) + _summary(summaries, {k: v for k, v in words.items() if k not in overall}),
        note=f"<p class=note>{escape(note)}</p>\n" if note else "",
        columns=len(columns),
        captions="".join(f"<th scope=col class=picture>{escape(column)}</th>" for column in columns),
        headings="".join(_heading(metric, summary, metric == order) for metric, summary in summaries.items()),
        rows="\n".join(_row(entry, columns, summaries) for entry in entries),
    )
    return document(title, f"{description} · {count}" if description else count, body, style=_STYLE, script=_SCRIPT)


def _strip(strip: Entry) -> str:
    (caption,) = strip.files
    width, height = strip.sizes[caption]
    address = escape(quote(strip.files[caption]))
    picture = f'<img src="{address}" alt="{escape(caption)}" width={width} height={height}>'
    return f'<figure><figcaption>{escape(caption)}</figcaption><a href="{address}">{picture}</a></figure>\n'


def _overall(figures: Mapping[str, float], words: Mapping[str, str]) -> str:
    """The figures of all pictures together, as a table."""
    if not figures:
        return ""
    lines, said = [], set()
    for name, value in figures.items():
        cell = _words(name, words)
        lines.append(
            f"<tr><th scope=row>{escape(name)}</th><td class=figure>{_short(value)}</td>"
            f"{cell if cell not in said else _words('', words)}</tr>"
        )
        said.add(cell)  # of "swd_ab" and "swd_ba" it is said once
    body = "\n".join(lines)
    return f"<table class=summary>\n<caption>all pictures together</caption>\n<tbody>\n{body}\n</tbody></table>\n"


def _summary(summaries: Mapping[str, Summary], words: Mapping[str, str]) -> str:
    """The figures of single pictures, over all of them, as a table."""
    if not summaries:
        return ""
    lines = "\n".join(
        f"<tr><th scope=row>{escape(metric)} <small>{summary.better} is better</small></th>"
        f"<td>{_short(summary.mean)}</td><td>{_short(summary.median)}</td><td>{_short(summary.std)}</td>"
        f"<td>{_extreme(summary.best, metric)}</td><td>{_extreme(summary.worst, metric)}</td>"
        f"{_words(metric, words)}</tr>"
        for metric, summary in summaries.items()
    )
    titles = ("each picture", "mean", "median", "std", "best", "worst", *([""] if words else []))
    head = "".join(f"<th scope=col>{name}</th>" for name in titles)
    return f"<table class=summary>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"


def _words(name: str, words: Mapping[str, str]) -> str:
    """A cell that says what a figure means; none where nothing says so of any."""
    said = words.get(name) or words.get(name.partition("_")[0], "")
    return f"<td class=words>{escape(said)}</td>" if words else ""


def _extreme(entry: Entry | None, metric: str) -> str:
    if entry is None:
        return ""
    return f'<a href="#p{entry.number}">{_short(entry.metrics[metric])} <small>{escape(entry.name)}</small></a>'


def _heading(metric: str, summary: Summary, sorted_by: bool) -> str:
    # Best first is ascending where lower is better.
    order = ("descending" if summary.better == "higher" else "ascending") if sorted_by else "none"
    name = escape(metric)
    button = f'<button type=button data-metric="{name}">{name}</button>'
    return f'<th scope=col aria-sort={order} data-better="{summary.better}">{button}</th>'


def _row(entry: Entry, columns: Iterable[str], metrics: Iterable[str]) -> str:
    pictures = "".join(f"<td class=picture>{_picture(entry, column)}</td>" for column in columns)
    figures = "".join(_figure(metric, entry.metrics.get(metric, math.nan)) for metric in metrics)
    return f"<tr id=p{entry.number}><th scope=row>{escape(entry.name)}</th>{pictures}{figures}</tr>"


def _picture(entry: Entry, column: str) -> str:
    if column not in entry.files:
        return ""
    width, height = entry.sizes[column]
    longest = max(width, height)
    scale: float = math.ceil(SMALLEST / longest) if longest < SMALLEST else min(1.0, LARGEST / longest)
    address, alternative = escape(quote(entry.files[column])), escape(f"{column} of {entry.name}")
    enlarged = " class=pixels" if scale > 1 else ""
    return (
        f'<a href="{address}"><img src="{address}" alt="{alternative}" loading=lazy decoding=async{enlarged} '
        f"width={max(1, round(width * scale))} height={max(1, round(height * scale))}></a>"
    )


def _figure(metric: str, value: float) -> str:
    """A cell; `data-value` has the figure in full for sorting, and is missing where there is none."""
    full = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, repr(value))
    data = "" if math.isnan(value) else f' data-value="{full}"'
    return f'<td class=figure data-label="{escape(metric)}"{data}>{_short(value)}</td>'


def _short(value: float) -> str:
    """Four digits; a dash for what is not a number."""
    return "-" if math.isnan(value) else f"{value:#.4g}".rstrip(".")


_STYLE = """
.words { color: var(--soft); font-size: .85rem; max-width: 30rem; }
.pictures { margin-top: 1.5rem; }
.pictures thead { position: sticky; top: 0; z-index: 1; background: var(--bar); }
.pictures thead th { vertical-align: middle; }
.pictures thead .picture { padding: .35rem .2rem; }
.pictures tbody tr { scroll-margin-top: 3rem; }
.pictures tbody th { font-weight: normal; overflow-wrap: anywhere; min-width: 6rem; max-width: 14rem; }
.pictures tr:target { background: var(--bar); box-shadow: inset 3px 0 var(--mark); }
td.picture { padding: .3rem .2rem; }
img { display: block; max-width: 100%; height: auto; background: var(--bar); }
img.pixels { image-rendering: pixelated; }
.pictures th[aria-sort] { text-align: right; padding: 0; }
@media (max-width: 45rem) {
  .summary small, .summary thead + tbody .words { display: none; }
  .pictures, .pictures thead, .pictures tbody { display: block; }
  .pictures tr { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: .2rem;
    padding: .5rem 0; }
  .pictures thead tr { padding: .3rem 0 0; }
  .pictures thead th:first-child { display: none; }
  .pictures tbody th { grid-column: 1 / -1; max-width: none; padding: 0; }
  .pictures .figure, .pictures .picture, .pictures thead .picture { padding: 0; text-align: left; }
  .pictures th[aria-sort], .pictures button { padding: 0 0 .3rem; text-align: left; }
  .picture img { width: 100%; }
  .pictures .figure::before { content: attr(data-label) " "; color: var(--soft); }
}
"""

_SCRIPT = """
const table = document.querySelector(".pictures"), body = table.tBodies[0];
const buttons = [...table.querySelectorAll("button")];
function sort(metric, worst) {
  const button = buttons.find(button => button.dataset.metric === metric);
  if (!button) return;
  const heading = button.parentElement, column = heading.cellIndex;
  const better = heading.dataset.better, sign = (better === "higher") === worst ? 1 : -1;
  const figure = text => better === "near 1" ? Math.abs(Math.log(Number(text))) : Number(text);
  for (const other of buttons) other.parentElement.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const rows = [...body.rows].map(row => {
    const value = row.cells[column].dataset.value;
    return [value === undefined ? Infinity : sign * figure(value), value === undefined, Number(row.id.slice(1)), row];
  });
  rows.sort((a, b) => a[1] - b[1] || (a[0] > b[0]) - (a[0] < b[0]) || a[2] - b[2]);
  body.append(...rows.map(row => row[3]));
}
function follow() {
  const [metric, way] = decodeURIComponent(location.hash).replace("#sort=", "").split(",");
  if (location.hash.startsWith("#sort=")) sort(metric, way === "worst");
}
for (const button of buttons) button.addEventListener("click", () => {
  const heading = button.parentElement, best = heading.dataset.better === "higher" ? "descending" : "ascending";
  const worst = heading.getAttribute("aria-sort") === best;
  sort(button.dataset.metric, worst);
  history.replaceState(null, "", "#sort=" + encodeURIComponent(button.dataset.metric) + (worst ? ",worst" : ""));
});
window.addEventListener("hashchange", follow);
follow();
"""

_BODY = """{strips}<div class=wide>{summary}</div>
{note}<table class=pictures style="--columns: {columns}">
<thead><tr><th scope=col>name</th>{captions}{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>"""
