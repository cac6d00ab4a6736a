"""`treadle export`: a run's model as a file for other programs."""

from __future__ import annotations

import inspect
import re
import textwrap
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser, add_at, print_results, shown
from treadle.cli.script import add_trainer, recipe_at
from treadle.errors import UsageError, nearest
from treadle.runs.run import find_run

if TYPE_CHECKING:
    from treadle.export.exporter import Exporter, Option
    from treadle.export.onnx import Exportable

EXAMPLES = """  treadle export runs/pix2pix/v001 --onnx
  treadle export runs/pix2pix --onnx --out my.onnx         its newest version
  treadle export runs/pix2pix --onnx --at best             not its final model
  treadle export runs/cyclegan/v001 --onnx --model BtoA    one of several
  treadle export runs/splats --help      what the trainer of that run offers"""

_OF_ONNX = ("at", "model", "opset")


def run(arguments: list[str]) -> int:
    """Write the file, and print what is to be known about it; returns the exit code."""
    directory, trainer = _subject(arguments)
    formats: Mapping[str, Exporter] = trainer.exporters() if trainer is not None else {}
    parser, every = _parser(formats, None if trainer is None else trainer.__name__)
    if directory is None:
        parser.epilog = f"{parser.epilog}\n\n{_offers()}".rstrip() if {"-h", "--help"} & {*arguments} else parser.epilog
    options, strange = parser.parse_known_args(_joined(arguments, every))
    assert directory is not None and trainer is not None  # the parser has asked for a run
    if strange:
        known = [f"--{name}" for name in ("onnx", *_OF_ONNX, "out", "trainer", *formats, *every)]
        name = strange[0].partition("=")[0]
        raise UsageError(f"{directory}: {trainer.__name__} has no export option {name!r}{nearest(name, known)}")
    if not options.onnx and not any(_chosen(options, name) for name in formats):
        wanted = " ".join(["--onnx", *(f"--{name}" for name in formats)])
        parser.error(f"one of the arguments {wanted} is required" if formats
                     else f"the following arguments are required: {wanted}")  # fmt: skip
    if options.onnx:
        _refuse_strangers(options, "onnx", formats)
        return _onnx(directory, trainer, options)
    return _own(directory, options, formats)


def _subject(arguments: Sequence[str]) -> tuple[Path | None, type[Any] | None]:
    """The run that the arguments name, and its trainer: they decide what the other arguments may be."""
    head = Parser("export", "", "")
    head.add_argument("words", nargs="*")
    for option in ("--out", "--at", "--model", "--opset"):
        head.add_argument(option)
    add_trainer(head, data=None)
    known, rest = head.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])
    words = [word for word in [*known.words, *rest] if not word.startswith("-")]
    if not words:
        return None, None
    for word in words:  # what stands behind an option of the trainer's looks like a run too
        try:
            directory = find_run(word)
        except UsageError:
            continue
        return directory, recipe_at(directory, known).trainer_class
    return find_run(words[0]), None


