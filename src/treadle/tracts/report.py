"""What a training of tractography came to, to be looked at: tracked lines, and judged points as tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from treadle.files import to_json, write_whole
from treadle.images.display import write_png
from treadle.images.reading import Pixels
from treadle.reports.rows import Row
from treadle.tracts import panels
from treadle.tracts.data import Ground
from treadle.tracts.files import write_streamlines
from treadle.tracts.judging import Judged
from treadle.tracts.scoring.tractometer import score
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import track

_COLORS = {"angle": (240, 96, 64), "copying": (120, 120, 132), "principal": (72, 150, 235)}
_WORST = 50


def report_tracking(
    directory: Path,
    propagator: Propagator,
    space: Space,
    ground: Ground,
    settings: TrackingSettings,
    *,
    real: Streamlines,
    behind: np.ndarray,
    seed: int,
) -> dict[str, object]:
    """Track, write `tracks.trk` and a picture of it above the real lines; where the truth is known, score.

    Args:
        directory: where to.
        propagator: what leads lines.
        space, ground: the grid, and where lines may be.
        settings: how; `total` seeds.
        real: lines to compare with.
        behind: (x, y, z): what is seen behind them.
        seed: of all randomness.

    Returns:
        Figures and paths.
    """
    seeds = place_seeds(ground.seeding, seed=seed, total=settings.total)
    tracked = track(propagator, seeds, space, ground.mask, settings, seed=seed)
    found: dict[str, object] = {"lines": len(tracked.lines)}
    if ground.truth is not None:
        scores = score(tracked.lines, ground.truth, space).as_dict()
        write_whole(directory / "scores.json", to_json(scores) + "\n")
        found |= {name: scores[name] for name in ("VB", "VS_ratio", "IC_ratio", "NC_ratio", "mean_OL", "mean_OR_gt")
                  if name in scores}  # fmt: skip
    found["tracks"] = directory / "tracks.trk"
    write_streamlines(directory / "tracks.trk", tracked.lines, space)
    found["picture"] = directory / "tracks.png"
    rows = [panels.picture(panels.draw(lines, space, volume=behind)) for lines in (tracked.lines, real)]
    write_png(directory / "tracks.png", np.concatenate(rows, axis=0))
    return found


def rows_of(judged: Judged, spaces: list[Space], groups: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """A row for each group of lines: where the model errs, how much, and the figures.

    Args:
        judged: all lines.
        spaces: of each subject.
        groups: which lines, (n,) bool, by name: bundles, or subjects.
    """
    wrong = judged.per_line(judged.angle)
    scale = float(np.nanquantile(wrong, 0.95)) or 1.0
    for name, chosen in groups.items():
        if not chosen.any():
            continue
        subject = int(judged.subject[chosen][0])
        mine = chosen & (judged.subject == subject)
        lines = judged.streamlines(subject, spaces[subject]).select(mine[judged.subject == subject])
        colors = panels.heat(np.nan_to_num(wrong[mine] / scale))
        drawn = panels.draw(lines, spaces[subject], views=("axial", "corner"), size=320, colors=colors)
        yield Row(
            name,
            {"error": panels.picture(drawn), "histogram": histogram(judged, chosen)},
            judged.figures(chosen),
        )


def write_judged(directory: Path, judged: Judged, spaces: list[Space], names: list[str]) -> None:
    """Lines with their errors as TRK: all of each subject, and the best and the worst of all."""
    wrong = judged.per_line(judged.angle)
    order = np.argsort(np.where(np.isnan(wrong), np.inf, wrong), kind="stable")
    known = order[: int((~np.isnan(wrong)).sum())]
    for number, (space, name) in enumerate(zip(spaces, names, strict=True)):
        mine = np.flatnonzero(judged.subject == number)
        if len(mine) == 0:
            continue
        lines = judged.streamlines(number, space)
        place = {line: at for at, line in enumerate(mine.tolist())}
        best = [place[line] for line in known[:_WORST].tolist() if line in place]
        worst = [place[line] for line in known[::-1][:_WORST].tolist() if line in place]
        write_streamlines(directory / f"{name}.trk", lines, space)
        write_streamlines(directory / f"{name}-best.trk", lines.select(np.array(best, np.int64)), space)
        write_streamlines(directory / f"{name}-worst.trk", lines.select(np.array(worst, np.int64)), space)


def histogram(judged: Judged, chosen: np.ndarray, width: int = 420, height: int = 260) -> Pixels:
    """How 1 - cos is spread over the points of some lines, on a logarithmic axis: the model's, copying's, the axis'."""
    rows = np.repeat(chosen, np.diff(judged.offsets)) & ~np.isnan(judged.angle) & ~np.isnan(judged.copying)
    edges = np.logspace(-6, np.log10(2), 61)
    sheet = Image.new("RGB", (width, height), (16, 18, 24))
    pen = ImageDraw.Draw(sheet)
    left, top, right, bottom = 12, 12, width - 12, height - 26
    counts = {}
    for name in _COLORS:
        values = getattr(judged, name)[rows]
        values = values[~np.isnan(values)]
        if len(values):
            counts[name] = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
    most = max((share.max() for share in counts.values()), default=1.0)
    across = np.linspace(left, right, len(edges))
    for number, (name, share) in enumerate(counts.items()):
        heights = bottom - (bottom - top) * share / most
        path = [point for k, y in enumerate(heights) for point in ((across[k], y), (across[k + 1], y))]
        pen.line([(float(x), float(y)) for x, y in path], fill=_COLORS[name], width=2)
        pen.text((left + 6, top + 14 * number), "the model" if name == "angle" else name, fill=_COLORS[name])
    pen.line([(left, bottom), (right, bottom)], fill=(90, 92, 100))
    for power in range(-6, 1, 2):
        x = left + (right - left) * (power + 6) / (np.log10(2) + 6)
        pen.line([(x, bottom), (x, bottom + 4)], fill=(90, 92, 100))
        pen.text((x - 8, bottom + 6), f"1e{power}", fill=(150, 152, 160))
    pen.text((right - 44, bottom - 14), "1 - cos", fill=(150, 152, 160))
    return np.asarray(sheet)
