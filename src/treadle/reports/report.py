"""The report of a test: every picture with its figures, as JSON, CSV and a page to look at.

test/index.html      the pictures, sortable by any metric
test/table.json      the summary (mean, median ... of each metric) and a line for each picture
test/table.csv       the same lines for a spreadsheet
test/pictures/       0001-house-input.png, 0001-house-output.png, ...
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RunError, UsageError
from treadle.files import file_name, replace_directory, text_cell, to_json, write_whole
from treadle.images.display import png
from treadle.images.metrics import HIGHER_IS_BETTER
from treadle.images.texture import NEAR_1_IS_BETTER
from treadle.reports.page import page
from treadle.reports.rows import Entry, Row, Summary, better, printable, rank, summarize

PICTURES, PAGE, TABLE, SPREADSHEET = "pictures", "index.html", "table.json", "table.csv"

_OURS = re.compile(r"\d{4,}-.*\.png")


def write_report(
    directory: Path,
    rows: Iterable[Row],
    *,
    title: str,
    description: str = "",
    sort_by: str | None = None,
    higher: Collection[str] = HIGHER_IS_BETTER,
    near_1: Collection[str] = NEAR_1_IS_BETTER,
    overall: Callable[[], Mapping[str, float]] = dict,
    strips: Mapping[str, NDArray[np.uint8]] | None = None,
    words: Mapping[str, str] | None = None,
    note: str = "",
) -> dict[str, float | Path]:
    """Write the report into `directory`, in place of an earlier one; other files in it stay.

    Rows are taken one at a time, and only their figures are kept. The same rows give the same bytes. Pictures are
    complete before they replace earlier ones, and the tables follow, each whole; stopped before that, or when `rows` or
    `overall` raises, everything is as it was.

    Args:
        directory: where to; made if need be.
        rows: the test pictures, in their order.
        title: the page's heading.
        description: a line below it.
        sort_by: the metric by which tables and page are sorted, best first; the first one if None.
        higher: metrics of which more is better.
        near_1: metrics of which 1 is right.
        overall: called after the last row for figures of all pictures together, such as FID.
        strips: wide pictures, uint8 (H, W, C), that the page shows above its tables, by caption: what led to the run's
            model, say.
        words: what a figure says, for who has never heard of it, by its name; of one such as "swd_ab" by "swd".
        note: a paragraph below the figures: how to read them.

    Returns:
        The mean of each metric and the figures of `overall`, by name, and the paths "table" and "page".

    Raises:
        UsageError: there are no rows, `sort_by` is none of the metrics, `pictures` holds files that are no report's.
        RunError: the disk refuses a file.
    """
    title, description = printable(title), printable(description)
    pictures, fresh = directory / PICTURES, directory / f".{PICTURES}.new"
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _check_ours(pictures)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
    try:
        entries = []
        for number, row in enumerate(rows, 1):
            with _writing(directory):
                entries.append(_save(row, number, fresh))
        with _writing(directory):
            wide = [
                _save(Row(f"strip {number}", {caption: picture}, {}), 0, fresh)
                for number, (caption, picture) in enumerate((strips or {}).items(), 1)
            ]
        if not entries:
            raise UsageError(f"{title}: there is no picture to report on")
        metrics = list(dict.fromkeys(name for entry in entries for name in entry.metrics))
        if sort_by is not None and sort_by not in metrics:
            raise UsageError(f"a report cannot be sorted by {sort_by!r}: it has {', '.join(metrics) or 'no metrics'}")
        figures = {name: float(value) for name, value in overall().items()}
        with _writing(directory):
            replace_directory(fresh, pictures)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

    summaries = {metric: summarize(entries, metric, better(metric, higher, near_1)) for metric in metrics}
    order = sort_by or next(iter(metrics), None)
    if order is not None:
        entries.sort(key=rank(order, summaries[order].better))
    with _writing(directory):
        write_whole(directory / TABLE, _json(title, entries, summaries, figures, order))
        write_whole(directory / SPREADSHEET, _csv(entries, metrics))
        html = page(title, description, entries, summaries, figures, order, strips=wide, words=words or {}, note=note)
        write_whole(directory / PAGE, html)
    means: dict[str, float | Path] = {name: summary.mean for name, summary in summaries.items()}
    return means | figures | {"table": directory / TABLE, "page": directory / PAGE}


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """What the disk refuses becomes a RunError; what `rows` raises when it reads stays what it is."""
    try:
        yield
    except OSError as error:
        where = error.filename or directory
        raise RunError(f"cannot write {where}: {error.strerror or error}; make room or mend its permissions") from error


def _check_ours(pictures: Path) -> None:
    """Refuse to replace a directory in which somebody keeps other files."""
    if pictures.exists():
        others = (
            [] if not pictures.is_dir() else [path for path in pictures.iterdir() if not _OURS.fullmatch(path.name)]
        )
        if others or not pictures.is_dir():
            raise UsageError(
                f"{(others or [pictures])[0]} is not a report's: move it away, the report is written there"
            )


def _save(row: Row, number: int, directory: Path) -> Entry:
    called = printable(row.name)
    files, sizes = {}, {}
    for column, picture in row.pictures.items():
        name = f"{number:04d}-{file_name(PurePath(called).stem)[:40]}-{file_name(column)[:20]}.png"
        write_whole(directory / name, png(picture, f"{called}: {column}"))
        files[column] = f"{PICTURES}/{name}"
        sizes[column] = picture.shape[1], picture.shape[0]
    return Entry(number, called, files, sizes, {name: float(value) for name, value in row.metrics.items()})


def _json(
    title: str,
    entries: list[Entry],
    summaries: Mapping[str, Summary],
    figures: Mapping[str, float],
    order: str | None,
) -> str:
    """The table as JSON: the summary, and each picture on a line of its own."""
    head: dict[str, Any] = {"title": title, "pictures": len(entries), "sorted_by": order, "overall": figures}
    head["metrics"] = {
        name: {
            "better": summary.better,
            "mean": summary.mean,
            "median": summary.median,
            "std": summary.std,
            "best": summary.best and {"name": summary.best.name, "value": summary.best.metrics[name]},
            "worst": summary.worst and {"name": summary.worst.name, "value": summary.worst.metrics[name]},
            "missing": summary.missing,
        }
        for name, summary in summaries.items()
    }
    lines = [to_json({"name": entry.name, **entry.metrics, "files": entry.files}) for entry in entries]
    return to_json(head)[:-1] + ', "rows": [\n' + ",\n".join(lines) + "\n]}\n"


def _csv(entries: list[Entry], metrics: list[str]) -> str:
    columns = list(dict.fromkeys(column for entry in entries for column in entry.files))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(text_cell, ["name", *metrics, *columns]))
    for entry in entries:
        figures = [entry.metrics.get(metric, "") for metric in metrics]
        writer.writerow(
            [text_cell(entry.name), *figures, *(text_cell(entry.files.get(column, "")) for column in columns)]
        )
    return buffer.getvalue()