def _parser(formats: Mapping[str, Exporter], trainer: str | None) -> tuple[Parser, dict[str, Option]]:
    """The command's parser for a trainer that has these formats, and their options by name."""
    parser = Parser(
        "export",
        "Write a model of a run as a file for programs that have neither torch nor Treadle. With --onnx it is "
        "run beside torch first, and kept only if no value of the output differs by more than 1e-4.",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--onnx", action="store_true", help="as ONNX")
    for name, exporter in formats.items():
        if exporter.metavar:
            kinds.add_argument(f"--{name}", metavar=exporter.metavar, help=_plain(exporter.help))
        else:
            kinds.add_argument(f"--{name}", action="store_true", help=_plain(exporter.help))
    files = ", ".join(["RUN/MODEL.onnx", *(f"RUN/{exporter.file}" for exporter in formats.values())])
    parser.add_argument("--out", metavar="FILE", help=f"where it goes (default: {files})")
    add_at(parser)
    parser.add_argument("--model", metavar="NAME", help="which model, where the run has several")
    parser.add_argument("--opset", metavar="N", type=int, help="version of ONNX's operators, 9 to 20 (default: 17)")
    add_trainer(parser, data=None)
    every = {option.name: option for exporter in formats.values() for option in exporter.options}
    every.pop("at", None)  # it is the command's own
    group = parser.add_argument_group(f"what else {trainer} lets one choose") if every else parser
    for option in every.values():
        users = ", ".join(f"--{name}" for name, exporter in formats.items() if option in exporter.options)
        text = _plain(f"{option.help} (with {users})")
        if option.metavar:
            group.add_argument(f"--{option.name}", metavar=option.metavar, help=text)
        else:
            group.add_argument(f"--{option.name}", action="store_true", default=None, help=text)
    return parser, every


def _plain(text: str) -> str:
    """A help text for argparse, which else makes something of %."""
    return text.replace("%", "%%")


def _joined(arguments: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """The arguments, where a value such as -1,0,2 or -y is tied to its option: argparse would take it for another."""
    joined: list[str] = []
    for argument in arguments:
        before = joined[-1] if joined else ""
        is_value = re.fullmatch(r"-[^-].*", argument) is not None and argument != "-h"
        if before[:2] == "--" and before[2:] in options and options[before[2:]].metavar and is_value:
            joined[-1] = f"{before}={argument}"
        else:
            joined.append(argument)
    return joined


def _offers() -> str:
    """The formats that the trainers here have of their own, for a help page that knows no run."""
    from treadle.recipes.registry import trainer
    from treadle.runs.names import is_file, registered

    lines = []
    for name, point in sorted(registered().items()):
        if is_file(point):
            continue
        try:
            formats: Mapping[str, Exporter] = trainer(name).exporters()
        except UsageError:
            continue  # a broken package of somebody else's: `treadle recipes` says what is wrong with it
        for key, exporter in formats.items():
            flag = f"--{key} {exporter.metavar}".rstrip()
            lines.append(f"  {name + ':':<10} {flag}")
            lines += textwrap.wrap(exporter.help, 78, initial_indent=" " * 13, subsequent_indent=" " * 13)
    return "\n".join(["formats of runs of (treadle export RUN --help has their options)", *lines]) if lines else ""


def _given(options: Namespace, name: str) -> Any:
    return getattr(options, name.replace("-", "_"))


def _chosen(options: Namespace, name: str) -> bool:
    return _given(options, name) not in (None, False)


def _refuse_strangers(options: Namespace, chosen: str, formats: Mapping[str, Exporter]) -> None:
    """Raise UsageError for an option that was given and that the chosen format has not."""
    own = _OF_ONNX if chosen == "onnx" else tuple(option.name for option in formats[chosen].options)
    known = dict.fromkeys([*_OF_ONNX, *(option.name for entry in formats.values() for option in entry.options)])
    for name in known:
        if name not in own and _given(options, name) is not None:
            raise UsageError(f"--{name} has no meaning with --{chosen}: leave it out")


def _own(directory: Path, options: Namespace, formats: Mapping[str, Exporter]) -> int:
    """Write one of the trainer's own formats."""
    chosen = next(name for name in formats if _chosen(options, name))
    exporter = formats[chosen]
    _refuse_strangers(options, chosen, formats)
    values: dict[str, Any] = {chosen: _given(options, chosen)}
    for option in exporter.options:
        text = _given(options, option.name)
        values[option.name] = _read(option, text) if option.metavar else bool(text)
    target = _target(options.out, exporter.file) if options.out else directory / exporter.file
    if exporter.endings and not target.name.lower().endswith(tuple(exporter.endings)):
        raise UsageError(f"--out {options.out}: --{chosen} writes {' or '.join(exporter.endings)}")
    facts = exporter.write(directory, target, values)
    print(f"{directory}, {exporter.help}")
    print_results(facts)
    print(f"written: {shown(target)} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def _read(option: Option, text: str | None) -> Any:
    if text is None:
        return option.default
    try:
        return option.read(text)
    except UsageError:
        raise
    except ValueError:
        raise UsageError(f"--{option.name} {text}: expected {option.metavar}") from None


def _onnx(directory: Path, trainer: type[Any], options: Namespace) -> int:
    """Write a model as ONNX, and print how near it is to torch."""
    from treadle.export.onnx import OPSET, write_onnx

    name, model = _choose(directory, trainer, options.model, options.at)
    target = _target(options.out, "model.onnx") if options.out else directory / f"{name}.onnx"
    differences = write_onnx(model, target, opset=OPSET if options.opset is None else options.opset)
    which = model.metadata.get("model", "best model")
    print(f"{name}, {which} of {directory}: largest difference between onnxruntime and torch")
    for shape, difference in differences.items():
        print(f"  {' x '.join(map(str, shape)) + ':':<20} {difference:.1e}")
    print("the file says of itself")
    for key, value in model.metadata.items():
        print(f"  {key + ':':<20} {value}")
    print(f"written: {shown(target)} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def _choose(directory: Path, trainer: type[Any], wanted: str | None, at: str | None) -> tuple[str, Exportable]:
    """The model named `wanted`, or the only one, of those that the run's trainer offers."""
    if at is not None and "at" not in inspect.signature(trainer.exportable).parameters:
        raise UsageError(f"--at {at}: the exportable() of {trainer.__name__} takes no `at`: leave it out")
    models: dict[str, Exportable] = trainer.exportable(directory, **({} if at is None else {"at": at}))
    if not models:
        raise UsageError(f"{directory}: {trainer.__name__} has nothing to export{_instead(trainer)}")
    if wanted is None and len(models) > 1:
        raise UsageError(f"{directory} has several models: choose one with --model {' or --model '.join(models)}")
    name = next(iter(models)) if wanted is None else wanted
    if name not in models:
        raise UsageError(f"--model {name}: {directory} has no such model{nearest(name, models)}")
    return name, models[name]


def _instead(trainer: type[Any]) -> str:
    formats = " or ".join(f"--{name}" for name in trainer.exporters())
    return f" as ONNX: take {formats}" if formats else ""


def _target(text: str, usual: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        raise UsageError(f"--out {text} is a directory: name a file in it, such as {path / usual}")
    if not path.parent.is_dir():
        raise UsageError(f"--out {text}: there is no directory {path.parent}")
    return path
