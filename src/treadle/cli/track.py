"""`treadle track`: streamlines in a volume of one's own, by a trained model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser, add_at, print_results, progress_bar, shown
from treadle.cli.script import add_trainer, recipe_at
from treadle.errors import UsageError, nearest
from treadle.files import existing
from treadle.runs.run import find_run

if TYPE_CHECKING:
    import numpy as np

    from treadle.tracts.space import Space
    from treadle.tracts.subject import Subject
    from treadle.tracts.tracking.settings import TrackingSettings

EXAMPLES = """  treadle track runs/tracts/v001 input.nii.gz --mask wm.nii.gz --total 20000
  treadle track runs/tracts data.h5 --subject sub-01 --mask wm.nii.gz \\
      --seeds interface.nii.gz --per-voxel 5 --out sub-01.trk
  treadle track runs/tracts input.nii.gz --mask wm.nii.gz --sample --theta 45

One that was stopped goes on when it is started again: OUT.parts has the
batches that are done, until the file is there."""


def run(arguments: list[str]) -> int:
    """Track, write the streamlines, print what became of the seeds; returns the exit code."""
    options = _parser().parse_args(arguments)
    directory = find_run(options.run)
    trainer = recipe_at(directory, options).trainer_class
    # What is cheap to check first: a model takes a moment to load.
    out = _out(options.out)
    source = existing(options.input, "INPUT")
    loaded: Any = trainer.load_model(directory) if options.at is None else trainer.load_model(directory, at=options.at)
    subject, group = _subject(source, options, loaded.group)
    if subject is None:
        from treadle.tracts.volumes import read_volume

        volume, space = read_volume(source)
    else:
        volume, space = subject.volume(group), subject.volumes[group].space
    mask = _mask(options.mask, "--mask", space, subject)
    seeding = mask if options.seeds is None else _mask(options.seeds, "--seeds", space, subject)

    from treadle.tracts.tracking.job import Source, track_to_file

    with progress_bar("seeds") as progress:
        tracked = track_to_file(
            Source(loaded.model, loaded.offsets(space), volume, space),
            mask,
            seeding,
            _settings(options, float(loaded.step)),
            out,
            seed=options.seed,
            save_seeds=options.save_seeds,
            progress=progress,
        )
    lengths = tracked.lines.millimetres(space.voxel_sizes)
    print(f"{shown(out.resolve())}: {len(tracked.lines):,} streamlines" +
          (f", {lengths.mean():.1f} mm on average" if len(lengths) else ""))  # fmt: skip
    print_results({name: f"{count:,}" for name, count in tracked.counts().items()})
    return 0


def _parser() -> Parser:
    parser = Parser(
        "track",
        "Track streamlines with the model of a run, in a volume of the kind that it was trained on: from each "
        "seed forward, and then backward with the line so far as its past.",
        EXAMPLES,
        usage="treadle track RUN INPUT --mask MASK [--seeds MASK]\n"
        "                                 [--total N | --per-voxel N] [options]",
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    parser.add_argument("input", metavar="INPUT", help="the volume, as NIfTI; or prepared data (.h5)")
    add_at(parser)
    parser.add_argument("--mask", metavar="MASK", required=True,
                        help="where lines may be: NIfTI, or a volume of the subject's")  # fmt: skip
    parser.add_argument("--seeds", metavar="MASK", help="where they begin (default: in the whole mask)")
    parser.add_argument("--out", metavar="FILE", default="tracks.trk", help="TRK, TCK or TRX (default: tracks.trk)")
    data = parser.add_argument_group("prepared data")
    data.add_argument("--subject", metavar="NAME", help="which subject, where there are several")
    data.add_argument("--volume", metavar="NAME", help="which volume (default: the one that the run trained on)")
    seeds = parser.add_argument_group("seeds")
    many = seeds.add_mutually_exclusive_group()
    many.add_argument("--total", metavar="N", type=int, help="seeds in all")
    many.add_argument("--per-voxel", metavar="N", type=int, help="seeds in each voxel (default: 1)")
    seeds.add_argument("--seed", metavar="N", type=int, default=0, help="another seed, other random numbers")
    seeds.add_argument("--save-seeds", action="store_true", help="save where each line began, as its property 'seeds'")
    how = parser.add_argument_group("tracking")
    how.add_argument("--step", metavar="MM", type=float, help="from point to point (default: that of the training)")
    how.add_argument("--theta", metavar="DEGREES", type=float, help="largest angle between two steps (default: 30)")
    how.add_argument("--min-length", metavar="MM", type=float, help="shorter lines are dropped (default: 10)")
    how.add_argument("--max-length", metavar="MM", type=float, help="lines of this length stop (default: 300)")
    how.add_argument("--sample", action="store_true", help="draw directions, where the model gives a distribution")
    how.add_argument("--eos-stop", metavar="P", type=float,
                     help="lines stop where their end is so likely (default: 0.5)")  # fmt: skip
    how.add_argument("--no-eos", action="store_true", help="never stop because of a likely end")
    how.add_argument("--forward-only", action="store_true", help="do not grow from the seed the other way, too")
    how.add_argument("--no-opposite", action="store_true",
                     help="do not take the opposite of a direction that leads back")  # fmt: skip
    how.add_argument("--compress", metavar="MM", type=float, help="leave out points this near to the line without them")
    how.add_argument("--batch", metavar="N", type=int, help="lines at once (default: 2000)")
    add_trainer(parser, data=None)
    return parser


def _settings(options: Namespace, step: float) -> TrackingSettings:
    from treadle.tracts.tracking.settings import TrackingSettings

    given = {
        "step": step if options.step is None else options.step,
        "theta": options.theta,
        "shortest": options.min_length,
        "longest": options.max_length,
        "eos_stop": options.eos_stop,
        "compress": options.compress,
        "per_voxel": options.per_voxel,
        "total": options.total,
        "batch": options.batch,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.no_eos:
        chosen["eos_stop"] = None
    flags = {"sampled": options.sample, "backward": not options.forward_only, "opposite": not options.no_opposite}
    return TrackingSettings(**chosen, **flags)


def _out(text: str) -> Path:
    from treadle.tracts.files import FORMATS

    path = Path(text).expanduser()
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {text}: expected a name that ends in .trk, .tck or .trx")
    if not path.parent.is_dir():
        raise UsageError(f"--out {text}: there is no directory {path.parent}")
    return path


def _subject(source: Path, options: Namespace, group: str) -> tuple[Subject | None, str]:
    """The subject of prepared data and the name of its volume; None for a NIfTI."""
    from treadle.tracts.volumes import is_nifti

    if is_nifti(source):
        for name in ("subject", "volume"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} has no meaning with a NIfTI: leave it out")
        return None, ""
    from treadle.tracts.prepared import open_prepared

    data = open_prepared(source)
    subjects = {subject.name: subject for subject in (*data.training, *data.validation, *data.testing)}
    if options.subject is None and len(subjects) != 1:
        raise UsageError(f"{options.input} has {len(subjects)} subjects: choose one with --subject NAME")
    name = next(iter(subjects)) if options.subject is None else options.subject
    if name not in subjects:
        raise UsageError(f"{options.input} has no subject {name!r}{nearest(name, subjects)}")
    subject, group = subjects[name], options.volume or group
    if group not in subject.volumes:
        raise subject.unknown(group, "volumes")
    return subject, group


def _mask(text: str, option: str, space: Space, subject: Subject | None) -> np.ndarray:
    """A mask (x, y, z) bool of this grid: a NIfTI, or a volume of the subject's."""
    from treadle.tracts.volumes import read_volume

    if subject is not None and text in subject.volumes and not Path(text).exists():
        values, grid = subject.volume(text), subject.volumes[text].space
    else:
        values, grid = read_volume(existing(text, option))
    if not grid.same(space):
        raise UsageError(f"{option} {text} lies in another grid than the volume")
    if values.shape[3] != 1:
        raise UsageError(f"{option} {text} has {values.shape[3]} values for each voxel: expected a mask")
    mask: np.ndarray = values[..., 0] > 0
    if not mask.any():
        raise UsageError(f"{option} {text} is empty")
    return mask
