"""`treadle pairs`: prepare paired data on disk, for image-to-image translation."""

from __future__ import annotations

import shlex
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, shown
from treadle.errors import UsageError, nearest

if TYPE_CHECKING:
    from treadle.gans.prepare import Writable

EXAMPLES = """  treadle pairs facades --out data/facades        house fronts, no download
  treadle pairs join maps photos --out data/maps  two folders, by file name
  treadle pairs edges photos --out data/edges     photographs, their edges
  treadle pairs split pictures --out data/pairs   pairs of one's own

each explains itself: treadle pairs join --help"""

JOIN_EXAMPLES = """  treadle pairs join labels photos --out data/pairs --labels A
  treadle pairs join day night --out data/night --size 512 --split 90/10/0
  treadle pairs join day night --out data/night --skip-unmatched --skip-bad"""

EDGES_EXAMPLES = """  treadle pairs edges photos --out data/edges
  treadle pairs edges photos --out data/edges --sigma 3     only strong outlines"""

SPLIT_EXAMPLES = """  treadle pairs split pictures --out data/pairs           joined pictures
  treadle pairs split labels photos --out data/pairs      two folders, by name
  treadle pairs split pictures --out data/pairs --link --split 90/5/5 --seed 1"""

FACADES_EXAMPLES = """  treadle pairs facades --out data/facades
  treadle pairs facades --out data/small --count 100 --size 64 --seed 7"""

_LAYOUT = (
    "Writes pictures with A left and B right into ROOT/train, ROOT/val and ROOT/test: "
    "all of them or none, and never into a folder that holds something."
)


def run(arguments: list[str]) -> int:
    """Prepare pairs; returns the exit code."""
    kinds = {"join": _join, "split": _split, "edges": _edges, "facades": _facades}
    if arguments and arguments[0] in kinds:
        return kinds[arguments[0]](arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"treadle pairs: unknown kind {arguments[0]!r}{nearest(arguments[0], kinds)}")
    parser = Parser(
        "pairs",
        f"Prepare paired data on disk, for image-to-image translation. {_LAYOUT}",
        EXAMPLES,
        usage="treadle pairs {join,split,edges,facades} ... --out ROOT [options]",
    )
    listed = parser.add_subparsers(title="kinds", metavar="KIND", parser_class=ArgumentParser)
    listed.add_parser("join", help="two folders of pictures, matched by file name")
    listed.add_parser("split", help="pairs that are there: into train, val and test, as they are")
    listed.add_parser("edges", help="photographs, each with its edges")
    listed.add_parser("facades", help="house fronts that a grammar draws, each with its label map")
    parser.parse_args(arguments)
    parser.print_help()
    return 2


def _join(arguments: list[str]) -> int:
    parser = Parser(
        "pairs join",
        "Join two folders: pictures that have the same name, whatever their endings, become the pairs A|B. " + _LAYOUT,
        JOIN_EXAMPLES,
    )
    parser.add_argument("a", metavar="A", type=Path, help="folder of the left halves")
    parser.add_argument("b", metavar="B", type=Path, help="folder of the right halves")
    _common(parser)
    _reading(parser)
    parser.add_argument("--labels", choices=["A", "B", "AB"], default="",
                        help="what holds label maps: resized without mixing their colours")  # fmt: skip
    parser.add_argument("--skip-unmatched", action="store_true", help="leave out pictures without a partner")
    options = parser.parse_args(arguments)
    from treadle.gans import prepare
    from treadle.gans.splitting import parse_shares

    shares = parse_shares(options.split)
    pairs, alone = prepare.joined(
        options.a,
        options.b,
        options.size,
        shares=shares,
        seed=options.seed,
        fit=options.fit,
        labels=options.labels,
        skip_unmatched=options.skip_unmatched,
    )
    code = _write(pairs, options.out, skip_bad=options.skip_bad)
    _list("without a partner", list(map(str, alone)))
    return code


