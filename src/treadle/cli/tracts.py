"""`treadle tracts`: tractography's own data tools."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser

from treadle.cli.common import Parser
from treadle.errors import UsageError, nearest

KINDS = {
    "prepare": "volumes and streamlines of many subjects into one HDF5 file",
    "preview": "one batch of a training, as streamlines",
    "show": "what a prepared file holds; take something out of it",
    "score": "what is right about streamlines, where the truth is known",
}
"""Each is the module `treadle.cli.tracts_<name>` with `run(arguments) -> exit code`, imported when it is called."""

EXAMPLES = """  treadle tracts prepare data data.h5 config.json train.txt valid.txt
  treadle tracts show data.h5
  treadle tracts preview tracts --data data.h5 --out batch.trk
  treadle tracts score tracks.trk --truth phantom

each explains itself: treadle tracts prepare --help"""


def run(arguments: list[str]) -> int:
    """Find the tool; returns the exit code."""
    if arguments and arguments[0] in KINDS:
        module = importlib.import_module(f"treadle.cli.tracts_{arguments[0]}")
        code: int = module.run(arguments[1:])
        return code
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"treadle tracts: unknown kind {arguments[0]!r}{nearest(arguments[0], KINDS)}")
    parser = Parser(
        "tracts",
        "Tools for the data of tractography: TRK, TCK, TRX and NIfTI files, and prepared data in one HDF5 file, in "
        "dwi_ml's schema.",
        EXAMPLES,
        usage=f"treadle tracts {{{','.join(KINDS)}}} ...",
    )
    listed = parser.add_subparsers(title="kinds", metavar="KIND", parser_class=ArgumentParser)
    for name, what in KINDS.items():
        listed.add_parser(name, help=what)
    parser.parse_args(arguments)
    parser.print_help()
    return 2
