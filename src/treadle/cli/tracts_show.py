"""`treadle tracts show`: what a prepared file holds; take something out of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, show, shown
from treadle.errors import UsageError, nearest
from treadle.files import existing

if TYPE_CHECKING:
    import numpy as np

    from treadle.tracts.subject import LinesInfo, Subject, TractData, VolumeInfo

EXAMPLES = """  treadle tracts show data.h5
  treadle tracts show data.h5 --extract sub-01 bundles bundles.trk
  treadle tracts show data.h5 --extract sub-01 input input.nii.gz"""


def run(arguments: list[str]) -> int:
    """Show a prepared file, or take something out of it; returns the exit code."""
    parser = Parser(
        "tracts show",
        "Show what a prepared file holds: splits, subjects, volumes, streamlines. Or write one of its groups as a "
        "file: streamlines as TRK, TCK or TRX, a volume as NIfTI.",
        EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE.h5", help="what treadle tracts prepare, or dwi_ml, wrote")
    parser.add_argument("--extract", nargs=3, metavar=("SUBJECT", "GROUP", "OUT"), help="write a group as a file")
    options = parser.parse_args(arguments)
    from treadle.tracts.prepared import open_prepared

    data = open_prepared(existing(options.file, "FILE.h5"))
    if options.extract:
        subject, group, out = options.extract
        _extract(data, subject, group, Path(out))
    else:
        _show(data)
    return 0


def _extract(data: TractData, name: str, group: str, out: Path) -> None:
    from treadle.tracts.files import write_streamlines
    from treadle.tracts.volumes import write_volume

    subjects = {subject.name: subject for subject in (*data.training, *data.validation, *data.testing)}
    if name not in subjects:
        raise UsageError(f"{data.path} has no subject {name!r}{nearest(name, subjects)}")
    subject = subjects[name]
    if group in subject.lines:
        lines = subject.streamlines(group)
        write_streamlines(out, lines, subject.lines[group].space)
        print(f"{shown(out)}: {len(lines):,} streamlines of {name}")
    elif group in subject.volumes:
        info = subject.volumes[group]
        write_volume(out, subject.volume(group), info.space)
        print(f"{shown(out)}: {_size(info.space.shape)} voxels of {name}, {info.features} values each")
    else:
        raise UsageError(f"{name} has no group {group!r}{nearest(group, [*subject.lines, *subject.volumes])}")


def _show(data: TractData) -> None:
    from treadle.tracts.prepared import SPLITS, made_how

    assert data.path is not None
    print(f"{shown(data.path)} ({data.path.stat().st_size / 1e6:,.1f} MB){made_how(data.path)}")
    for split in SPLITS:
        subjects = getattr(data, split)
        lines = sum(len(info.lengths) for subject in subjects for info in subject.lines.values())
        print(f"\n{split}: {len(subjects)} subject{'s' * (len(subjects) != 1)}, {lines:,} streamlines")
        if subjects:
            rows = [row for subject in subjects for row in _rows(subject)]
            show(("subject", "group", "holds", "each with"), rows)


def _rows(subject: Subject) -> Iterator[tuple[str, str, str, str]]:
    from treadle.tracts.prepared import PreparedSubject

    found = [(group, *_volume(info)) for group, info in subject.volumes.items()]
    for group, info in subject.lines.items():
        found.append((group, *_lines(info, subject.regions(group) if isinstance(subject, PreparedSubject) else 0)))
    for count, row in enumerate(found or [("-", "nothing", "-")]):
        yield "" if count else subject.name, *row


def _volume(info: VolumeInfo) -> tuple[str, str]:
    values = "1 value" if info.features == 1 else f"{info.features} values"
    kind = {"sh": ", harmonics", "tensor": ", tensor"}.get(info.kind, "")
    return f"{_size(info.space.shape)} of {_millimetres(info.space.voxel_sizes)} mm", values + kind


def _lines(info: LinesInfo, regions: int) -> tuple[str, str]:
    each = [*info.per_line]
    if len(info.lengths):
        ranges = (info.lengths.min(), info.lengths.max()), (info.millimetres.min(), info.millimetres.max())
        each = [f"{_range(*ranges[0])} points", f"{_range(*ranges[1])} mm", *each]
    linked = f", {regions} regions" if regions else ""
    return f"{len(info.lengths):,} lines{linked}", ", ".join(each) or "-"


def _range(low: float, high: float) -> str:
    return f"{low:.0f}-{high:.0f}" if round(low) != round(high) else f"{low:.0f}"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _millimetres(sizes: np.ndarray) -> str:
    texts = [f"{size:.3g}" for size in sizes]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)