def _split(arguments: list[str]) -> int:
    parser = Parser(
        "pairs split",
        "Split pairs into train, val and test, their files as they are. Joined pictures, A left and B right, go into "
        "ROOT/train, ROOT/val and ROOT/test; those of two folders, matched by name, into ROOT/A/train, ROOT/B/train "
        "and so on: all of them or none, and never into a folder that holds something.",
        SPLIT_EXAMPLES,
    )
    parser.add_argument("pictures", metavar="PICTURES", type=Path,
                        help="folder of joined pictures, or of A, or one that holds the folders A and B")  # fmt: skip
    parser.add_argument("b", metavar="B", type=Path, nargs="?", help="folder of B")
    _parts(parser, "another seed, another split")
    parser.add_argument("--link", action="store_true", help="make symbolic links to the files, instead of copies")
    parser.add_argument("--skip-unmatched", action="store_true", help="leave out pictures without a partner")
    parser.add_argument("--skip-bad", action="store_true", help="leave out pairs with a picture that cannot be used")
    options = parser.parse_args(arguments)
    from treadle.gans.splitting import parse_shares, placed

    pairs, alone = placed(
        options.pictures,
        options.b,
        shares=parse_shares(options.split),
        seed=options.seed,
        link=options.link,
        skip_unmatched=options.skip_unmatched,
    )
    code = _write(pairs, options.out, skip_bad=options.skip_bad)
    _list("without a partner", list(map(str, alone)))
    return code


def _edges(arguments: list[str]) -> int:
    parser = Parser(
        "pairs edges",
        "Pair photographs (B) with their edges (A), black on white, as Canny's detector finds them. " + _LAYOUT,
        EDGES_EXAMPLES,
    )
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of the photographs")
    _common(parser)
    _reading(parser)
    parser.add_argument("--sigma", metavar="PIXELS", type=float, default=1.5,
                        help="blur before edges are looked for: more gives fewer (default: 1.5)")  # fmt: skip
    options = parser.parse_args(arguments)
    from treadle.gans import prepare
    from treadle.gans.splitting import parse_shares

    shares = parse_shares(options.split)
    pairs = prepare.edge_pairs(
        options.photos,
        options.size,
        shares=shares,
        seed=options.seed,
        fit=options.fit,
        sigma=options.sigma,
    )
    return _write(pairs, options.out, skip_bad=options.skip_bad)


def _facades(arguments: list[str]) -> int:
    parser = Parser(
        "pairs facades",
        "Draw house fronts with a small grammar: label maps (A) and the picture that belongs to each (B). " + _LAYOUT,
        FACADES_EXAMPLES,
    )
    parser.add_argument("--count", metavar="N", type=int, default=400, help="how many pairs (default: 400)")
    _common(parser, "another seed, other houses")
    options = parser.parse_args(arguments)
    from treadle.gans import prepare
    from treadle.gans.splitting import parse_shares

    shares = parse_shares(options.split)
    pairs = prepare.facade_pairs(options.count, options.size, shares=shares, seed=options.seed)
    return _write(pairs, options.out)


def _common(parser: Parser, seed: str = "another seed, another split") -> None:
    parser.add_argument("--size", metavar="PIXELS", type=int, default=256,
                        help="width and height of either half (default: 256)")  # fmt: skip
    _parts(parser, seed)


def _parts(parser: Parser, seed: str) -> None:
    parser.add_argument("--out", metavar="ROOT", required=True, type=Path, help="folder to make")
    parser.add_argument("--split", metavar="TRAIN/VAL/TEST", default="0.8/0.1/0.1",
                        help="shares of the three parts (default: 0.8/0.1/0.1)")  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=int, default=0, help=f"{seed} (default: 0)")


def _reading(parser: Parser) -> None:
    parser.add_argument("--fit", choices=["crop", "stretch"], default="crop",
                        help="scale the shorter side and take the middle, or scale both (default: crop)")  # fmt: skip
    parser.add_argument("--skip-bad", action="store_true", help="leave out pairs with a picture that cannot be used")


def _write(pairs: Sequence[Writable], root: Path, *, skip_bad: bool = False) -> int:
    from treadle.gans.prepare import write_pairs

    # What is half-made is removed on SIGTERM, too.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        counts, bad = write_pairs(pairs, root, skip_bad=skip_bad, progress=_progress)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"{shown(root)}: " + ", ".join(f"{count} {part}" for part, count in counts.items()))
    print(f"train on it: treadle train pix2pix --data {shlex.quote(shown(root))}")
    _list("that cannot be used", list(map(str, bad)))
    return 0


def _progress(pairs: Sequence[Writable]) -> Iterator[Writable]:
    """A bar on a terminal, gone when it is done; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(pairs, "pairs", console=console, transient=True, disable=not console.is_terminal)


def _list(what: str, items: list[str]) -> None:
    if items:
        print(f"left out {len(items)} {what}:")
        for item in items:
            print(f"  {item}")
