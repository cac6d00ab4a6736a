"""`treadle tracts prepare`: volumes and streamlines of many subjects into one HDF5 file."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, show, shown
from treadle.files import existing

if TYPE_CHECKING:
    from treadle.tracts.prepare import Report

EXAMPLES = """  treadle tracts prepare data data.h5 config.json train.txt valid.txt test.txt
  treadle tracts prepare data data.h5 config.json train.txt --step-size 0.5
  treadle tracts prepare data data.h5 config.json train.txt --invalid remove
  treadle tracts prepare data data.h5 config.json train.txt --compress 0.01

DATA has a folder for each subject: data/sub-01/bundles/CST.trk. A list is a
text file of their names. config.json is dwi_ml's:

  {"input":   {"type": "volume", "files": ["dwi/*fodf.nii.gz"],
               "standardization": "independent", "std_mask": ["mask.nii.gz"]},
   "bundles": {"type": "streamlines", "files": ["bundles/*.trk"],
               "dps_keys": ["weight"]}}

standardization is none, all, independent or per_file. Harmonics or tensors
are fitted to a scan by

  "input": {"type": "volume", "dwi": "dwi.nii.gz", "bval": "dwi.bval",
            "bvec": "dwi.bvec", "as": "sh", "order": 6}

with "as": "tensor" or "dwi", too; with "gradients": "grad.b", MRtrix's table
in the scanner's frame, for bval and bvec; and with "mask", outside of which
all is 0. Trained on the result: treadle train tracts --data data.h5"""


def run(arguments: list[str]) -> int:
    """Prepare data; returns the exit code."""
    parser = Parser(
        "tracts prepare",
        "Put the volumes and streamlines of many subjects into one HDF5 file, in dwi_ml's schema, from dwi_ml's own "
        "config.json and lists of subjects. Grids and bounds are checked. The file is written whole or not at all.",
        EXAMPLES,
    )
    parser.add_argument("data", metavar="DATA", help="folder of the subjects' folders")
    parser.add_argument("out", metavar="OUT.h5", type=Path, help="file to write")
    parser.add_argument("config", metavar="CONFIG", help="JSON: the groups that each subject has")
    parser.add_argument("training", metavar="TRAINING", help="text file: subjects to train on")
    parser.add_argument("validation", metavar="VALIDATION", nargs="?", help="to validate on")
    parser.add_argument("testing", metavar="TESTING", nargs="?", help="to test on")
    points = parser.add_argument_group("points of streamlines, at most one of")
    points.add_argument(
        "--step-size", metavar="MM", type=float, help="even steps, as near to this as whole steps allow"
    )
    points.add_argument("--nb-points", metavar="N", type=int, help="as many points in each")
    points.add_argument("--compress", metavar="MM", type=float, nargs="?", const=0.01,
                        help="leave out points that are this near to a straight line (MM left out: 0.01)")  # fmt: skip
    parser.add_argument("--invalid", choices=["refuse", "remove", "keep"], default="refuse",
                        help="lines outside of the volume, of one point, of no length (default: refuse)")  # fmt: skip
    parser.add_argument("--remove-invalid", dest="invalid", action="store_const", const="remove",
                        help="the same as --invalid remove")  # fmt: skip
    parser.add_argument("--bad-voxels", choices=["refuse", "zero"], default="refuse",
                        help="values that are NaN or infinite (default: refuse)")  # fmt: skip
    parser.add_argument("--allow-missing", action="store_true", help="go on without files that are not there")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.h5 if it is there")
    options = parser.parse_args([_hyphens(argument) for argument in arguments])
    from treadle.tracts.prepare import prepare
    from treadle.tracts.prepare_config import read_config, read_subjects
    from treadle.tracts.prepare_lines import Points

    splits = {
        split: read_subjects(_there(path, split.upper()) if path else None)
        for split, path in vars(options).items()
        if split in ("training", "validation", "testing")
    }
    # What is half-made is removed on SIGTERM, too.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        report = prepare(
            _there(options.data, "DATA"),
            options.out,
            read_config(_there(options.config, "CONFIG")),
            splits,
            points=Points(options.step_size, options.nb_points, options.compress),
            invalid=options.invalid,
            bad_voxels=options.bad_voxels,
            allow_missing=options.allow_missing,
            overwrite=options.overwrite,
            progress=_progress,
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    _print(report, options.out, {split: len(names) for split, names in splits.items()})
    return 0


def _there(text: str, name: str) -> Path:
    """A path as it was given, of what exists: so messages name it. Raises UsageError with the nearest name."""
    existing(text, name)
    return Path(text).expanduser()


def _hyphens(argument: str) -> str:
    """dwi_ml's --step_size is --step-size."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _progress(names: Sequence[str]) -> Iterator[str]:
    """A bar on a terminal, gone when it is done; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(names, "subjects", console=console, transient=True, disable=not console.is_terminal)


def _print(report: Report, out: Path, splits: dict[str, int]) -> None:
    rows = []
    for (subject, group), lines in report.lines.items():
        wrong = [f"{count:,} {what}" for what, count in lines.invalid.items()]
        done = "removed" if lines.removed else "kept"
        left = [f"{', '.join(wrong)} ({done})"] if wrong else []
        left += [f"{lines.empty} empty files"] if lines.empty else []
        rows.append((subject, group, f"{lines.kept:,}", "; ".join(left) or "-"))
    if rows:
        show(("subject", "group", "streamlines", "invalid"), rows, right=("streamlines",))
    for (subject, group), bad in report.volumes.items():
        if bad:
            print(f"{subject}, {group}: {bad:,} voxels had NaN or infinite values, now 0")
    if report.missing:
        print(f"went on without {len(report.missing)} files:")
        for name in report.missing:
            print(f"  {name}")
    size = out.stat().st_size / 1e6
    print(f"{shown(out)} ({size:,.1f} MB): " + ", ".join(f"{count} {split}" for split, count in splits.items()))
    print(f"train on it: treadle train tracts --data {shlex.quote(shown(out))}")
