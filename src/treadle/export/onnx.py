"""Models as ONNX files, for programs that have neither torch nor Treadle; compared with torch before they are kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from treadle.errors import RunError, UsageError
from treadle.files import write_whole

TOLERANCE = 1e-4
"""Largest difference to torch that is accepted in any value of the output."""

OPSET = 17
"""Version of ONNX's operators that is written by default: runtimes since 2022 know it."""

OPSETS = range(9, 21)
"""Those that can be written."""


@dataclass(frozen=True)
class Exportable:
    """A trained model that can leave Treadle: a function of one float32 tensor that gives one.

    A trainer class offers them by `exportable(run: Path) -> dict[str, Exportable]`, under the names people know.
    """

    model: nn.Module
    """In eval mode, on the CPU."""
    shape: tuple[int, ...]
    """Of one input, without the batch: (3, 256, 256)."""
    free: Mapping[int, str] = field(default_factory=dict)
    """Axes (the batch is 0) that may have another size at each call, by name, in input and output: {2: "height"}."""
    multiple: int = 1
    """What the sizes of free axes have to be multiples of."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the file is to say about itself."""


def write_onnx(exportable: Exportable, path: Path, *, opset: int = OPSET) -> dict[tuple[int, ...], float]:
    """Write the model to `path`, whole or not at all; returns the largest difference to torch by shape of the input.

    The file's input is called "input", its output "output"; the batch may have any size. Before it is written it has
    run in onnxruntime, with batches of 1 and 3, and with another size where there are free axes.

    Raises:
        UsageError: packages are missing, `opset` is none of `OPSETS`, or `path` cannot be written.
        RunError: the model cannot be expressed, or differs from torch by more than `TOLERANCE`; `path` is as it was.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX needs the package {error.name}: pip install 'treadle[onnx]'") from None
    if opset not in OPSETS:
        raise UsageError(f"opset is {opset}: expected {OPSETS.start} to {OPSETS.stop - 1}")
    content = _converted(exportable, opset)
    differences = _differences(exportable, content)
    for shape, difference in differences.items():
        if not difference <= TOLERANCE:
            raise RunError(
                f"in onnxruntime the output differs from torch's by {difference:.2g} for an input of "
                f"{' x '.join(map(str, shape))} (allowed: {TOLERANCE:.0e}), so nothing was written: try another opset "
                f"than {opset}"
            )
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    return differences


def _converted(exportable: Exportable, opset: int) -> bytes:
    """The file's content.

    torch's older exporter records one call. It needs no package, and what it records of these models holds for all
    sizes; its successor takes seconds where this takes tenths, and needs onnxscript.
    """
    import onnx

    axes = {0: "batch", **exportable.free}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a successor; that a size was checked in Python
        recorded = Path(folder, "recorded.onnx")
        try:
            torch.onnx.export(
                exportable.model,
                (torch.zeros(2, *exportable.shape),),
                recorded,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": axes, "output": axes},
                opset_version=opset,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            raise RunError(f"the model cannot be written as ONNX: {_one_line(error)}") from None
        model = onnx.load(recorded)
    model.producer_name, model.producer_version = "treadle", exportable.metadata.get("treadle", "")
    onnx.helper.set_model_props(model, dict(exportable.metadata))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _inputs(exportable: Exportable) -> Iterator[Tensor]:
    """What the file is tried with: values in [-1, 1], always the same."""
    generator = torch.Generator().manual_seed(0)
    other = list(exportable.shape)
    for axis in list(exportable.free)[:1]:
        other[axis - 1] += exportable.multiple
    shapes = [(1, *exportable.shape), (3, *exportable.shape), (1, *other)]
    for shape in dict.fromkeys(shapes):
        yield torch.rand(shape, generator=generator) * 2 - 1


def _differences(exportable: Exportable, content: bytes) -> dict[tuple[int, ...], float]:
    """The largest difference between what torch and onnxruntime make of each of `_inputs`, by its shape."""
    import onnxruntime

    inputs = list(_inputs(exportable))
    with torch.no_grad():
        expected = [exportable.model(x) for x in inputs]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised here; it need not print them too
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0]) for x in inputs]
    except Exception as error:  # onnxruntime has a class of its own for each kind, all of them plain Exceptions
        raise RunError(f"onnxruntime cannot run the exported model: {_one_line(error)}") from None
    return {
        tuple(x.shape): float((there - here).abs().max()) if there.shape == here.shape else math.inf
        for x, there, here in zip(inputs, found, expected, strict=True)
    }


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
