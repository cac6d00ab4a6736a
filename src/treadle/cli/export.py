"""`treadle export`: a run's best model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser, find_run, shown
from treadle.cli.script import add_trainer, recipe_of
from treadle.errors import UsageError, nearest

if TYPE_CHECKING:
    from treadle.export.onnx import Exportable

EXAMPLES = """  treadle export runs/pix2pix/v001 --onnx
  treadle export runs/pix2pix --onnx --out my.onnx         its newest version
  treadle export runs/cyclegan/v001 --onnx --model BtoA    one of several"""


def run(arguments: list[str]) -> int:
    """Write the file, and print how near it is to torch; returns the exit code."""
    parser = Parser(
        "export",
        "Write the best model of a run as a file for programs that have neither torch nor Treadle. It is run beside "
        "torch first, and kept only if no value of the output differs by more than 1e-4.",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    parser.add_argument("--onnx", action="store_true", required=True, help="as ONNX, the only format so far")
    parser.add_argument("--out", metavar="FILE", help="where it goes (default: RUN/MODEL.onnx)")
    parser.add_argument("--model", metavar="NAME", help="which model, where the run has several")
    parser.add_argument("--opset", metavar="N", type=int, help="version of ONNX's operators, 9 to 20 (default: 17)")
    add_trainer(parser)
    options = parser.parse_args(arguments)

    from treadle.export.onnx import OPSET, write_onnx

    directory = find_run(options.run)
    name, model = _choose(directory, recipe_of(directory, options).trainer_class, options.model)
    target = _target(options.out) if options.out else directory / f"{name}.onnx"
    differences = write_onnx(model, target, opset=OPSET if options.opset is None else options.opset)
    print(f"{name}, best model of {directory}: largest difference between onnxruntime and torch")
    for shape, difference in differences.items():
        print(f"  {' x '.join(map(str, shape)) + ':':<20} {difference:.1e}")
    print("the file says of itself")
    for key, value in model.metadata.items():
        print(f"  {key + ':':<20} {value}")
    print(f"written: {shown(target)} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


def _choose(directory: Path, trainer: type[Any], wanted: str | None) -> tuple[str, Exportable]:
    """The model named `wanted`, or the only one, of those that the run's trainer offers."""
    models: dict[str, Exportable] = trainer.exportable(directory)
    if not models:
        raise UsageError(f"{directory}: {trainer.__name__} has nothing to export")
    if wanted is None and len(models) > 1:
        raise UsageError(f"{directory} has several models: choose one with --model {' or --model '.join(models)}")
    name = next(iter(models)) if wanted is None else wanted
    if name not in models:
        raise UsageError(f"--model {name}: {directory} has no such model{nearest(name, models)}")
    return name, models[name]


def _target(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        raise UsageError(f"--out {text} is a directory: name a file in it, such as {path / 'model.onnx'}")
    if not path.parent.is_dir():
        raise UsageError(f"--out {text}: there is no directory {path.parent}")
    return path
