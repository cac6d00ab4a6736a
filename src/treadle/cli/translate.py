"""`treadle translate`: a run's model on pictures of one's own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, add_at, progress_bar, shown
from treadle.cli.script import add_trainer, recipe_at
from treadle.errors import UsageError
from treadle.files import existing
from treadle.runs.run import find_run

if TYPE_CHECKING:
    from treadle.gans.translating import Translated

EXAMPLES = """  treadle translate runs/pix2pix photo.jpg --out translated
  treadle translate runs/pix2pix photos --out translated
  treadle translate runs/pix2pix data/test --pairs --out translated
  treadle translate runs/cyclegan horses --out zebras --direction AtoB
  treadle translate runs/pix2pix photos --out translated --existing skip
                            one that was stopped goes on where it was"""


def run(arguments: list[str]) -> int:
    """Translate, and print what became of the pictures; returns the exit code."""
    options = _parser().parse_args(arguments)
    directory = find_run(options.run)
    trainer = recipe_at(directory, options).trainer_class
    # What is cheap to check first: a model takes a moment to load.
    source, pixels = existing(options.input, "INPUT"), _pixels(options.megapixels)
    if options.overlap < 0:
        raise UsageError(f"--overlap {options.overlap}: expected pixels, 0 or more")

    from treadle.gans.translating import translate_files
    from treadle.gans.translator import translator_named

    name, translator = translator_named(trainer, directory, options.direction, options.at)
    # What is half-written is removed on SIGTERM, too.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with progress_bar("pictures") as progress:
            done = translate_files(
                translator,
                source,
                options.out,
                format=options.format,
                existing=options.existing,
                on_bad=options.on_bad,
                pairs=options.pairs,
                pixels=pixels,
                overlap=options.overlap,
                progress=progress,
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"{name}, {translator.name} of {directory}")
    _say(done, Path(options.out).expanduser())
    return 0


def _parser() -> Parser:
    from treadle.gans.targets import FORMATS
    from treadle.gans.translator import OVERLAP, PIXELS

    parser = Parser(
        "translate",
        "Translate pictures with a model of a run: one file, or all in a folder and the folders in it. Results "
        "have the size, name, format, depth and transparency of their pictures. Each is written whole or not at all.",
        EXAMPLES,
        usage="treadle translate RUN INPUT --out DIR [options]",
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    parser.add_argument("input", metavar="INPUT", help="a picture, or a folder of pictures")
    parser.add_argument("--out", metavar="DIR", required=True,
                        help="folder for the results; for one picture it may be a file")  # fmt: skip
    add_at(parser)
    parser.add_argument("--direction", metavar="NAME", help="which way, where a run learnt several: AtoB (the "
                        "default) or BtoA")  # fmt: skip
    parser.add_argument("--pairs", action="store_true", help="the pictures show A and B side by side, as those that "
                        "were trained on: translate the half that is the input")  # fmt: skip
    files = parser.add_argument_group("files")
    files.add_argument("--format", choices=list(FORMATS), help="of the results (default: each picture's own; PNG "
                       "or TIFF where that cannot be written)")  # fmt: skip
    files.add_argument("--existing", choices=["refuse", "skip", "overwrite"], default="refuse",
                       help="what to do where a result is there already (default: refuse)")  # fmt: skip
    files.add_argument("--on-bad", choices=["refuse", "skip"], default="refuse",
                       help="what to do with pictures that cannot be read (default: refuse)")  # fmt: skip
    memory = parser.add_argument_group("memory")
    memory.add_argument("--megapixels", metavar="N", type=float, default=PIXELS / 1e6,
                        help="the most that goes through the network at once; larger pictures are cut into tiles that "
                        f"overlap and join without seams (default: {PIXELS / 1e6:g})")  # fmt: skip
    memory.add_argument("--overlap", metavar="PIXELS", type=int, default=OVERLAP,
                        help=f"of tiles: more is nearer to the whole picture (default: {OVERLAP})")  # fmt: skip
    add_trainer(parser, data=None)
    return parser


def _pixels(megapixels: float) -> int:
    if not 0 < megapixels < 1e6:
        raise UsageError(f"--megapixels {megapixels:g}: expected a number above 0, such as 4")
    return int(megapixels * 1e6)


def _say(done: Translated, out: Path) -> None:
    count = len(done.written)
    speed = f", {count / done.seconds:.3g} a second" if count > 1 and done.seconds > 0 else ""
    print(f"{shown(out.absolute())}: {count} translated{speed}" + (f", {len(done.kept)} kept" if done.kept else ""))
    if done.bad:
        print(f"left out {len(done.bad)} that cannot be used:")
        for error in done.bad:
            print(f"  {error}")
