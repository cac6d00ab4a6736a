"""The scores of a tractogram as files: scilpy's JSON, and a report with a picture of each bundle.

results.json                     everything, by scilpy's names
index.html, table.json, .csv     a row for each bundle
segmented_VB/arc_VS.trk, ...     if wanted: the lines of each bundle, wrong paths, invalid connections and the rest
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from treadle.errors import RunError
from treadle.files import file_name, write_whole
from treadle.reports.report import write_report
from treadle.reports.rows import Row
from treadle.tracts.files import write_streamlines
from treadle.tracts.panels import draw, picture
from treadle.tracts.scoring.tractometer import Scores
from treadle.tracts.scoring.truth import Truth
from treadle.tracts.streamlines import Streamlines

RESULTS = "results.json"

_HIGHER = ("VS", "OL", "f1", "ends")
_OVERALL = (
    "VB",
    "VS_ratio",
    "IB",
    "IC_ratio",
    "NC_ratio",
    "WPC_ratio",
    "mean_OL",
    "mean_OR_gt",
    "mean_OR_vs",
    "mean_f1",
)


def write_scores(
    directory: Path, scores: Scores, lines: Streamlines, truth: Truth, *, title: str, segmented: bool = False
) -> dict[str, float | Path]:
    """Write the scores of `lines` into a directory, which is made if need be; other files in it stay.

    Returns the means over bundles, the figures of all, and the paths "page", "table" and "results". Raises RunError
    where the disk refuses a file.
    """
    found = scores.as_dict()

    def rows() -> Iterator[Row]:
        for name, bundle in scores.bundles.items():
            behind = None if (mask := truth.bundles[name].mask) is None else mask.astype(np.float32)
            views = draw(lines.select(bundle.valid), truth.space, volume=behind, size=280)
            metrics = {"VS": float(len(bundle.valid)), "WPC": float(len(bundle.wrong))}
            if bundle.scored:
                metrics |= {"OL": bundle.overlap, "OR_gt": bundle.overreach, "OR_vs": bundle.overreach_of_bundle}
                metrics |= {"f1": bundle.f1, "ends": bundle.regions_hit}
            yield Row(name, {"valid streamlines": picture(views)}, metrics)

    overall = {name: float(found[name]) for name in _OVERALL if name in found}
    description = (
        f"{found['total_streamlines']:,} streamlines, {found['VS_ratio']:.1%} of them valid. OL: share of the true "
        "voxels; OR: other voxels over the true ones, and over those of the bundle; ends: share of the end regions."
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        facts = write_report(
            directory, rows(), title=title, description=description, higher=_HIGHER, overall=lambda: overall
        )
        write_whole(directory / RESULTS, json.dumps(found, indent=2) + "\n")
        if segmented:
            _write_parts(directory, scores, lines, truth)
    except OSError as error:
        raise RunError(f"cannot write {error.filename or directory}: {error.strerror or error}") from error
    return facts | {"results": directory / RESULTS}


def _write_parts(directory: Path, scores: Scores, lines: Streamlines, truth: Truth) -> None:
    """The lines of each kind, in files named as scilpy's."""
    parts = {f"segmented_VB/{file_name(name)}_VS": bundle.valid for name, bundle in scores.bundles.items()}
    if scores.wrong_apart:
        parts |= {f"segmented_WPC/{file_name(name)}_wpc": bundle.wrong for name, bundle in scores.bundles.items()}
    parts |= {f"segmented_IB/{file_name('_'.join(pair))}_IC": found for pair, found in scores.invalid.items()}
    parts["NC"] = np.setdiff1d(scores.unconnected, np.flatnonzero(lines.lengths == 0))
    for name, found in parts.items():
        path = directory / f"{name}.trk"
        path.parent.mkdir(exist_ok=True)
        write_streamlines(path, lines.select(found), truth.space)
